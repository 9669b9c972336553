"""Ask the registry whether a model may be served, and decide a start by its answer.

Arguments: what to do, and the JSON file {hub, model, commit, files}. An approval is about content:
the digest that was approved must be that of the planned files.

--ask FILE     before a pull and before each start: wait for the registry's answer, note it, exit 1
               unless it is yes
--stamp FILE   what a server that is about to start does: go by the note, which it can read and its
               account could not ask for
--watch FILE   now and then while it serves: exit 1 if the answer is no; no answer changes nothing
--now MODEL    as root, after a decision: have every unit of a model looked at at once
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

NOTES = Path("/run/holdfast-approval")
UNITS = Path("/etc/holdfast/vllm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
APPROVED = "approved"
# A note this old does not let a server start, and one this old spares waiting for a registry that
# does not answer: a server that crashed comes back while the control host restarts.
LONGEST = 3600
PAUSE = 5.0


class Model:
    """One revision on this host, as the plan describes it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.hub: str = spec["hub"]
        self.name: str = spec["model"]
        self.commit: str = spec["commit"]
        named = {path: file["digest"] for path, file in spec["files"].items()}
        text = json.dumps(named, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        self.digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        self.note = NOTES / f"{self.name.replace('/', '--')}@{self.commit}.json"

    def __str__(self) -> str:
        return f"{self.name}@{self.commit[:12]}"


def ask(model: Model) -> dict[str, Any]:
    """Return the registry's answer: state, approved_digest, reason; OSError if there is none."""
    token = Path(os.environ["CREDENTIALS_DIRECTORY"], "token").read_text(encoding="utf-8").strip()
    name = urllib.parse.quote(model.name)
    request = urllib.request.Request(  # noqa: S310 - the registry's own address
        f"{model.hub}/api/holdfast/models/{name}/review/{model.commit}",
        headers={"Authorization": f"Bearer {token}"},
    )
    # SSL_CERT_FILE of the unit names the site's authority.
    context = ssl.create_default_context()
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 429 or error.code >= 500:
            raise
        said = error.headers.get("X-Error-Message") or error.reason
        return {"state": "unknown", "reason": f"the registry answers {error.code}: {said}"}
    except ValueError as error:
        raise OSError(f"the registry's answer cannot be read: {error}") from error
    return found


def refusal(model: Model, answer: dict[str, Any]) -> str:
    """Say why the answer does not let the model be served, nothing if it does."""
    state, reason = str(answer.get("state")), str(answer.get("reason") or "")
    if state != APPROVED:
        words = f"it is {state}, not approved" + (f" ({reason})" if reason else "")
        return f"{words}; a reviewer can: holdfast model approve {model}"
    if answer.get("approved_digest") != model.digest:
        return f"what was approved is not what was planned: {model.digest}"
    return ""


def note(model: Model, why: str) -> None:
    """Keep the answer for the server that is about to start."""
    document = {
        "model": model.name,
        "commit": model.commit,
        "boot": boot(),
        "asked": time.time(),
        "refusal": why,
        "digest": model.digest,
    }
    fresh = model.note.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(document), encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(model.note)


def by_note(model: Model) -> str:
    """Say why the last answer does not let the model be served, nothing if it does."""
    try:
        kept = json.loads(model.note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "the registry has not said since this host started that it may be"
    if kept["boot"] != boot() or time.time() - kept["asked"] > LONGEST:
        return "the registry did not say lately that it may be"
    if kept["digest"] != model.digest:
        return "the plan changed since the registry was asked"
    return str(kept["refusal"])


def waited(model: Model) -> str:
    """Ask until the registry answers; say why the model may not be served, nothing if it may."""
    told = False
    while True:
        try:
            why = refusal(model, ask(model))
        except OSError as error:
            if not by_note(model):
                print(f"the registry does not answer ({error}): its last word holds", flush=True)  # noqa: T201 - the journal
                return ""
            if not told:
                print(f"{model} waits for the registry, which does not answer: {error}", flush=True)  # noqa: T201
                told = True
            time.sleep(PAUSE)
        else:
            note(model, why)
            return why


def watched(model: Model) -> str:
    """Ask once; say why the model may no longer be served, nothing if it may or nobody answers."""
    try:
        why = refusal(model, ask(model))
    except OSError as error:
        print(f"the registry does not answer: {error}")  # noqa: T201
        return ""
    note(model, why)
    return why


def look_now(name: str) -> None:
    """Have each unit of a model asked about, and start those that stand still."""
    for path in sorted(UNITS.glob("*.json")):
        if json.loads(path.read_text(encoding="utf-8")).get("model") != name:
            continue
        server = f"holdfast-vllm@{path.stem}.service"
        # A server that runs is looked at; one that does not asks for itself when it starts.
        active = subprocess.run(["/usr/bin/systemctl", "is-active", "--quiet", server], check=False)
        unit = server if active.returncode else f"holdfast-approval@{path.stem}.service"
        subprocess.run(["/usr/bin/systemctl", "start", "--no-block", unit], check=False)
        print(unit)  # noqa: T201 - what was done


def boot() -> str:
    """Return what names this start of the host."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def main() -> None:
    """Do what the arguments say; exit 1 with the reason where the model may not be served."""
    what, argument = sys.argv[1:]
    if what == "--now":
        look_now(argument)
        return
    model = Model(json.loads(Path(argument).read_text(encoding="utf-8")))
    if why := {"--ask": waited, "--stamp": by_note, "--watch": watched}[what](model):
        sys.exit(f"{model} is not served: {why}")


if __name__ == "__main__":
    main()
