"""Stop vLLM units of this host for good and remove what they were set up with.

Usage: retire.py UNIT...   Prints "retired" where there was something to remove. A unit ends the
requests it still has first. Run again after any interruption, it does the rest. Standard library
only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SETTINGS = Path("/etc/holdfast/vllm")
CACHE = Path("/var/cache/holdfast-vllm")
# The .json is what tells that a unit is there: it goes last.
SUFFIXES = (".watch", ".env", ".yml", ".json")


def retire(unit: str) -> bool:
    """Stop one unit with its timers, and say whether anything was left of it."""
    settings = [SETTINGS / f"{unit}{suffix}" for suffix in SUFFIXES]
    there = any(path.exists() for path in settings)
    for kind in ("vllm-watch@{}.timer", "approval@{}.timer", "vllm@{}.service"):
        name = f"holdfast-{kind.format(unit)}"
        subprocess.run(["systemctl", "disable", "--now", "--quiet", "--", name], check=True)
        subprocess.run(
            ["systemctl", "reset-failed", "--quiet", "--", name], check=False, capture_output=True
        )
    shutil.rmtree(CACHE / unit, ignore_errors=True)
    for path in settings:
        path.unlink(missing_ok=True)
    return there


def main() -> None:
    """Retire every unit named."""
    there = [retire(unit) for unit in sys.argv[1:]]
    if any(there):
        print("retired")  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
