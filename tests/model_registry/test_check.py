"""Each inconsistency is made, found, and named; without one nothing is found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from registry_parts import ADA, LABELS, MODEL, SEED, command, make_model, run_registry
from storage_parts import Shelf, digest_of

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.holdings import holdings
from holdfast_model_registry.check import Report, Scrub, check, verified
from holdfast_model_registry.storage import Locations
from holdfast_trust.ledger import read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    """Two repositories, one with a history, and a blob that nothing holds."""
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    made = Shelf(Locations(tmp_path / "data", url))
    first = made.commit("org/name", {"a.txt": b"text", "deep/er/w.bin": b"weights"})
    made.commit("org/name", {"a.txt": b"text", "w.bin": b"more weights"}, parent=first)
    made.commit("org/other", {"x/w.bin": b"weights"})
    made.put(b"nobody's")
    yield made
    made.storage.close()


def named(report: Report) -> list[str]:
    return [finding.name for finding in report.findings]


def execute(shelf: Shelf, *statements: Any) -> None:
    """Change rows as no code of ours would, past all keys."""
    with shelf.storage.metadata.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SET session_replication_role = replica"))
        else:
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.invalidate()


def test_a_sound_storage_has_no_findings(shelf: Shelf) -> None:
    report = check(shelf.storage, scrub=Scrub())
    assert report.findings == []
    assert report.checked["commits"] == 3
    assert report.checked["trees"] == 3
    assert report.checked["blobs"] == 3
    assert report.checked["blobs that nothing holds"] == 1
    assert report.checked["blobs read"] == 4
    assert shelf.count(verified) == 4


def test_a_missing_blob_is_named_with_its_files(shelf: Shelf) -> None:
    shelf.path(b"weights").unlink()
    (finding,) = check(shelf.storage).findings
    assert finding.name == "blob-missing"
    assert digest_of(b"weights") in finding.detail
    assert "org/name: deep/er/w.bin" in finding.detail
    assert "org/other: x/w.bin" in finding.detail
    assert "upload or import it again" in finding.fix


def test_a_blob_of_another_size(shelf: Shelf) -> None:
    shelf.path(b"weights").write_bytes(b"weight")
    (finding,) = check(shelf.storage).findings
    assert finding.name == "blob-size"
    assert "has 6 bytes instead of 7" in finding.detail


def test_a_flipped_bit_is_found_by_reading_only_and_then_refused_and_mended(shelf: Shelf) -> None:
    shelf.path(b"weights").write_bytes(b"veights")
    assert check(shelf.storage).findings == []
    (finding,) = check(shelf.storage, scrub=Scrub()).findings
    assert finding.name == "blob-damaged"
    assert "org/name: deep/er/w.bin" in finding.detail
    assert not shelf.has(b"weights")
    assert (shelf.storage.blobs.damaged / digest_of(b"weights")).read_bytes() == b"veights"
    assert named(check(shelf.storage)) == ["blob-missing"]
    shelf.put(b"weights")
    assert named(check(shelf.storage, scrub=Scrub())) == ["blob-mended"]
    (shelf.storage.blobs.damaged / digest_of(b"weights")).unlink()
    assert check(shelf.storage, scrub=Scrub()).findings == []


def test_a_blob_that_cannot_be_read(shelf: Shelf) -> None:
    shelf.path(b"weights").unlink()
    shelf.path(b"weights").mkdir()
    found = named(check(shelf.storage, scrub=Scrub()))
    assert "blob-unreadable" in found
    assert "file-unknown" in found


def test_strange_files_among_the_blobs(shelf: Shelf) -> None:
    (shelf.storage.blobs.root / "sha256" / "ab").mkdir(exist_ok=True)
    (shelf.storage.blobs.root / "sha256" / "ab" / "notes").touch()
    (shelf.storage.blobs.root / "sha256" / "README").touch()
    assert named(check(shelf.storage)) == ["file-unknown", "file-unknown"]


COMMIT = schema.commits.c
ENTRY = schema.entries.c
GHOST = {
    "snapshot_id": 1,
    "path": "ghost",
    "parent": "",
    "oid": "a" * 40,
    "size": 0,
    "is_lfs": False,
}
OTHER = (
    sa.select(schema.repositories.c.id)
    .where(schema.repositories.c.name == "other")
    .scalar_subquery()
)


@pytest.mark.parametrize(
    ("name", "words", "statement"),
    [
        ("rows-orphaned", "snapshots", schema.snapshots.delete()),
        ("rows-orphaned", "repositories", schema.repositories.delete()),
        ("rows-orphaned", "refs have a commit_id", schema.refs.update().values(commit_id=999)),
        ("ref-elsewhere", "another repository", schema.refs.update().values(repository_id=OTHER)),
        ("commit-wrong", "another repository", schema.commits.update().values(repository_id=OTHER)),
        (
            "commit-wrong",
            "does not hash",
            schema.commits.update().values(object=b"tree x\nauthor y\n\nz"),
        ),
        ("commit-wrong", "says parents", schema.commits.update().values(parent_oid="a" * 40)),
        ("commit-wrong", "which is not there", schema.commits.delete().where(COMMIT.id == 1)),
        ("commit-wrong", "tree", schema.snapshots.update().values(tree_oid="b" * 40)),
        ("tree-wrong", "make the tree", schema.snapshots.update().values(tree_oid="b" * 40)),
        ("tree-wrong", "make the tree", schema.entries.delete().where(ENTRY.path == "a.txt")),
        ("tree-wrong", "folder", schema.entries.delete().where(ENTRY.path == "deep")),
        ("tree-wrong", "LFS pointer", schema.entries.update().values(is_lfs=True)),
        ("tree-wrong", "is listed in folder", schema.entries.update().values(parent="elsewhere")),
        ("tree-wrong", "holds nothing", schema.entries.insert().values(GHOST)),
        ("holding-missing", "org/other", holdings.delete()),
        ("blob-size", "is recorded with 7 and with 8", holdings.update().values(size=8)),
    ],
)
def test_rows_that_contradict_one_another_are_named(
    shelf: Shelf, name: str, words: str, statement: Any
) -> None:
    if words.startswith("is recorded"):
        statement = statement.where(holdings.c.sha256 == digest_of(b"weights"))
    if words == "LFS pointer":
        statement = statement.where(ENTRY.path == "a.txt")
    if name == "ref-elsewhere":
        first = sa.select(sa.func.min(schema.refs.c.repository_id)).scalar_subquery()
        execute(shelf, schema.refs.delete().where(schema.refs.c.repository_id == OTHER))
        statement = statement.where(schema.refs.c.repository_id == first)
    execute(shelf, statement)
    found = check(shelf.storage).findings
    assert any(each.name == name and words in each.detail for each in found), found


def test_reading_goes_on_where_it_stopped(shelf: Shelf) -> None:
    report = check(shelf.storage, scrub=Scrub(at_most=-1))
    assert (report.checked["blobs read"], report.checked["blobs left to read"]) == (0, 4)
    check(shelf.storage, scrub=Scrub())
    with shelf.storage.metadata.engine.begin() as connection:
        old = verified.c.sha256 == digest_of(b"weights")
        connection.execute(verified.update().where(old).values(verified_at=1000))
    report = check(shelf.storage, scrub=Scrub(older_than=3600))
    assert (report.checked["blobs read"], report.checked["blobs left to read"]) == (1, 0)
    assert check(shelf.storage, scrub=Scrub(older_than=3600)).checked["blobs read"] == 0


def test_the_command_ends_with_3_and_readers_are_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", weights=40_000)
    weights = (model / "model.safetensors").read_bytes()
    seeded = {"id": MODEL, "path": str(model), "teams": ["research"], "labels": LABELS}
    with run_registry(tmp_path / "run", seed={**SEED, "models": [seeded]}) as registry:
        data = tmp_path / "run" / "data"
        assert command("check", "--data", data, "--deep", "--json").returncode == 0
        blob = data / "blobs" / "sha256" / digest_of(weights)[:2] / digest_of(weights)
        with blob.open("r+b") as file:
            file.seek(20_000)
            byte = file.read(1)[0]
            file.seek(20_000)
            file.write(bytes([byte ^ 1]))
        path = f"/{MODEL}/resolve/main/model.safetensors"
        assert registry.request(path, ADA)[0] == 200
        done = command("check", "--data", data, "--deep")
        assert done.returncode == 3
        assert "blob-damaged" in done.stderr
        (finding,) = json.loads(done.stdout)["findings"]
        assert finding["verdict"] == "fail"
        assert f"{MODEL}: model.safetensors" in finding["detail"]
        status, headers, _ = registry.request(path, ADA)
        assert status == 410
        assert "damaged" in headers["x-error-message"]
        assert registry.request(f"/{MODEL}/resolve/main/config.json", ADA)[0] == 200
    events = [record["event"] for record in read(data / "ledger")]
    assert [event["name"] for event in events if event["action"] == "storage.finding"] == [
        "blob-damaged"
    ]
    assert (data / "blobs" / "damaged" / digest_of(weights)).is_file()
