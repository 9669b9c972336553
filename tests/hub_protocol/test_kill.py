"""A process killed in mid-commit: what it acknowledged is there, and nothing half."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_hub_protocol.git_export import export_git
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.metadata import MAIN

if TYPE_CHECKING:
    from conftest import World

SCRIPT = Path(__file__).with_name("endless_commits.py")
ROUNDS = 5


def test_kill_9_in_mid_commit(world: World, tmp_path: Path) -> None:
    world.client.post("/api/repos/create", json={"name": "n", "organization": "o"})
    url = world.metadata.engine.url.render_as_string(hide_password=False)
    chance, acknowledged = random.Random(7), []
    for _ in range(ROUNDS):
        with subprocess.Popen(
            [sys.executable, str(SCRIPT), url, str(world.blobs.root)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            acknowledged.append(process.stdout.readline().strip())
            started = time.monotonic()
            acknowledged.append(process.stdout.readline().strip())
            # Anywhere in the next commit, however fast this machine is now.
            time.sleep(chance.uniform(0, time.monotonic() - started))
            process.kill()
            # The last line may be cut off; such a commit was not acknowledged.
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    repository = world.metadata.repository(RepositoryId.parse("o/n"))
    assert repository is not None
    head = world.metadata.head(repository, MAIN)
    assert head is not None
    history = world.metadata.history(repository, head, 100_000)
    oids = [commit.oid for commit in history]
    assert len(acknowledged) >= 2 * ROUNDS
    assert set(acknowledged) <= set(oids)
    # At most the one that each was killed in came through without a word.
    assert len(oids) - 1 - len(acknowledged) <= ROUNDS
    assert oids.index(acknowledged[0]) > oids.index(acknowledged[-1])
    folder = tmp_path / "n.git"
    export_git(world.metadata, world.blobs, repository, folder)
    checked = subprocess.run(
        ["git", "-C", str(folder), "fsck", "--full", "--strict"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr
