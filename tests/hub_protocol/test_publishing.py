from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.publishing import ConflictError

if TYPE_CHECKING:
    from conftest import World

OID = "ab" * 20


def test_a_commit_appears_with_its_files_and_refs(world: World) -> None:
    weights = world.store("a/w.bin", b"weights", lfs=True)
    published = world.publish("o/n", [weights, world.store("x", b"x")], oid=OID)
    assert published.changed
    repository = world.metadata.repository(RepositoryId.parse("o/n"))
    assert repository is not None
    for revision in ("main", "refs/heads/main", OID):
        commit = world.metadata.commit(repository, revision)
        assert commit is not None
        assert commit.oid == OID
    assert world.metadata.commit(repository, OID[:7]) == commit
    assert world.metadata.commit(repository, OID[:6]) is None
    assert world.metadata.commit(repository, OID.upper()) is None
    assert [entry.path for entry in world.metadata.files(commit)] == ["a/w.bin", "x"]
    folder = world.metadata.entry(commit, "a")
    assert folder is not None
    assert folder.sha256 is None
    assert world.metadata.repository(RepositoryId.parse("O/N")) == repository


def test_again_changes_nothing(world: World) -> None:
    files = [world.store("x", b"x")]
    first = world.publish("o/n", files, oid=OID)
    second = world.publish("o/n", files, oid=OID)
    assert (first.changed, second.changed) == (True, False)
    assert first.repository_key == second.repository_key


def test_main_moves_forward_and_back_and_trees_are_shared(world: World) -> None:
    one, two = [world.store("x", b"1")], [world.store("x", b"2")]
    world.publish("o/n", one, oid="1" * 40)
    world.publish("o/n", two, oid="2" * 40, parent="1" * 40)
    assert world.publish("o/n", one, oid="1" * 40).changed
    world.publish("o/n", one, oid="3" * 40, refs=["refs/tags/v1"])
    repository = world.metadata.repository(RepositoryId.parse("o/n"))
    assert repository is not None
    commits = [world.metadata.commit(repository, name) for name in ("main", "2" * 40, "v1")]
    assert [commit.oid for commit in commits if commit] == ["1" * 40, "2" * 40, "3" * 40]
    main, second, tagged = commits
    assert main is not None
    assert second is not None
    assert tagged is not None
    assert main.snapshot == tagged.snapshot
    history = world.metadata.history(repository, second, 10)
    assert [commit.oid for commit in history] == ["2" * 40, "1" * 40]


def test_a_commit_is_not_rewritten(world: World) -> None:
    world.publish("o/n", [world.store("x", b"1")], oid=OID)
    with pytest.raises(ConflictError, match="other files"):
        world.publish("o/n", [world.store("x", b"2")], oid=OID)
    # One git id, two contents: what a SHA-1 collision would look like.
    file = world.store("x", b"1")
    forged = replace(file, sha256=world.store("x", b"forged").sha256)
    for oid in (OID, "cd" * 20):
        with pytest.raises(ConflictError, match="SHA-256"):
            world.publish("o/n", [forged], oid=oid)


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "a/../b", "a\0", ".git/config", ""])
def test_paths_that_would_harm_a_client_are_refused(world: World, path: str) -> None:
    file = replace(world.store("x", b"x"), path=path)
    with pytest.raises(ConflictError):
        world.publish("o/n", [file], oid=OID)
    assert world.metadata.repository(RepositoryId.parse("o/n")) is None


def test_contradictions_are_refused(world: World) -> None:
    file = world.store("x", b"x")
    for files, oid in (
        ([file, file], OID),
        ([file, replace(file, path="x/y")], OID),
        ([replace(file, sha256="x")], OID),
        ([file], "main"),
    ):
        with pytest.raises(ConflictError):
            world.publish("o/n", files, oid=oid)
    assert world.metadata.repository(RepositoryId.parse("o/n")) is None
