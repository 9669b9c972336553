"""Commits made of operations: git's own ids, what conflicts, what races, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_hub_protocol.commits import make_commit
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.metadata import MAIN
from holdfast_hub_protocol.operations import AddFile

if TYPE_CHECKING:
    from conftest import World
    from holdfast_hub_protocol.operations import Operation
    from holdfast_hub_protocol.records import Commit, Repository




def repository_of(world: World, name: str = "o/n") -> Repository:
    found = world.metadata.repository(RepositoryId.parse(name))
    assert found is not None
    return found


def commit(world: World, *operations: Operation, ref: str = MAIN, title: str = "t") -> Commit:
    ada = world.people.authenticate("ada")
    assert ada is not None
    return make_commit(world.hub, ada, repository_of(world), ref, operations, title=title)


def paths(world: World, made: Commit) -> list[str]:
    return [entry.path for entry in world.metadata.files(made)]


def test_a_commit(world: World) -> None:
    world.publish("o/n", [world.store("x", b"x")])
    made = commit(world, AddFile("a/b", b"1"), AddFile("c", b"2"))
    assert paths(world, made) == ["a/b", "c", "x"]
