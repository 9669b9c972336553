"""Where probes look from: the running hosts, the operator's own place, the canary's record."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING

from pydantic import JsonValue, TypeAdapter

from holdfast_installer.audit.evidence import Observation
from holdfast_installer.errors import HoldfastError
from holdfast_installer.remote import run_on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_installer.site import Host, Site

CANARY_SECONDS = 5
_json: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


def script(name: str) -> str:
    """Return the text of one of the scripts that run on hosts."""
    return resources.files("holdfast_installer.audit").joinpath("scripts", f"{name}.py").read_text()


def on_hosts(
    site: Site, control: str, name: str, arguments: Mapping[str, JsonValue]
) -> tuple[Observation, ...]:
    """Run a script on several hosts side by side; `arguments` is {host name: its argument}.

    A host that cannot be asked yields an observation with a problem, never none.
    """
    chosen = [host for host in site.hosts if host.name in arguments]
    with ThreadPoolExecutor(max_workers=32) as pool:
        return tuple(
            pool.map(lambda host: _on_host(site, control, name, host, arguments[host.name]), chosen)
        )


def _on_host(site: Site, control: str, name: str, host: Host, argument: JsonValue) -> Observation:
    text = script(name)
    # The boot id comes with the answer: the same words from another boot are other evidence.
    wrapped = 'cat /proc/sys/kernel/random/boot_id && exec python3 - "$1"'
    problem, boot_id, seen = "", "", None
    try:
        done = run_on(site, host, ["sh", "-c", wrapped, "probe", json.dumps(argument)], given=text)
        boot_id, _, answer = done.stdout.partition("\n")
        if done.returncode != 0:
            problem = done.stderr.strip()[-400:] or f"exit code {done.returncode}"
        else:
            seen = _json.validate_json(answer)
    except HoldfastError as error:
        problem = f"{error.problem} {error.cause}"
    except ValueError as error:
        problem = f"the host's answer is not JSON: {error}"
    return Observation(
        control=control,
        vantage="host",
        host=host.name,
        boot_id=boot_id.strip(),
        taken_at=datetime.now(UTC),
        script=hashlib.sha256(text.encode()).hexdigest(),
        seen=seen,
        problem=problem,
    )


def from_here(control: str, name: str, argument: JsonValue) -> Observation:
    """Run a script where the operator is: the positive control of what hosts must not reach."""
    text = script(name)
    done = subprocess.run(
        [sys.executable, "-", json.dumps(argument)],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    failed = done.returncode != 0
    return Observation(
        control=control,
        vantage="operator",
        host="operator",
        taken_at=datetime.now(UTC),
        script=hashlib.sha256(text.encode()).hexdigest(),
        seen=None if failed else _json.validate_json(done.stdout),
        problem=(done.stderr.strip()[-400:] or "no output") if failed else "",
    )


def canary_saw(witness: str, nonce: str) -> list[str] | None:
    """Return what the canary recorded about a nonce, or None where its record cannot be read."""
    # No proxy: the record is read where the site file says it is, and nobody in between is told.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{witness.rstrip('/')}/seen/{nonce}", timeout=CANARY_SECONDS) as answer:
            found = json.load(answer)
    except (OSError, ValueError):
        return None
    seen = found.get("seen") if isinstance(found, dict) else None
    return [str(entry) for entry in seen] if isinstance(seen, list) else None


def with_record(look: Observation, witness: str | None, nonce: str) -> Observation:
    """Return the observation with the canary's own record of `nonce` beside what the host saw."""
    if witness is None or not isinstance(look.seen, dict):
        return look
    found = canary_saw(witness, nonce)
    recorded: JsonValue = None if found is None else [*found]
    return look.model_copy(update={"seen": {**look.seen, "recorded": recorded}})
