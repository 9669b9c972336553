"""A newcomer without root: a fresh clone, `make quickstart`, an answer."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from quick_site import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

PYTHON = "/usr/bin/python3"
PLAIN_PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture
def user() -> Iterator[str]:
    """Make a user without any rights, and take it away with all it left."""
    name = f"hf{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)
    yield name
    subprocess.run(["pkill", "--signal", "KILL", "--uid", name], check=False)
    subprocess.run(["userdel", "--remove", name], check=False, capture_output=True)


def as_user(user: str, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    home = Path("~" + user).expanduser()
    dropped = ("HOME", "PATH", "USER", "LOGNAME", "VIRTUAL_ENV")
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in dropped and not key.startswith(("HOLDFAST_", "PYENV", "PYTEST", "XDG_"))
    }
    return subprocess.run(
        ["/usr/sbin/runuser", "-u", user, "--", *command],
        env={**kept, "HOME": str(home), "PATH": PLAIN_PATH, "USER": user},
        cwd=cwd,
        text=True,
        capture_output=True,
        check=False,
    )


def test_a_user_without_root_gets_an_answer(user: str) -> None:
    if subprocess.run([PYTHON, "-c", "import ensurepip"], check=False).returncode:
        subprocess.run(["apt-get", "install", "-qq", "-y", "python3-venv"], check=True)
    clone = Path("~" + user).expanduser() / "holdfast"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    shutil.chown(clone, user)
    subprocess.run(["chown", "-R", user, str(clone)], check=True)
    done = as_user(user, "make", "quickstart", f"PYTHON={PYTHON}", cwd=clone)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-4000:]
    assert "No lab on this machine (root" in told
    assert "Holdfast is" in told, told[-4000:]
    held = as_user(user, "make", "clean-lab", f"PYTHON={PYTHON}", cwd=clone)
    assert held.returncode == 0, held.stdout + held.stderr
    # The dead that this machine's PID 1 has not yet counted are not left behind by us.
    living = ("--runstates", "D,R,S,T,t")
    left = subprocess.run(["pgrep", "--uid", user, "-a", *living], check=False, capture_output=True)
    assert left.stdout == b""
