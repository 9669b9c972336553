from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from registry_parts import command
from storage_parts import BASE, Shelf, digest_of

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.holdings import holdings
from holdfast_hub_protocol.staging import Staging, staged
from holdfast_model_registry.check import check
from holdfast_model_registry.commit_manifest import commit_manifests
from holdfast_model_registry.gc import collect, unreachable
from holdfast_model_registry.review.tables import reviews
from holdfast_model_registry.storage import Locations
from holdfast_trust.ledger import read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = 24 * 3600


@pytest.fixture(params=["sqlite", "postgresql"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    made = Shelf(Locations(tmp_path / "data", url))
    yield made
    made.storage.close()


def age(shelf: Shelf, seconds: float = 2 * DAY) -> None:
    """Let everything have come earlier: blobs, and what was noticed about commits."""
    for blob in shelf.storage.blobs.stored():
        path = shelf.storage.blobs.path(blob.sha256)
        os.utime(path, (0, path.stat().st_mtime - seconds))
    with shelf.storage.metadata.engine.begin() as connection:
        noticed = unreachable.c.noticed_at
        connection.execute(unreachable.update().values(noticed_at=noticed - int(seconds)))


def test_what_a_commit_holds_stays_and_what_none_holds_goes_after_the_grace(shelf: Shelf) -> None:
    shelf.commit("org/name", {"a.txt": b"kept", "w.bin": b"weights"})
    shelf.put(b"nobody's")
    collected = collect(shelf.storage)
    assert (collected.blobs, collected.waiting_blobs) == (0, 1)
    age(shelf)
    dry = collect(shelf.storage, dry_run=True)
    assert (dry.blobs, dry.bytes) == (1, 8)
    assert shelf.has(b"nobody's")
    collected = collect(shelf.storage)
    assert (collected.blobs, collected.bytes) == (1, 8)
    assert not shelf.has(b"nobody's")
    assert shelf.has(b"kept")
    assert shelf.has(b"weights")
    assert check(shelf.storage).findings == []


def test_commits_go_once_they_were_out_of_reach_for_the_grace(shelf: Shelf) -> None:
    first = shelf.commit("org/name", {"a.txt": b"kept", "old.bin": b"old"})
    shelf.commit("org/name", {"a.txt": b"kept", "new.bin": b"new"}, parent=first)
    side = shelf.commit(
        "org/name", {"a.txt": b"kept", "side.bin": b"side"}, parent=first, refs=["refs/heads/side"]
    )
    shelf.commit("org/other", {"side.bin": b"side"})
    age(shelf)
    assert collect(shelf.storage).commits == 0
    shelf.unref("refs/heads/side")
    assert collect(shelf.storage).waiting_commits == 1
    age(shelf)
    collected = collect(shelf.storage)
    assert (collected.commits, collected.snapshots, collected.blobs) == (1, 1, 0)
    with shelf.storage.metadata.engine.connect() as connection:
        oids = set(connection.execute(sa.select(schema.commits.c.oid)).scalars())
        here = holdings.c.repository_id == shelf.key("org/name")
        held = set(connection.execute(sa.select(holdings.c.sha256).where(here)).scalars())
    assert side not in oids
    assert held == {digest_of(content) for content in (b"kept", b"old", b"new")}
    assert shelf.has(b"side"), "another repository holds it"
    assert check(shelf.storage).findings == []


def test_a_commit_that_a_branch_leads_to_again_stays(shelf: Shelf) -> None:
    commit = shelf.commit("org/name", {"a.txt": b"kept"}, refs=["refs/heads/side"])
    shelf.unref("refs/heads/side")
    collect(shelf.storage)
    assert shelf.count(unreachable) == 1
    assert shelf.commit("org/name", {"a.txt": b"kept"}) != commit
    with shelf.storage.metadata.engine.begin() as connection:
        found = sa.select(schema.commits.c.id).where(schema.commits.c.oid == commit)
        key = connection.execute(found).scalar_one()
        connection.execute(schema.refs.update().values(commit_id=key))
    age(shelf)
    collected = collect(shelf.storage)
    assert collected.commits == 0
    with shelf.storage.metadata.engine.connect() as connection:
        assert connection.execute(found).scalar() == key


def test_an_approved_commit_stays_and_what_belongs_to_a_commit_goes_with_it(shelf: Shelf) -> None:
    first = shelf.commit("org/name", {"a.txt": b"approved"})
    second = shelf.commit("org/name", {"a.txt": b"replaced"}, parent=first)
    shelf.commit("org/name", {"a.txt": b"squashed"})
    with shelf.storage.metadata.engine.begin() as connection:
        commits = connection.execute(sa.select(schema.commits.c.oid, schema.commits.c.id))
        keys = {row.oid: row.id for row in commits}
        rows = [{"commit_id": key, "envelope": "{}"} for key in keys.values()]
        connection.execute(commit_manifests.delete())
        connection.execute(commit_manifests.insert(), rows)
        values = dict.fromkeys(("digest", "uploader", "reason"), "") | {"scan": "done"}
        values |= {"repository_id": shelf.key("org/name"), "commit_oid": first, "findings": []}
        dates = {"created_at": BASE, "updated_at": BASE}
        connection.execute(reviews.insert().values(**values, **dates, state="approved"))
    collect(shelf.storage)
    age(shelf)
    assert collect(shelf.storage).commits == 1
    with shelf.storage.metadata.engine.connect() as connection:
        left = set(connection.execute(sa.select(commit_manifests.c.commit_id)).scalars())
    assert left == set(keys.values()) - {keys[second]}
    assert shelf.has(b"approved")


def test_what_was_uploaded_and_not_yet_committed_stays_until_it_expires(shelf: Shelf) -> None:
    shelf.commit("org/name", {"a.txt": b"kept"})
    digest = shelf.put(b"uploaded")
    now = [time.time()]
    staging = Staging(shelf.storage.metadata, shelf.storage.blobs, None, clock=lambda: now[0])  # type: ignore[arg-type] # asked for nothing
    staging.stage(shelf.key("org/name"), digest, 8)
    age(shelf)
    assert collect(shelf.storage).blobs == 0
    with shelf.storage.metadata.engine.begin() as connection:
        connection.execute(staged.update().values(expires_at=1))
    collected = collect(shelf.storage)
    assert (collected.staged, collected.blobs) == (1, 1)


def test_a_blob_that_is_needed_again_while_gc_looks_stays(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits of content that is about to go, between the mark and the sweep."""
    import holdfast_model_registry.gc as gc_module

    shelf.put(b"again")
    age(shelf)
    real = gc_module._collect_blobs

    def late(*arguments: object) -> None:
        if shelf.commits == 0:
            path = shelf.path(b"again")
            shelf.commit("org/name", {"w.bin": b"again"})
            os.utime(path, (0, 0))
        real(*arguments)  # type: ignore[arg-type] # as it was called

    monkeypatch.setattr(gc_module, "_collect_blobs", late)
    assert collect(shelf.storage).blobs == 0
    assert shelf.has(b"again")


def test_commits_and_collections_at_once_lose_nothing(shelf: Shelf) -> None:
    """Every commit that was made has its blobs, however often gc ran with no grace at all."""
    stop = threading.Event()
    failures: list[Exception] = []

    def sweep() -> None:
        while not stop.is_set():
            try:
                collect(shelf.storage, grace=0)
            except Exception as error:  # noqa: BLE001 - told below
                failures.append(error)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    made, refused, parent = 0, 0, None
    deadline = time.monotonic() + 3
    from holdfast_hub_protocol.holdings import MissingBlobError

    while time.monotonic() < deadline:
        try:
            parent = shelf.commit("org/name", {"w.bin": b"%d" % (made % 7)}, parent=parent)
            made += 1
        except MissingBlobError:
            refused += 1  # swept before anything held it: told, nothing published
    stop.set()
    sweeper.join()
    assert failures == []
    assert made > 10
    collect(shelf.storage, grace=0)
    assert check(shelf.storage).findings == []


def test_leftovers_and_expired_rows_go(shelf: Shelf) -> None:
    leftover = shelf.storage.blobs.incoming / "half"
    leftover.write_bytes(b"half")
    os.utime(leftover, (0, 0))
    assert collect(shelf.storage).leftovers == 1
    assert not leftover.exists()


def test_the_command_prints_json_and_tells_the_ledger(tmp_path: Path) -> None:
    shelf = Shelf(Locations(tmp_path / "data"))
    shelf.put(b"nobody's")
    shelf.storage.close()
    done = command("gc", "--data", tmp_path / "data", "--grace", "0s", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["blobs"] == 1
    assert "would remove 1 blobs" in done.stderr
    done = command("gc", "--data", tmp_path / "data", "--grace", "0s", "--json")
    assert json.loads(done.stdout)["blobs"] == 1
    assert done.stderr == ""
    events = [record["event"] for record in read(tmp_path / "data" / "ledger")]
    assert [(event["action"], event["blobs"]) for event in events] == [("storage.gc", 1)]
    done = command("gc", "--data", tmp_path / "data", "--grace", "soon")
    assert done.returncode == 2
    assert "not a duration" in done.stderr


def test_usage_is_shown_with_the_limits_of_the_settings(tmp_path: Path) -> None:
    shelf = Shelf(Locations(tmp_path / "data"))
    shelf.commit("research/one", {"w.bin": b"w" * 3000})
    shelf.commit("Research/two", {"w.bin": b"w" * 3000})
    shelf.commit("other/three", {"a.txt": b"a"})
    shelf.storage.close()
    config = tmp_path / "registry.yml"
    quotas = {"default": "1GiB", "teams": {"research": "10KiB", "open": None}}
    config.write_text(json.dumps({"data": str(tmp_path / "data"), "quotas": quotas}))
    done = command("usage", "--config", config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "other: 1 byte held, 0 bytes reserved, 1.0 GiB",
        "Research: 2.9 KiB held, 0 bytes reserved, 10.0 KiB",
    ]
    document = json.loads(command("usage", "--config", config, "--json").stdout)
    assert document[1] == {"namespace": "Research", "held": 3000, "reserved": 0, "limit": 10240}
    config.write_text('{"quotas": {"default": "much"}}')
    refused = command("usage", "--config", config, "--data", tmp_path / "data")
    assert refused.returncode == 1
    assert "quotas.default" in refused.stderr
