"""Commits made of operations: git's own ids, what conflicts, what races, what is refused."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from holdfast_hub_protocol.admission import AdmissionError, OpenAdmission
from holdfast_hub_protocol.commits import ConflictError, make_commit
from holdfast_hub_protocol.errors import HubError
from holdfast_hub_protocol.git_export import export_git
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.metadata import MAIN
from holdfast_hub_protocol.operations import (
    AddFile,
    AddLfsFile,
    CopyFile,
    DeleteFile,
    DeleteFolder,
)
from holdfast_hub_protocol.quotas import QuotaError, Quotas

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

    from conftest import World
    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.admission import Proposal
    from holdfast_hub_protocol.endpoints import Hub
    from holdfast_hub_protocol.operations import Operation
    from holdfast_hub_protocol.records import Commit, Repository


@pytest.fixture
def desk(world: World) -> Desk:
    world.client.post("/api/repos/create", json={"name": "n", "organization": "o"})
    return Desk(world)


@pytest.fixture
def shared_desk(shared_hub: World) -> Desk:
    return Desk(shared_hub)


class Desk:
    """A repository that ada commits to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hub: Hub = world.hub
        ada = world.people.authenticate("ada")
        repository = world.metadata.repository(RepositoryId.parse("o/n"))
        assert ada is not None
        assert repository is not None
        self.ada: Caller = ada
        self.repository: Repository = repository

    def commit(
        self, *operations: Operation, ref: str = MAIN, parent: str | None = None, title: str = "t"
    ) -> Commit:
        return make_commit(
            self.hub,
            self.ada,
            self.repository,
            ref,
            operations,
            title=title,
            expected_parent=parent,
        )

    def head(self, ref: str = MAIN) -> Commit:
        found = self.world.metadata.head(self.repository, ref)
        assert found is not None
        return found

    def paths(self, commit: Commit) -> list[str]:
        files = self.world.metadata.files(commit)
        return [entry.path for entry in files if entry.path != ".gitattributes"]

    def read(self, path: str) -> bytes:
        return self.world.client.get(f"/o/n/resolve/main/{path}").content

    def upload(self, content: bytes) -> str:
        """Put content in the store as an upload to the repository does."""
        with self.hub.blobs.receive() as incoming:
            incoming.write(content)
            kept = incoming.keep()
        self.hub.staging.stage(self.repository.key, kept.sha256, kept.size)
        return kept.sha256


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_operations_follow_one_another(desk: Desk) -> None:
    desk.commit(AddFile("a/b", b"1"), AddFile("a/c", b"2"), AddFile("d", b"3"))
    made = desk.commit(
        DeleteFile("d"),
        CopyFile("e", "a/b"),
        DeleteFolder("a/"),
        AddFile("a", b"a file now"),
        AddFile("d/x", b"a folder now"),
        AddFile("twice", b"1"),
        AddFile("twice", b"2"),
    )
    assert desk.paths(made) == ["a", "d/x", "e", "twice"]
    assert desk.read("twice") == b"2"
    assert desk.read("e") == b"1"
    again = desk.commit(DeleteFile("d"), title="a folder named as a file")
    assert desk.paths(again) == ["a", "e", "twice"]


def test_git_computes_the_same_ids(desk: Desk, tmp_path: Path) -> None:
    sha256 = desk.upload(b"weights")
    desk.commit(AddFile("a/b/c", b"1"), AddFile("a.b", b"2"), AddLfsFile("w.bin", sha256, 7))
    desk.commit(DeleteFile("a/b/c"), AddFile("a/größe", b"4"), title="zweitens")
    desk.world.client.post("/api/models/o/n/tag/main", json={"tag": "v1"})
    made = desk.commit(AddFile("a-b", b"5"), AddFile("a/x", b""))
    folder = tmp_path / "out" / "n.git"
    exported = export_git(desk.world.metadata, desk.hub.blobs, desk.repository, folder)
    assert (exported.foreign, exported.lfs_files) == ({}, 1)
    git(folder, "fsck", "--strict", "--full")
    assert git(folder, "rev-parse", "main") == made.oid
    assert git(folder, "rev-parse", "main^{tree}") == made.tree_oid
    assert git(folder, "log", "--format=%s %an <%ae>", "main").splitlines() == [
        "t ada <ada@users.invalid>",
        "zweitens ada <ada@users.invalid>",
        "t ada <ada@users.invalid>",
        "initial commit ada <ada@users.invalid>",
    ]
    assert git(folder, "rev-list", "v1", "--count") == "3"
    assert git(folder, "show", "main:a-b") == "5"
    assert git(folder, "show", "main:w.bin").splitlines()[1] == f"oid sha256:{sha256}"
    stored = folder / "lfs/objects" / sha256[:2] / sha256[2:4] / sha256
    assert stored.read_bytes() == b"weights"


def test_foreign_commits_have_stand_ins_in_git(desk: Desk, tmp_path: Path) -> None:
    world, foreign = desk.world, "ab" * 20
    world.publish("o/m", [world.store("x/y", b"1")], oid=foreign)
    repository = world.metadata.repository(RepositoryId.parse("o/m"))
    assert repository is not None
    world.client.post("/api/models/o/m/tag/main", json={"tag": "imported"})
    made = make_commit(world.hub, desk.ada, repository, MAIN, [AddFile("z", b"2")], title="on top")
    folder = tmp_path / "m.git"
    exported = export_git(world.metadata, world.blobs, repository, folder)
    git(folder, "fsck", "--strict", "--full")
    assert git(folder, "rev-parse", "main") == made.oid
    assert git(folder, "log", "--format=%H", "main") == made.oid, "history ends there"
    assert git(folder, "rev-parse", "imported") == exported.foreign[foreign]
    assert f"Imported-Commit: {foreign}" in git(folder, "log", "-1", "imported")
    assert git(folder, "show", "imported:x/y") == "1"


@pytest.mark.parametrize(
    ("operations", "status"),
    [
        ([DeleteFile("absent")], 404),
        ([DeleteFolder("absent/")], 404),
        ([CopyFile("x", "absent")], 404),
        ([CopyFile("x", "here", "nowhere")], 404),
        ([AddFile("here/x", b"")], 422),
        ([AddFile("folder", b"")], 422),
        ([AddFile("new", b""), AddFile("new/x", b"")], 422),
        ([AddFile("../x", b"")], 422),
        ([AddFile("..\\x", b"")], 422),
        ([AddFile("a/.git/x", b"")], 422),
        ([AddFile("a\0b", b"")], 422),
        ([AddFile("", b"")], 422),
        ([DeleteFile("a/../here")], 422),
        ([AddLfsFile("w", "ab" * 32, 5)], 400),
        ([AddLfsFile("w", "ab" * 32)], 400),
        ([AddLfsFile("w", "not a digest", 5)], 400),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    shared_desk: Desk, operations: list[Operation], status: int
) -> None:
    desk = shared_desk
    before = desk.commit(AddFile("here", b"1"), AddFile("folder/x", b"2"))
    with pytest.raises(HubError) as refused:
        desk.commit(AddFile("other", b"3"), *operations)
    assert refused.value.status == status
    assert desk.head() == before


def test_a_large_file_is_ones_own_or_readable(desk: Desk) -> None:
    sha256 = desk.upload(b"weights")
    desk.commit(AddLfsFile("w.bin", sha256, 7))
    desk.commit(AddLfsFile("copy.bin", sha256))
    # From another repository the client copies so, after `lfs-files/duplicate`.
    desk.commit(AddLfsFile("other.bin", desk.upload(b"other weights")))
    assert desk.read("other.bin") == b"other weights"
    assert desk.read("copy.bin") == b"weights"
    with pytest.raises(HubError, match="was not uploaded"):
        desk.commit(AddLfsFile("lie.bin", sha256, 8))


def test_what_comes_inside_a_commit_counts_too(desk: Desk) -> None:
    desk.hub = replace(desk.hub, quotas=Quotas(teams={"o": 10_000}))
    desk.commit(AddFile("x", b"1" * 5_000))
    with pytest.raises(QuotaError):
        desk.commit(AddFile("y", b"2" * 5_001))
    desk.commit(AddFile("y", b"2" * 1_000))


def test_files_of_the_size_of_another_count_too(desk: Desk) -> None:
    desk.hub = replace(desk.hub, quotas=Quotas(teams={"o": 12_000}))
    desk.commit(AddFile("x", b"0" * 5_000))
    with pytest.raises(QuotaError):
        desk.commit(*(AddFile(str(n), str(n).encode() * 5_000) for n in range(1, 4)))
    desk.commit(AddFile("again", b"0" * 5_000), AddFile("y", b"1" * 5_000))


def test_git_is_told_of_every_large_file(desk: Desk, tmp_path: Path) -> None:
    sha256 = desk.upload(b"weights")
    before = desk.read(".gitattributes")
    desk.commit(AddLfsFile("w.bin", sha256, 7))
    assert desk.read(".gitattributes") == before
    odd = "of/a b*[1].txt"
    desk.commit(AddLfsFile(odd, sha256), AddLfsFile("notes.txt", sha256))
    attributes = desk.read(".gitattributes")
    assert attributes.startswith(before)
    assert attributes.count(b"\n") == before.count(b"\n") + 2
    desk.commit(AddLfsFile("of/other/notes.txt", sha256), AddFile("of/notes.txt", b"small"))
    folder = tmp_path / "n.git"
    export_git(desk.world.metadata, desk.hub.blobs, desk.repository, folder)
    clone = tmp_path / "clone"
    clone.mkdir()
    git(clone, "init", "-q")
    (clone / ".gitattributes").write_bytes(desk.read(".gitattributes"))
    names = ["w.bin", odd, "notes.txt", "of/other/notes.txt", "of/notes.txt"]
    told = git(clone, "check-attr", "filter", "--", *names).splitlines()
    assert [line.rpartition(" ")[2] for line in told] == ["lfs"] * 4 + ["unspecified"]
    desk.commit(DeleteFile(".gitattributes"))
    made = desk.commit(AddLfsFile("more.txt", sha256))
    assert ".gitattributes" not in {entry.path for entry in desk.world.metadata.files(made)}


def test_the_parent_must_be_the_head(desk: Desk) -> None:
    first = desk.head()
    second = desk.commit(AddFile("x", b"1"), parent=first.oid)
    with pytest.raises(ConflictError, match="A commit has happened since") as refused:
        desk.commit(AddFile("x", b"2"), parent=first.oid)
    assert refused.value.status == 412
    assert desk.commit(AddFile("x", b"3"), parent=second.oid[:8]).parent_oid == second.oid


def test_a_commit_that_changes_nothing_shares_its_files(desk: Desk) -> None:
    first = desk.commit(AddFile("x", b"1"))
    second = desk.commit(AddFile("x", b"1"), title="again")
    assert second.oid != first.oid
    assert second.parent_oid == first.oid
    assert (second.snapshot, second.tree_oid) == (first.snapshot, first.tree_oid)
    empty = desk.commit(DeleteFile("x"), DeleteFile(".gitattributes"))
    assert empty.tree_oid == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def test_who_changed_each_file_last(desk: Desk) -> None:
    one = desk.commit(AddFile("a/b", b"1"), AddFile("c", b"1"))
    two = desk.commit(AddFile("a/x", b"2"), AddFile("c", b"1"))
    three = desk.commit(AddFile("d", b"1"))
    entries = {entry.path: entry.last_commit for entry in desk.world.metadata.entries(three)}
    del entries[".gitattributes"]
    assert entries == {"a": two.oid, "a/b": one.oid, "a/x": two.oid, "c": one.oid, "d": three.oid}


def test_facts_follow_the_files_that_tell_them(desk: Desk) -> None:
    desk.commit(AddFile("README.md", b"---\nlicense: mit\n---\n"))
    desk.commit(AddFile("config.json", b'{"model_type": "llama"}'))
    desk.commit(AddFile("x", b"1"))
    facts = desk.head().facts
    assert facts["cardData"] == {"license": "mit"}
    assert facts["config"] == {"model_type": "llama"}
    desk.commit(DeleteFile("config.json"))
    assert "config" not in desk.head().facts
    assert desk.head().facts["cardData"] == {"license": "mit"}


def test_races_are_lost_by_none_who_named_no_parent(desk: Desk) -> None:
    before = len(desk.world.metadata.history(desk.repository, desk.head(), 100))

    def add(number: int) -> Commit:
        return desk.commit(AddFile(f"f{number}", b"x"), AddFile("same", str(number).encode()))

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(add, range(24)))
    history = desk.world.metadata.history(desk.repository, desk.head(), 100)
    assert len(history) == before + 24
    assert {commit.oid for commit in made} <= {commit.oid for commit in history}
    assert len(desk.paths(desk.head())) == 25


def test_imports_and_commits_wait_for_one_another(desk: Desk) -> None:
    files = [desk.world.store("imported", b"1")]

    def change(number: int) -> None:
        if number % 3:
            desk.commit(AddFile(f"f{number}", b"x"))
        else:
            desk.world.publish("o/n", files, oid=f"{number + 100:040x}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(change, range(18)))
    assert "imported" in desk.paths(desk.head())


def test_a_file_more_among_many_takes_no_more_questions(desk: Desk) -> None:
    asked: list[str] = []
    event.listen(
        desk.world.metadata.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: asked.append(statement),
    )
    counts = []
    for number in (3, 60):
        folders = [AddFile(f"{folder}/{each}", b"x") for folder in range(number) for each in "ab"]
        desk.commit(*folders)
        asked.clear()
        desk.commit(AddFile("1/new", str(number).encode()))
        counts.append(len(asked))
    assert counts[0] == counts[1] < 40


def test_of_those_who_named_a_parent_one_wins(desk: Desk) -> None:
    parent = desk.head().oid

    def add(number: int) -> bool:
        try:
            desk.commit(AddFile(f"f{number}", b"x"), parent=parent)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(add, range(16)))
    assert won.count(True) == 1
    assert desk.paths(desk.head()) == [f"f{won.index(True)}"]


class Strict(OpenAdmission):
    """Refuses what it is told to, and keeps what it saw."""

    def __init__(self, *, late: bool = False) -> None:
        self.late = late
        self.seen: list[Proposal] = []

    def admit(self, proposal: Proposal) -> None:
        self.seen.append(proposal)
        if not self.late and any(file.path.endswith(".pkl") for file in proposal.changed):
            raise AdmissionError("pickles are not taken in")

    def published(self, connection: sa.Connection, proposal: Proposal, commit_oid: str) -> None:
        assert connection.in_transaction()
        assert len(commit_oid) == 40
        if self.late and any(file.path.endswith(".pkl") for file in proposal.changed):
            raise AdmissionError("no, not even now")


@pytest.mark.parametrize("late", [False, True])
def test_what_is_refused_is_not_there(desk: Desk, late: bool) -> None:  # noqa: FBT001 - parameter
    admission = Strict(late=late)
    desk.hub = replace(desk.hub, admission=admission)
    desk.commit(AddFile("a", b"1"), AddFile("b/c", b"2"))
    before = desk.head()
    with pytest.raises(HubError) as refused:
        desk.commit(AddFile("x.pkl", b"1"), DeleteFile("a"))
    assert refused.value.status == 403
    assert "no" in refused.value.message
    assert desk.head() == before
    proposal = admission.seen[-1]
    assert [file.path for file in proposal.changed] == ["x.pkl"]
    assert list(proposal.deleted) == ["a"]
    assert [file.path for file in proposal.files] == [".gitattributes", "b/c", "x.pkl"]
    assert proposal.parent == before
    assert proposal.blob(proposal.changed[0].sha256).read_bytes() == b"1"
