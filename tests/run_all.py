"""Run all that `make check` leaves out: stock clients, slow tests, labs; `make test` ends here.

Every group runs whatever became of the one before. Exit code 1 where any failed; what this machine
cannot run is said in red at the very end, where nobody overlooks it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from holdfast_installer.console import console
from holdfast_installer.lab.machine import missing_for_lab

ROOT = Path(__file__).parents[1]
# Together with `make check` (neither slow, nor lab, nor contract) these are every test, each once.
GROUPS = {
    "servers under their stock clients": "contract and not lab",
    "slow tests": "slow and not contract and not lab",
    "whole labs": "lab",
}
NOTHING_COLLECTED = 5


def main() -> int:
    """Run the groups one after the other and say how each went."""
    lines, failed = [], False
    for title, marker in GROUPS.items():
        console.print(f"\n[bold]{title}[/bold]: pytest -m '{marker}'")
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-m", marker]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        # A group of which nothing is left would be a green line that proves nothing.
        said = {0: "passed", NOTHING_COLLECTED: "FAILED: no such tests"}.get(code, "FAILED")
        failed |= code != 0
        lines.append(f"{title}: {said} in {time.monotonic() - began:.0f} s")
    console.print("\n" + "\n".join(lines), markup=False)
    if missing := missing_for_lab():
        console.print(
            f"[bold red]NOT RUN: the labs, for want of {'; '.join(missing)}. "
            "`sudo make test` runs them.[/bold red]"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
