"""A small tmpfs as the disk: refused before the start, or told in the middle."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from bundle_parts import World, enter

from holdfast_installer.bundle import build, fetch, signature
from holdfast_installer.bundle.store import Store
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast_installer.bundle.lockfile import Lock

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0, reason="mounts a small file system: needs root"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def build_in(folder: Path, lock: Lock, store: Store) -> build.Built:
    return build.build(lock, folder, store=store, key=signature.own_key())


@needs_mounts
def test_a_bundle_that_will_not_fit_is_refused_before_the_start(
    locked: tuple[World, Lock], small_disk: Path
) -> None:
    with pytest.raises(HoldfastError, match="Not enough disk space for the bundle") as refusal:
        build_in(small_disk / "bundle", locked[1], Store())
    assert "bytes are needed" in refusal.value.cause
    assert "are free" in refusal.value.cause
    assert not (small_disk / "bundle").exists()


@needs_mounts
def test_a_disk_that_fills_in_the_middle_is_told_and_gone_on_from(
    locked: tuple[World, Lock], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = small_disk / "ballast"
    # somebody else fills the disk after the check: the check must not be what saves us
    monkeypatch.setattr(build, "require_free", lambda *_, **__: ballast.write_bytes(b"x" * 60_000))
    with pytest.raises(HoldfastError, match="The disk is full") as refusal:
        build_in(small_disk / "bundle", locked[1], Store())
    assert "goes on from here" in refusal.value.next_command
    assert not (small_disk / "bundle").exists()


@needs_mounts
def test_downloads_that_will_not_fit_are_refused_before_the_start(
    moved: tuple[World, Lock], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, lock = moved
    (small_disk / "ballast").write_bytes(b"x" * 100_000)
    store = Store(small_disk)
    monkeypatch.setattr(fetch, "require_local", lambda *_: None)
    enter(world, monkeypatch)
    wanted = fetch.missing(lock, store)
    with pytest.raises(HoldfastError, match="Not enough disk space for the downloads"):
        fetch.fetch(lock, store, wanted, lambda _: None)
    assert [path.name for path in small_disk.rglob("*") if path.is_file()] == ["ballast"]
