"""kill -9 at random points: what is published is whole, and the same command finishes the job."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from holdfast_installer.bundle.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from bundle_parts import World

    from holdfast_installer.bundle.lockfile import Lock

ROUNDS = 6


def start(lock: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "holdfast_installer.cli", "bundle", "build", "--lock", lock]
    return subprocess.Popen(
        [*command, "-o", folder],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def seconds_of_a_whole_build(lock: Path, folder: Path) -> float:
    started = time.monotonic()
    child = start(lock, folder)
    _, words = child.communicate()
    assert child.returncode == 0, words.decode()
    return time.monotonic() - started


@pytest.mark.slow
def test_a_killed_build_is_finished_by_the_same_command(
    moved: tuple[World, Lock], tmp_path: Path
) -> None:
    world, lock = moved
    lock_file, folder = tmp_path / "bundle.lock", tmp_path / "bundle"
    lock.write(lock_file)
    empty = tmp_path / "empty-cache"
    shutil.copytree(world.cache, empty)
    whole = seconds_of_a_whole_build(lock_file, folder)
    digest = verify(folder).digest
    chance = random.Random(2)
    killed = 0
    for _ in range(ROUNDS):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(world.cache)
        shutil.copytree(empty, world.cache)
        # From when the command has loaded to its end; the first half is Python's own start.
        child = start(lock_file, folder)
        time.sleep(whole * chance.uniform(0.3, 1.0))
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
        child.communicate()
        if folder.exists():
            assert verify(folder).digest == digest, "half a bundle was published"
        last = start(lock_file, folder)
        _, words = last.communicate()
        assert last.returncode == 0, words.decode()
        assert verify(folder).digest == digest
    assert killed >= ROUNDS // 2, "the builds ended before they could be killed"
