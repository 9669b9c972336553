"""A systemd unit that runs with the files it reads as they are now."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# What a module is told of a unit.
OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "files": {"type": "list", "elements": "path", "default": []},
    "verb": {"type": "str", "choices": ["restart", "reload"], "default": "restart"},
    "wait": {"type": "int", "default": 60},
}

STAMPS = Path("/run/holdfast/reloaded")


def properties(name: str) -> dict[str, str]:
    """Return what systemd knows of the unit."""
    wanted = "LoadState,ActiveState,Result,UnitFileState,InactiveExitTimestampMonotonic"
    out = subprocess.run(
        ["systemctl", "show", "--property", wanted, "--", name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


def newest_change(files: list[str]) -> float:
    """Return the wall-clock time at which any of the files last changed, 0 for none."""
    newest = 0.0
    for name in files:
        path = Path(name)
        entries = [path, *path.iterdir()] if path.is_dir() and not path.is_symlink() else [path]
        # lstat: turning a link is a change of the link, whatever the age of its new target
        newest = max(
            [
                newest,
                *(
                    entry.lstat().st_ctime
                    for entry in entries
                    if entry.is_symlink() or entry.exists()
                ),
            ]
        )
    return newest


def reload_manager(files: list[str]) -> None:
    """Make systemd read unit files that changed since it last did on our behalf.

    NeedDaemonReload cannot be asked: systemd does not see a drop-in of a unit not yet loaded.
    """
    stamp = STAMPS / "daemon"
    units = [name for name in files if name.startswith("/etc/systemd/system/")]
    if units and (not stamp.exists() or newest_change(units) > stamp.stat().st_mtime):
        STAMPS.mkdir(parents=True, exist_ok=True)
        stamp.touch()
        subprocess.run(["systemctl", "daemon-reload"], check=True)


def started_at(name: str, found: dict[str, str]) -> float:
    """Return the wall-clock time since when the unit has seen its files."""
    monotonic = int(found.get("InactiveExitTimestampMonotonic") or 0) / 1e6
    began = time.time() - (time.monotonic() - monotonic)
    stamp = STAMPS / name
    return max(began, stamp.stat().st_mtime) if stamp.exists() else began


def journal(name: str) -> str:
    """Return the last lines of the unit and of what it pulls in, for the message of a failure."""
    required = subprocess.run(
        ["systemctl", "show", "--property", "Requires,Wants", "--value", "--", name],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    units = [name, *(unit for unit in required if unit.endswith(".service"))]
    return subprocess.run(
        [
            *("journalctl", "--lines", "15", "--no-pager", "--output", "cat"),
            *(word for unit in units for word in ("--unit", unit)),
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()


class Unit:
    """One unit, looked at and acted upon."""

    def __init__(self, module: AnsibleModule, wanted: dict[str, Any]) -> None:
        self.module = module
        self.wanted = wanted
        self.name: str = wanted["name"]
        self.did: list[str] = []

    def systemctl(self, *words: str) -> None:
        """Do one thing, or only note it in check mode."""
        self.did.append(words[0])
        if self.module.check_mode:
            return
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            self.module.fail_json(
                msg=f"systemctl {' '.join(words)}: {done.stderr.strip()}\n{journal(self.name)}",
                did=self.did,
            )

    def converge(self) -> None:
        """Have it enabled and running, with its files as they are now."""
        files = self.wanted["files"]
        if not self.module.check_mode:
            reload_manager(files)
        found = properties(self.name)
        if found["UnitFileState"] == "masked":
            self.systemctl("unmask", self.name)
        if found["UnitFileState"] in {"disabled", "masked", ""}:
            self.systemctl("enable", self.name)
        if found["ActiveState"] not in {"active", "activating", "reloading"}:
            self.start()
        elif newest_change(files) > started_at(self.name, found):
            self.refresh(self.wanted["verb"])
        if self.did and not self.module.check_mode:
            self.settle(self.wanted["wait"])

    def start(self) -> None:
        """Start the unit; one that failed too often is given another chance."""
        if not self.module.check_mode:
            forget = ["systemctl", "reset-failed", self.name]
            subprocess.run(forget, capture_output=True, check=False)
        self.systemctl("start", self.name)

    def refresh(self, verb: str) -> None:
        """Make a running unit read its files again."""
        if verb == "reload" and not self.module.check_mode:
            STAMPS.mkdir(parents=True, exist_ok=True)
            (STAMPS / self.name).touch()
        self.systemctl(verb, self.name)

    def settle(self, seconds: int) -> None:
        """Wait until the unit is active and stays so for a moment."""
        deadline = time.monotonic() + seconds
        while True:
            found = properties(self.name)
            state = found["ActiveState"]
            if state == "active":
                return
            # Skipped by its own ExecCondition: nothing starts it again but a person or an apply.
            refused = state == "inactive" and found["Result"] == "exec-condition"
            if state == "failed" or refused or time.monotonic() > deadline:
                self.module.fail_json(
                    msg=f"{self.name} is {state}:\n{journal(self.name)}", did=self.did
                )
            time.sleep(0.1)
