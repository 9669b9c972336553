"""Commits that came without a manifest are signed while the registry serves already."""

from __future__ import annotations

import fcntl
import threading
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from provenance_parts import Shelf, make_shelf
from review_parts import MODEL, open_registry

from holdfast_hub_protocol import schema
from holdfast_model_registry import commit_manifest, late_signing
from holdfast_model_registry.commit_manifest import commit_manifests, read_envelope_text, verify
from holdfast_model_registry.late_signing import LateSigner, sign_some
from holdfast_model_registry.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {"README.md": b"# Card"}
COUNT = 7


@pytest.fixture(params=["sqlite", "postgresql"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    """A shelf of commits of which none is signed."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    else:
        url = f"sqlite:///{tmp_path}/shelf.db"
    with make_shelf(url, tmp_path) as made:
        for number in range(COUNT):
            made.publish(f"org/name-{number}", FILES)
        with made.metadata.engine.begin() as connection:
            connection.execute(commit_manifests.delete())
        yield made


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_manifest, "BATCH", 2)


def storage_of(shelf: Shelf) -> Storage:
    return Storage(shelf.blobs, shelf.metadata, shelf.key)


def signed(shelf: Shelf) -> int:
    with shelf.metadata.engine.connect() as connection:
        return len(connection.execute(sa.select(commit_manifests)).all())


def test_a_start_signs_some_and_the_thread_the_rest(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_signing, "_AT_START", 4)
    assert sign_some(storage_of(shelf)) == signed(shelf) == 4
    late = LateSigner(storage_of(shelf), tmp_path)
    late.start()
    assert late.wait(30)
    assert signed(shelf) == COUNT
    with shelf.metadata.engine.connect() as connection:
        for row in connection.execute(sa.select(schema.commits)):
            text = read_envelope_text(connection, row.repository_id, row.oid)
            assert text is not None
            assert verify(text, [shelf.key.trusted]).manifest.commit == row.oid
    assert sign_some(storage_of(shelf)) == 0


def test_stopped_it_ends_with_a_batch_and_another_goes_on(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = LateSigner(storage_of(shelf), tmp_path)
    original = commit_manifest.record

    def stopping(*arguments: object) -> bool:
        late._stop.set()
        return original(*arguments)  # type: ignore[arg-type] # passed on

    with monkeypatch.context() as patched:
        patched.setattr(commit_manifest, "record", stopping)
        late.start()
        assert late.wait(30)
    assert signed(shelf) == 2
    again = LateSigner(storage_of(shelf), tmp_path)
    again.start()
    assert again.wait(30)
    assert signed(shelf) == COUNT


def test_one_process_signs_for_all(shelf: Shelf, tmp_path: Path) -> None:
    with (tmp_path / "late-signing.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        late = LateSigner(storage_of(shelf), tmp_path)
        late.start()
        assert late.wait(30)
    assert signed(shelf) == 0


def test_a_commit_that_goes_meanwhile_is_passed_over(shelf: Shelf) -> None:
    batches = commit_manifest.sign_missing(shelf.metadata.engine, shelf.key)
    assert next(batches) == 2
    with shelf.metadata.engine.begin() as connection:
        last = connection.execute(sa.select(sa.func.max(schema.commits.c.id))).scalar_one()
        connection.execute(schema.refs.delete().where(schema.refs.c.commit_id == last))
        connection.execute(schema.commits.delete().where(schema.commits.c.id == last))
    assert sum(batches) == COUNT - 3


def test_until_it_is_signed_a_commit_does_not_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_registry(tmp_path) as registry:
        registry.create()
        oid = registry.pushed(FILES)
        with registry.service.scanner.reviewing.storage.metadata.engine.begin() as connection:
            connection.execute(commit_manifests.delete())
    monkeypatch.setattr(late_signing, "_AT_START", 0)
    waits, original = threading.Event(), commit_manifest.record

    def waiting(*arguments: object) -> bool:
        assert waits.wait(30)
        return original(*arguments)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(commit_manifest, "record", waiting)
    with open_registry(tmp_path) as registry:
        try:
            manifest = f"/api/holdfast/models/{MODEL}/manifest/{oid}"
            verdict = f"/api/holdfast/models/{MODEL}/provenance/{oid}"
            assert registry.as_("ada", "GET", manifest).status_code == 404
            links = registry.as_("ada", "GET", verdict).json()["links"]
            assert {each["verdict"] for each in links if each["name"] == "manifest"} == {"fail"}
        finally:
            waits.set()
        assert registry.service.late_signer.wait(30)
        assert registry.as_("ada", "GET", manifest).status_code == 200
        links = registry.as_("ada", "GET", verdict).json()["links"]
        assert {each["verdict"] for each in links if each["name"] == "manifest"} == {"pass"}
