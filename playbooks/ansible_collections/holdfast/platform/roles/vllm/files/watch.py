"""Tell whether a vLLM unit of this host still generates; run by a timer, exit 1 when it does not.

An engine can die, or hang, behind an API server that goes on listening; only a generated token
shows that both live. Arguments: unit, base address, model, folder of the certificates, seconds that
a start may take.
"""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import ask

FAILURES = 2
PAUSE = 5.0
PROGRESS = re.compile(rb"^vllm:(?:prompt|generation)_tokens_total\{.*\} (\S+)$", re.MULTILINE)


def progress(address: str, context: ssl.SSLContext) -> float:
    """Return the tokens counted so far; a queue that moves proves life as well as an answer."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=20, context=context) as answer:  # noqa: S310 - the role's own address, https
        return sum(float(count) for count in PROGRESS.findall(answer.read()))


def lives(address: str, model: str, context: ssl.SSLContext) -> str:
    """Return nothing if the unit generates, or else what it did instead."""
    try:
        before = progress(address, context)
        try:
            ask.ask(address, model, context)
        except TimeoutError:
            if progress(address, context) == before:
                return "no token came, and none was counted"
    except (urllib.error.URLError, OSError) as error:
        return str(error)
    return ""


def invocation(unit: str) -> tuple[str, float]:
    """Return which start of the unit this is, empty when it is not active, and its age in s."""
    wanted = "--property=ActiveState,InvocationID,ActiveEnterTimestampMonotonic"
    out = subprocess.run(
        ["/usr/bin/systemctl", "show", wanted, "--", unit],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = dict(line.split("=", 1) for line in out.splitlines())
    if found["ActiveState"] != "active":
        return "", 0.0
    age = time.monotonic() - int(found["ActiveEnterTimestampMonotonic"]) / 1e6
    return found["InvocationID"], age


def main() -> None:
    """Try a few times; a unit that has yet to answer for the first time may take its while."""
    unit, address, model, tls, patience = sys.argv[1:]
    context = ssl.create_default_context(cafile=f"{tls}/ca.pem")
    context.load_cert_chain(f"{tls}/host.pem", f"{tls}/host.key")
    answered = Path("/run/holdfast-vllm-watch", unit)
    start, age = invocation(unit)
    if not start:
        return
    why = ""
    for attempt in range(FAILURES):
        if attempt:
            time.sleep(PAUSE)
        why = lives(address, model, context)
        if not why:
            answered.write_text(start, encoding="utf-8")
            return
    if invocation(unit)[0] != start:
        return  # it was restarted meanwhile
    known = answered.read_text(encoding="utf-8") if answered.exists() else ""
    if known != start and age < float(patience):
        return
    sys.exit(f"{unit} does not generate and is restarted: {why}")


if __name__ == "__main__":
    main()
