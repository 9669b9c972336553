"""Runs on a host: which of Holdfast's units run, what came of checking models, and why not.

Argument: {}. Prints {"units": [{"unit", "state", "result", "restarts", "since", "said": [line]}],
"replicas": [{"unit", "model", "commit"}], "models": [note of the check]}. Standard library only.
"""

import json
import subprocess
from pathlib import Path
from typing import Any  # Any: another program's JSON

SPECS = Path("/etc/holdfast/vllm")
NOTES = Path("/run/holdfast-model")
OURS = "holdfast-*"
# What the roles take from Debian; asked about where it is enabled.
DEBIAN = (
    "chrony.service",
    "haproxy.service",
    "nftables.service",
    "nginx.service",
    "postgresql@15-main.service",
    "prometheus-node-exporter.service",
    "prometheus.service",
    "unbound.service",
)
WANTED = (
    "Id,LoadState,ActiveState,SubState,Result,NRestarts,ActiveEnterTimestamp,UnitFileState,Type"
)
LINES = "6"


def run(*command: str) -> str:
    """Return what a command prints; nothing where it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def names() -> list[str]:
    """Return the services to look at: ours that were ever started or are enabled, and Debian's."""
    found = set(DEBIAN)
    for listing in ("list-units", "list-unit-files"):
        words = ("systemctl", listing, "--all", "--plain", "--no-legend", "--type=service", OURS)
        found |= {line.split()[0] for line in run(*words).splitlines() if line.split()}
    for spec in SPECS.glob("*.json"):
        found.add(f"holdfast-vllm@{spec.stem}.service")
    # A template is no unit; pulls and looks come and go, and their outcome is told otherwise.
    passing = ("holdfast-approval@", "holdfast-model@", "holdfast-vllm-watch@")
    return sorted(name for name in found if "@." not in name and not name.startswith(passing))


def look(name: str) -> dict[str, Any] | None:
    """Return the state of a unit, None for one that this host is not meant to run."""
    text = run("systemctl", "show", f"--property={WANTED}", "--", name)
    seen = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    meant = seen.get("UnitFileState") in {"enabled", "enabled-runtime", "static", "generated"}
    if seen.get("LoadState") == "not-found" or not (meant or seen.get("ActiveState") == "active"):
        return None
    done = seen.get("Type") == "oneshot" and seen.get("Result") == "success"
    state = "active" if done else seen.get("ActiveState", "")
    said: list[str] = []
    if state != "active":
        log = ("journalctl", "--unit", name, "--lines", LINES, "--no-pager", "--output", "cat")
        said = [line for line in run(*log).splitlines() if line.strip()]
    return {
        "unit": name,
        "state": state,
        "result": seen.get("Result", ""),
        "restarts": int(seen.get("NRestarts") or 0),
        "since": seen.get("ActiveEnterTimestamp", ""),
        "said": said,
    }


def read(path: Path, *keys: str) -> dict[str, Any]:
    """Return some keys of a JSON file; what cannot be read says so."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {key: document[key] for key in keys}
    except (OSError, ValueError, KeyError) as error:
        return {**dict.fromkeys(keys, ""), "model": f"{path}: {error}"}


def main() -> None:
    """Look at all of it."""
    note = ("model", "commit", "path", "checked", "seconds", "problems")
    print(
        json.dumps(
            {
                "units": [unit for name in names() if (unit := look(name)) is not None],
                "replicas": [
                    {"unit": f"holdfast-vllm@{spec.stem}.service", **read(spec, "model", "commit")}
                    for spec in sorted(SPECS.glob("*.json"))
                ],
                "models": [read(path, *note) for path in sorted(NOTES.glob("*.json"))],
            }
        )
    )


main()
