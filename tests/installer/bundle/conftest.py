"""A made-up connected side for each test, and one bundle built from it for all that only read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bundle_parts import World, enter, make_lock, make_world

from holdfast_installer.bundle import build, signature
from holdfast_installer.bundle.digests import blob_path
from holdfast_installer.bundle.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_installer.bundle.lockfile import Lock


@pytest.fixture(scope="session")
def _pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Lock]]:
    world = make_world(tmp_path_factory.mktemp("world"))
    with pytest.MonkeyPatch.context() as patch:
        enter(world, patch)
        made = make_lock(world)
        build.build(made, world.folder / "bundle", store=Store(), key=signature.own_key())
        yield world, made


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """An own world, nothing locked yet."""
    made = make_world(tmp_path / "world")
    enter(made, monkeypatch)
    return made


@pytest.fixture
def locked(_pristine: tuple[World, Lock], monkeypatch: pytest.MonkeyPatch) -> tuple[World, Lock]:
    """A shared world with its lock and a filled cache: for tests that change neither."""
    enter(_pristine[0], monkeypatch)
    return _pristine


@pytest.fixture
def moved(
    _pristine: tuple[World, Lock], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[World, Lock]:
    """An own world, locked, of which nothing was fetched yet."""
    made, lock = _pristine[0].copy(tmp_path / "world"), _pristine[1]
    enter(made, monkeypatch)
    for artifact in lock.artifacts:
        if artifact.origin != "local":
            blob_path(made.cache / "blobs", artifact.digest).unlink()
    return made, lock


@pytest.fixture
def bundle(locked: tuple[World, Lock], tmp_path: Path) -> Path:
    """A copy of a finished bundle, free to be damaged."""
    copy = tmp_path / "bundle"
    shutil.copytree(locked[0].folder / "bundle", copy, copy_function=shutil.copyfile)
    return copy


@pytest.fixture
def signers(locked: tuple[World, Lock]) -> Path:  # noqa: ARG001 - it sets the state folder
    return Path(os.environ["HOLDFAST_STATE"]) / "keys" / signature.ALLOWED
