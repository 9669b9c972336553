from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from provenance_parts import LAB, LAB_KEY, Shelf, digests_of, make_shelf

from holdfast_hub_protocol import schema
from holdfast_model_registry import commit_manifest
from holdfast_model_registry.commit_manifest import (
    commit_manifests,
    read_envelope_text,
    record,
    record_missing,
    statement_of,
    verify,
)
from holdfast_model_registry.signing import SIGNATURE_FILE, sign_files
from holdfast_model_registry.signing_envelope import EnvelopeError, sign
from holdfast_model_registry.signing_provenance import read_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {"README.md": b"# Card", "a/w.safetensors": b"weights"}


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with make_shelf(f"sqlite:///{tmp_path}/shelf.db", tmp_path) as made:
        yield made


def envelope_of(shelf: Shelf, key: int, oid: str) -> str:
    with shelf.metadata.engine.connect() as connection:
        text = read_envelope_text(connection, key, oid)
    assert text is not None
    return text


def test_a_manifest_names_every_file_and_is_signed_by_the_registry(shelf: Shelf) -> None:
    key, oid = shelf.publish("org/tiny", FILES)
    signed = verify(envelope_of(shelf, key, oid), [shelf.key.trusted])
    manifest = signed.manifest
    assert (str(manifest.name), manifest.commit, manifest.parent) == ("org/tiny", oid, None)
    assert {file.path: file.sha256 for file in manifest.files} == digests_of(FILES)
    assert [file.git_oid is None for file in manifest.files] == [False, True]
    commit = shelf.metadata.commit(shelf.metadata.repository(manifest.name), oid)  # type: ignore[arg-type]
    assert commit is not None
    assert (manifest.tree, manifest.title, manifest.date) == (
        commit.tree_oid,
        commit.title,
        commit.date,
    )
    assert signed.key.name == "this registry"


def test_another_key_another_predicate_and_altered_rows_are_refused(shelf: Shelf) -> None:
    key, oid = shelf.publish("org/tiny", FILES)
    text = envelope_of(shelf, key, oid)
    with pytest.raises(EnvelopeError, match="not signed by a known registry; known: lab"):
        verify(text, [LAB])
    manifest = verify(text, [shelf.key.trusted]).manifest
    other = statement_of(manifest) | {"predicateType": "https://elsewhere/v1"}
    with pytest.raises(EnvelopeError, match="elsewhere"):
        verify(json.dumps(sign(other, LAB_KEY)), [LAB])
    short = statement_of(manifest)
    del short["predicate"]["tree"]
    with pytest.raises(EnvelopeError, match="tree"):
        verify(json.dumps(sign(short, LAB_KEY)), [LAB])
    document = json.loads(text)
    payload = base64.b64decode(document["payload"]).replace(oid.encode(), b"0" * 40)
    document["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(EnvelopeError, match="not signed"):
        verify(json.dumps(document), [shelf.key.trusted])


def test_a_manifest_is_signed_once_and_not_anew_over_altered_rows(shelf: Shelf) -> None:
    key, oid = shelf.publish("org/tiny", FILES)
    before = envelope_of(shelf, key, oid)
    with shelf.metadata.engine.begin() as connection:
        connection.execute(
            schema.entries.update()
            .where(schema.entries.c.path == "README.md")
            .values(sha256="0" * 64)
        )
        assert record(connection, key, oid, shelf.key) is False
        assert record_missing(shelf.metadata.engine, shelf.key) == 0
    assert envelope_of(shelf, key, oid) == before
    with shelf.metadata.engine.connect() as connection:
        now = commit_manifest.read_rows(
            connection, connection.execute(sa.select(commit_manifests.c.commit_id)).scalar_one()
        )
    assert now.files != verify(before, [shelf.key.trusted]).manifest.files
    with shelf.metadata.engine.begin() as connection, pytest.raises(KeyError):
        record(connection, key, "f" * 40, shelf.key)


def test_commits_from_before_there_were_manifests_are_signed(shelf: Shelf) -> None:
    key, oid = shelf.publish("org/tiny", FILES)
    with shelf.metadata.engine.begin() as connection:
        connection.execute(commit_manifests.delete())
        assert read_envelope_text(connection, key, oid) is None
    assert record_missing(shelf.metadata.engine, shelf.key) == 1
    assert verify(envelope_of(shelf, key, oid), [shelf.key.trusted]).manifest.commit == oid


def test_the_verdict_on_a_signature_is_kept_and_asked_for_where_the_rule_says(shelf: Shelf) -> None:
    signature = sign_files(digests_of(FILES), "tiny", LAB_KEY)
    key, oid = shelf.publish("org/tiny", FILES | {SIGNATURE_FILE: signature})
    with shelf.metadata.engine.connect() as connection:
        kept = read_verdict(connection, key, oid)
        assert read_verdict(connection, key, "f" * 40) is None
    assert kept is not None
    assert (kept[0].state, kept[0].signer, kept[1]) == ("verified", "lab", "absent")
    shelf.rule = "required"
    shelf.publish("org/tiny", FILES | {SIGNATURE_FILE: signature})
    unsigned = [shelf.store(path, content) for path, content in FILES.items()]
    examined = shelf.provenance.examine(unsigned, shelf.blobs.path)
    assert "needs a signature" in shelf.provenance.refusal("model", examined)
    assert shelf.provenance.refusal("dataset", examined) == ""
    shelf.rule = "if-present"
    assert shelf.provenance.refusal("model", examined) == ""
    altered = [*unsigned, shelf.store("extra.bin", b"x"), shelf.store(SIGNATURE_FILE, signature)]
    examined = shelf.provenance.examine(altered, shelf.blobs.path)
    assert "not signed: extra.bin" in shelf.provenance.refusal("dataset", examined)
