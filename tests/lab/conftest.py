"""Labs for tests that need real hosts: root, namespaces, systemd-nspawn."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from holdfast_installer.lab import cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast_installer.lab.layout import Lab


@pytest.fixture(scope="session")
def lab_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the tests' labs apart from those of the person who runs the tests."""
    patch = pytest.MonkeyPatch()
    state = tmp_path_factory.mktemp("state")
    patch.setenv("HOLDFAST_STATE", str(state))
    yield state
    patch.undo()


@pytest.fixture(scope="module")
def make_lab(lab_state: Path) -> Iterator[Callable[..., Lab]]:
    """Boot labs with names of their own, and take them down when the module is done."""
    assert lab_state.is_dir()
    names: list[str] = []

    def make(*hosts: str, name: str = "") -> Lab:
        name = name or f"t{secrets.token_hex(4)}"
        names.append(name)
        return cluster.up(name, hosts, say=print)

    yield make
    for name in names:
        cluster.down(name, say=print)
