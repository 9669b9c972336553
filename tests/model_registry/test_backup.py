from __future__ import annotations

import gzip
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from registry_parts import ADA, LABELS, MODEL, SEED, command, files_of, make_model, run_registry
from storage_parts import Shelf, digest_of

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_model_registry.backup import back_up, backups, prune, restore
from holdfast_model_registry.check import Scrub, check
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.storage import Locations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return a maker of new databases of one kind; '' is SQLite in the data folder."""
    if request.param == "postgresql":
        made: Callable[[], str] = request.getfixturevalue("postgresql")
        return made
    return lambda: ""


@pytest.fixture
def shelf(database: Callable[[], str], tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(Locations(tmp_path / "data", database()))
    first = made.commit("org/name", {"größe.txt": b"text", "w.bin": b"weights"})
    made.commit("org/name", {"a.txt": b"text", "w.bin": b"more"}, parent=first)
    made.put(b"nobody's")
    yield made
    made.storage.close()


def rows_of(shelf: Shelf) -> dict[str, list[Any]]:
    """Return every row that a backup has to bring back."""
    tables = ("repositories", "snapshots", "entries", "commits", "refs", "holdings")
    with shelf.storage.metadata.engine.connect() as connection:
        return {
            name: sorted(
                repr(tuple(row))
                for row in connection.execute(sa.select(schema.metadata.tables[name]))
            )
            for name in tables
        }


def brought_back(folder: Path, target: Path, database: str, name: str = "") -> Shelf:
    locations = Locations(target, database)
    restore(locations, folder, name)
    return Shelf(locations)


def test_what_was_there_is_back_with_every_blob(
    shelf: Shelf, database: Callable[[], str], tmp_path: Path
) -> None:
    moved = back_up(shelf.locations, tmp_path / "backup")
    assert (moved.blobs, moved.copied, moved.findings) == (3, 3, [])
    back = brought_back(tmp_path / "backup", tmp_path / "new", database())
    assert rows_of(back) == rows_of(shelf)
    assert check(back.storage, scrub=Scrub()).findings == []
    assert not back.has(b"nobody's")
    # and it goes on from there
    head = back.storage.metadata.repository(RepositoryId.parse("org/name"))
    assert head is not None
    commit = back.storage.metadata.commit(head, "main")
    assert commit is not None
    back.commit("org/name", {"w.bin": b"weights"}, parent=commit.oid)
    back.commit("org/another", {"w.bin": b"weights"})
    assert check(back.storage).findings == []
    back.storage.close()


def test_a_backup_of_one_database_goes_into_another_kind(
    tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    shelf = Shelf(Locations(tmp_path / "data"))
    shelf.commit("org/name", {"a.txt": b"text", "w.bin": b"weights"})
    back_up(shelf.locations, tmp_path / "one")
    large = brought_back(tmp_path / "one", tmp_path / "on-postgresql", postgresql())
    assert check(large.storage).findings == []
    back_up(large.locations, tmp_path / "two")
    small = brought_back(tmp_path / "two", tmp_path / "on-sqlite", "")
    assert rows_of(small) == rows_of(shelf)
    for each in (shelf, large, small):
        each.storage.close()


def test_only_new_blobs_are_copied_and_older_backups_stay(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    first = back_up(shelf.locations, folder)
    shelf.commit("org/other", {"w.bin": b"weights", "new.bin": b"new"})
    wait_for_the_next_second(first.name)
    second = back_up(shelf.locations, folder)
    assert (second.blobs, second.copied) == (4, 1)
    assert backups(folder) == [first.name, second.name]
    old = brought_back(folder, tmp_path / "old", "", first.name)
    assert old.count(schema.repositories) == 1
    old.storage.close()
    assert prune(folder, 1) == [first.name]
    assert backups(folder) == [second.name]
    new = brought_back(folder, tmp_path / "new", "")
    assert check(new.storage, scrub=Scrub()).findings == []
    new.storage.close()


def wait_for_the_next_second(name: str) -> None:
    while time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) == name:
        time.sleep(0.05)


def test_pruning_removes_the_blobs_that_only_old_backups_need(tmp_path: Path) -> None:
    shelf, folder = Shelf(Locations(tmp_path / "data")), tmp_path / "backup"
    shelf.commit("org/name", {"w.bin": b"old"})
    first = back_up(shelf.locations, folder)
    with shelf.storage.metadata.engine.begin() as connection:
        for table in ("holdings", "refs", "commits", "entries", "snapshots"):
            connection.execute(schema.metadata.tables[table].delete())
    shelf.commit("org/name", {"w.bin": b"new"})
    wait_for_the_next_second(first.name)
    back_up(shelf.locations, folder)
    prune(folder, 1)
    pool = folder / "blobs" / "sha256"
    assert [path.name for path in pool.glob("*/*")] == [digest_of(b"new")]
    shelf.storage.close()


def test_links_where_they_are_asked_for(shelf: Shelf, tmp_path: Path) -> None:
    back_up(shelf.locations, tmp_path / "backup", link=True)
    digest = digest_of(b"weights")
    copy = tmp_path / "backup" / "blobs" / "sha256" / digest[:2] / digest
    assert copy.samefile(shelf.path(b"weights"))


def test_damage_at_the_source_is_a_finding_and_the_rest_is_saved(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.path(b"weights").write_bytes(b"veights")
    shelf.path(b"more").unlink()
    moved = back_up(shelf.locations, tmp_path / "backup")
    assert sorted(finding.name for finding in moved.findings) == ["blob-not-copied"] * 2
    assert moved.copied == 1
    back = brought_back(tmp_path / "backup", tmp_path / "new", "")
    names = {finding.name for finding in check(back.storage).findings}
    assert names == {"blob-missing"}
    back.storage.close()


def test_damage_in_the_backup_is_found_when_it_is_brought_back(
    shelf: Shelf, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    back_up(shelf.locations, folder)
    digest = digest_of(b"weights")
    (folder / "blobs" / "sha256" / digest[:2] / digest).write_bytes(b"veights")
    moved = restore(Locations(tmp_path / "new"), folder)
    (finding,) = moved.findings
    assert digest in finding.detail
    assert "damaged" in finding.detail


@pytest.mark.parametrize("harm", ["cut", "flip", "deflate", "row", "empty"])
def test_records_that_are_not_whole_bring_nothing_back(
    shelf: Shelf, tmp_path: Path, harm: str
) -> None:
    folder = tmp_path / "backup"
    moved = back_up(shelf.locations, folder)
    path = folder / "records" / f"{moved.name}.jsonl.gz"
    content = path.read_bytes()
    lines = gzip.decompress(content).splitlines(keepends=True)
    if harm == "cut":
        content = content[: len(content) // 2]
    elif harm == "flip":
        content = content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]
    elif harm == "deflate":
        content = gzip.compress(b"")[:10] + b"\x07" + content[11:]  # a kind of block that is none
    elif harm == "row":
        content = gzip.compress(b"".join(lines[:-2] + lines[-1:]))
    else:
        content = b""
    path.write_bytes(content)
    with pytest.raises(RegistryError, match="records of the backup cannot be used"):
        restore(Locations(tmp_path / "new"), folder)
    assert not (tmp_path / "new" / "registry.db").exists()


def test_refusals_are_told(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    with pytest.raises(RegistryError, match="no backup"):
        restore(Locations(tmp_path / "new"), folder)
    back_up(shelf.locations, folder)
    with pytest.raises(RegistryError, match="has repositories already"):
        restore(shelf.locations, folder)
    with pytest.raises(RegistryError, match="no backup 20200101T000000Z"):
        restore(Locations(tmp_path / "new"), folder, "20200101T000000Z")


def test_a_backup_taken_between_commits_is_whole(shelf: Shelf, tmp_path: Path) -> None:
    stop = threading.Event()

    def commit() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            shelf.commit("org/busy", {"w.bin": b"%d" % number, "a.txt": b"%d" % (number % 3)})

    writer = threading.Thread(target=commit)
    writer.start()
    try:
        time.sleep(0.2)
        moved = back_up(shelf.locations, tmp_path / "backup")
    finally:
        stop.set()
        writer.join()
    assert moved.findings == []
    back = brought_back(tmp_path / "backup", tmp_path / "new", "")
    assert back.count(schema.commits) > 2
    assert check(back.storage, scrub=Scrub()).findings == []
    back.storage.close()


def test_the_commands_beside_a_registry_that_serves(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", weights=40_000)
    seeded = {"id": MODEL, "path": str(model), "teams": ["research"], "labels": LABELS}
    data, folder = tmp_path / "run" / "data", tmp_path / "backup"
    with run_registry(tmp_path / "run", seed={**SEED, "models": [seeded]}):
        done = command("backup", folder, "--data", data, "--secrets")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["copied"] == made["blobs"] == len(set(files_of(model).values()))
    secrets = folder / "secrets" / made["name"]
    assert {path.name for path in secrets.iterdir()} >= {"signing.key", "trust.db", "registry.pem"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (secrets, *secrets.iterdir()))
    done = command("restore", folder, "--data", tmp_path / "new" / "data", "--json")
    assert done.returncode == 0, done.stderr
    # Nobody is seeded: the token is known from the restored identity database.
    with run_registry(tmp_path / "new", seed={}) as registry:
        status, _, body = registry.request(f"/{MODEL}/resolve/main/model.safetensors", ADA)
        assert status == 200
        assert body == (model / "model.safetensors").read_bytes()
        events = registry.ledger()
    assert "storage.restore" in {event["action"] for event in events}
    keys = [folder / "keys" / "registry.pub" for folder in (data, tmp_path / "new" / "data")]
    assert keys[0].read_bytes() == keys[1].read_bytes()
