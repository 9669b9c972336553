"""Add replicas to a pool's balancer, or take them out; run on the control host.

Usage: workers.py LIST PORT add|remove SECONDS URL...   LIST is the file that the balancer reads,
PORT its own. `add` waits until it sends requests to each of them; `remove` waits until it no longer
does and until what they were sent before has ended. Waiting ends after SECONDS in any case: `add`
then fails, `remove` says so. Prints JSON: {"changed": bool, "waited": seconds, "busy": [URL]}.
Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any  # Any: another program's JSON

LOCK = Path("/run/holdfast-workers.lock")
TLS = Path("/etc/holdfast/tls")
POLL_SECONDS = 0.5
# The balancer reads its list every two seconds; requests it sends until then count too.
LEAVE_SECONDS = 10.0
BUSY = re.compile(rb"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", re.MULTILINE)


def rewrite(path: Path, urls: list[str], *, add: bool) -> bool:
    """Change the list and say whether it differed; a reader sees the old or the new one."""
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            before = [one["url"] for one in json.loads(path.read_text())["workers"]]
        except (OSError, ValueError, KeyError, TypeError):
            before = []  # damaged, or not there yet: the plan's list comes with the next apply
        wanted = set(before) | set(urls) if add else set(before) - set(urls)
        if wanted == set(before):
            return False
        document = {"version": 1, "workers": [{"url": url} for url in sorted(wanted)]}
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(document) + "\n")
        partial.chmod(0o644)
        partial.replace(path)
        return True


def listed(port: int) -> dict[str, bool]:
    """Return the replicas that the balancer has, and whether each is in good health."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/workers", timeout=5) as answer:
            found: Any = json.load(answer)
    except (urllib.error.URLError, OSError, ValueError):
        return {}
    workers = found.get("workers", []) if isinstance(found, dict) else found
    return {one["url"].rstrip("/"): bool(one.get("is_healthy")) for one in workers}


def idle(url: str, context: ssl.SSLContext) -> bool:
    """Say whether a replica has nothing to do; one that does not answer has nothing either."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10, context=context) as answer:  # noqa: S310 - https, from the plan
            return not any(float(count) for count in BUSY.findall(answer.read()))
    except (urllib.error.URLError, OSError) as error:
        return not isinstance(error, TimeoutError)


def credentials() -> ssl.SSLContext:
    """Return what replicas let in: this host's certificate."""
    context = ssl.create_default_context(cafile=str(TLS / "ca.pem"))
    context.load_cert_chain(str(TLS / "host.pem"), str(TLS / "host.key"))
    return context


def drain(port: int, urls: list[str], deadline: float, context: ssl.SSLContext) -> list[str]:
    """Wait until nothing is sent to the replicas nor runs on them; return those that still work."""
    gone = min(deadline, time.monotonic() + LEAVE_SECONDS)
    while time.monotonic() < gone and any(listed(port).get(url) for url in urls):
        time.sleep(POLL_SECONDS)
    busy, quiet = list(urls), dict.fromkeys(urls, 0)
    while busy and time.monotonic() < deadline:
        for url in busy:
            quiet[url] = quiet[url] + 1 if idle(url, context) else 0
        # twice in a row: a request may be on its way from the one to the other
        busy = [url for url in busy if quiet[url] < 2]
        time.sleep(POLL_SECONDS)
    return busy


def main() -> None:
    """Do one of the two."""
    path, port, verb, seconds, *urls = sys.argv[1:]
    began = time.monotonic()
    deadline = began + float(seconds)
    changed = rewrite(Path(path), urls, add=verb == "add")
    busy: list[str] = []
    if verb == "add":
        while missing := [url for url in urls if not listed(int(port)).get(url)]:
            if time.monotonic() > deadline:
                sys.exit(f"the balancer on port {port} does not take up {', '.join(missing)}")
            time.sleep(POLL_SECONDS)
    elif changed:
        busy = drain(int(port), urls, deadline, credentials())
    waited = round(time.monotonic() - began, 1)
    print(json.dumps({"changed": changed, "waited": waited, "busy": busy}))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
