"""Each capability, damaged on the quickstart's own hosts: the next apply mends it, once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from quick_site import ROOT, QuickSite, environment, quickstart

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

COLLECTION = ROOT / "playbooks/ansible_collections/holdfast/platform"
SCENARIOS = sorted(
    path.parent.name for path in COLLECTION.glob("extensions/molecule/*/molecule.yml")
)
LAST_LINES = 60


@pytest.fixture(scope="module")
def site() -> Iterator[QuickSite]:
    """Hand out the applied site; whatever a scenario left behind, it is whole again afterwards."""
    quick = quickstart()
    yield quick
    quick.apply()


@pytest.fixture(scope="module")
def molecule(site: QuickSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Return the command that runs molecule where the operator is, less the scenario's name."""
    newest = max((site.folder / "journal").glob("*-apply/inventory.yml"))
    # Sockets of ssh and molecule's own state: nothing is left in, or taken from, a home folder.
    home = tmp_path_factory.mktemp("a")
    settings = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks"),
        "ANSIBLE_FORCE_COLOR": "0",
        "NO_COLOR": "1",
        "HOLDFAST_MOLECULE_INVENTORY": str(newest),
    }
    pairs = [f"{name}={value}" for name, value in settings.items()]
    yield site.inside("operator", "env", f"--chdir={COLLECTION}", *pairs, "molecule", "test", "-s")
    shutil.rmtree(home)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_damage_is_mended_and_then_nothing_changes(molecule: list[str], scenario: str) -> None:
    done = subprocess.run(
        [*molecule, scenario],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment(),
    )
    told = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
    assert done.returncode == 0, told
    for action in ("side_effect", "converge", "idempotence", "verify"):
        assert f"{action}: Executed: Successful" in done.stdout, told
