from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from provenance_parts import LAB, LAB_KEY, Shelf, card, digests_of, make_shelf
from sqlalchemy import event

from holdfast_hub_protocol import schema
from holdfast_model_registry import lineage
from holdfast_model_registry.lineage import Source, sources_of
from holdfast_model_registry.lineage_labels import (
    at_most,
    effective,
    labels_of,
    may_be_in,
    strictest,
)
from holdfast_model_registry.lineage_receipt import (
    RECEIPT_FILE,
    Made,
    Training,
    check_receipt,
    now,
    write_receipt,
)
from holdfast_model_registry.readers import access, put_access
from holdfast_model_registry.signing_provenance import ContradictionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DE = {"jurisdiction": "de", "classification": "internal"}
SECRET = {"jurisdiction": "de", "classification": "secret"}
WEIGHTS = {"model.safetensors": b"weights"}


@pytest.fixture(params=["sqlite", "postgresql"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    else:
        url = f"sqlite:///{tmp_path}/shelf.db"
    with make_shelf(url, tmp_path) as made:
        yield made


def held(shelf: Shelf, *keys: int) -> list[dict[str, str]]:
    with shelf.metadata.engine.connect() as connection:
        found = labels_of(connection, keys)
    return [found[key] for key in keys]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("classification", ["internal", "secret", "public"], "secret"),
        ("classification", ["internal", "eyes-only"], "eyes-only"),
        ("classification", ["eyes-only", "internal"], "eyes-only"),
        ("classification", ["eyes-only", "burn-after-reading"], ""),
        ("classification", ["internal", ""], ""),
        ("classification", [], ""),
        ("jurisdiction", ["de", "de"], "de"),
        ("jurisdiction", ["de", "fr"], ""),
        ("jurisdiction", ["atlantis", "de"], ""),
    ],
)
def test_the_strictest_of_labels(kind: str, values: list[str], expected: str) -> None:
    assert strictest(kind, values) == expected


def test_inheritance_fills_in_no_label_that_nobody_gave() -> None:
    assert effective({"jurisdiction": "de"}, SECRET) == {"jurisdiction": "de"}
    assert effective(DE, None) == DE
    assert effective(DE, SECRET) == SECRET


@pytest.mark.parametrize(
    ("labels", "place", "limit", "why"),
    [
        (DE, "de", "internal", ""),
        (DE, "fr", "secret", "its jurisdiction is de, which does not permit fr"),
        (SECRET, "de", "internal", "its classification is secret, above internal"),
        ({"jurisdiction": "de"}, "de", "secret", "it has no classification"),
        (DE | {"classification": "odd"}, "de", "secret", "its classification is odd, above secret"),
        (DE, "de", "odd", "its classification is internal, above odd"),
    ],
)
def test_where_something_may_be(labels: dict[str, str], place: str, limit: str, why: str) -> None:
    assert may_be_in(labels, place, limit) == why
    assert at_most("public", "public")


def test_cards_and_receipts_name_sources() -> None:
    front = {"base_model": ["a/b", "a/c@v1", 7], "datasets": "squad"}
    assert sources_of(front) == [
        Source("model", "a/b"),
        Source("model", "a/c", "v1"),
        Source("dataset", "squad"),
    ]
    training = Training(base_models=(Made(id="a/b", revision="f" * 40),), finished=now())
    assert sources_of(front, training, "lab")[:2] == [
        Source("model", "a/b", "f" * 40, "receipt", "lab"),
        Source("model", "a/c", "v1"),
    ]
    assert sources_of(None) == []
    assert len(sources_of({"datasets": [f"a/d{n}" for n in range(999)]})) == lineage.MAX_SOURCES
    address = Source("dataset", "https://huggingface.co/datasets/a/d").repository
    assert address is not None
    assert str(address) == "a/d"
    assert Source("model", "../weights").repository is None


def test_sources_known_here_are_resolved_and_their_labels_inherited(shelf: Shelf) -> None:
    base, base_commit = shelf.publish("org/base", WEIGHTS, SECRET)
    data, data_commit = shelf.publish("org/corpus", {"a.csv": b"1"}, DE, kind="dataset")
    front = card(base_model="ORG/base", datasets=["org/corpus", "gone/elsewhere"])
    tuned, commit = shelf.publish("org/tuned", WEIGHTS | {"README.md": front}, DE)
    with shelf.metadata.engine.connect() as connection:
        found = lineage.read(connection, tuned, commit)
    assert [(each.key, each.repository, each.commit) for each in found] == [
        (base, "org/base", base_commit),
        (data, "org/corpus", data_commit),
        (None, "", ""),
    ]
    assert [each.labels for each in found] == [SECRET, DE, None]
    assert held(shelf, base, data, tuned) == [SECRET, DE, SECRET]


def test_a_revision_named_is_the_commit_it_stood_for(shelf: Shelf) -> None:
    base, first = shelf.publish("org/base", WEIGHTS, DE)
    _, second = shelf.publish("org/base", {"model.safetensors": b"more"}, parent=first)
    for named, oid in (
        (f"org/base@{first}", first),
        ("org/base@main", second),
        ("org/base@v9", ""),
    ):
        tuned, commit = shelf.publish("org/tuned", {"README.md": card(base_model=named)}, DE)
        with shelf.metadata.engine.connect() as connection:
            (found,) = lineage.read(connection, tuned, commit)
        assert (found.key, found.commit) == (base, oid)


def test_labels_reach_heirs_of_heirs_and_follow_later_changes(shelf: Shelf) -> None:
    base, _ = shelf.publish("org/base", WEIGHTS, DE)
    tuned, _ = shelf.publish("org/tuned", {"README.md": card(base_model="org/base")}, DE)
    small, _ = shelf.publish("org/small", {"README.md": card(base_model="org/tuned")}, DE)
    assert held(shelf, small) == [DE]
    for labels in (SECRET, DE):
        with shelf.metadata.engine.begin() as connection:
            put_access(connection, base, teams=None, labels=labels)
            lineage.inherit(connection, base)
        assert held(shelf, base, tuned, small) == [labels, labels, labels]


def test_a_circle_of_heirs_lets_go_of_a_label_that_is_taken_back(shelf: Shelf) -> None:
    one, _ = shelf.publish("org/one", WEIGHTS, SECRET)
    two, _ = shelf.publish("org/two", {"README.md": card(base_model="org/one")}, DE)
    shelf.publish("org/one", {"README.md": card(base_model="org/two")})
    shelf.publish("org/one", {"README.md": card(base_model="org/one")})
    assert held(shelf, one, two) == [SECRET, SECRET]
    with shelf.metadata.engine.begin() as connection:
        put_access(connection, one, teams=None, labels=DE)
        lineage.inherit(connection, one)
    assert held(shelf, one, two) == [DE, DE]


def test_an_heir_of_what_was_deleted_keeps_its_labels(shelf: Shelf) -> None:
    base, _ = shelf.publish("org/base", WEIGHTS, DE)
    tuned, commit = shelf.publish("org/tuned", {"README.md": card(base_model="org/base")}, DE)
    with shelf.metadata.engine.begin() as connection:
        put_access(connection, base, teams=None, labels=SECRET)
        lineage.inherit(connection, base)
    with shelf.metadata.engine.begin() as connection:
        of_base = schema.commits.c.repository_id == base
        snapshots = sa.select(schema.snapshots.c.id).where(schema.snapshots.c.repository_id == base)
        connection.execute(schema.refs.delete().where(schema.refs.c.repository_id == base))
        connection.execute(schema.commits.delete().where(of_base))
        in_base = schema.entries.c.snapshot_id.in_(snapshots)
        connection.execute(schema.entries.delete().where(in_base))
        of_base = schema.snapshots.c.repository_id == base
        connection.execute(schema.snapshots.delete().where(of_base))
        connection.execute(access.delete().where(access.c.repository_id == base))
        connection.execute(schema.repositories.delete().where(schema.repositories.c.id == base))
        lineage.inherit(connection, tuned)
        (found,) = lineage.read(connection, tuned, commit)
    assert (found.key, found.labels) == (None, SECRET)
    assert held(shelf, tuned) == [SECRET]


def test_contradicting_labels_refuse_a_commit_and_deny_what_is_there(shelf: Shelf) -> None:
    base, _ = shelf.publish("org/base", WEIGHTS, DE)
    french = {"README.md": card(base_model="org/base")}
    with pytest.raises(ContradictionError, match="jurisdiction 'fr' and jurisdiction 'de'"):
        shelf.publish("org/tuned", french, DE | {"jurisdiction": "fr"})
    tuned, _ = shelf.publish("org/tuned", french, DE)
    with shelf.metadata.engine.begin() as connection:
        put_access(connection, base, teams=None, labels={"jurisdiction": "fr"})
        lineage.inherit(connection, base)
        assert "contradict" in lineage.contradiction(connection, tuned)
        assert lineage.contradiction(connection, base) == ""
    assert held(shelf, tuned) == [{"jurisdiction": "", "classification": "internal"}]


def test_what_comes_of_a_source_without_labels_has_none(shelf: Shelf) -> None:
    shelf.publish("org/base", WEIGHTS)
    with pytest.raises(ContradictionError, match="none, or several"):
        shelf.publish("org/tuned", {"README.md": card(base_model="org/base")}, DE)


def test_what_a_committer_may_not_see_leaves_no_trace(shelf: Shelf) -> None:
    base, _ = shelf.publish("org/base", WEIGHTS, SECRET)
    front = {"README.md": card(base_model="org/base")}
    tuned, commit = shelf.publish("org/tuned", front, DE, visible=lambda key: key != base)
    with shelf.metadata.engine.connect() as connection:
        (found,) = lineage.read(connection, tuned, commit)
    assert (found.key, found.repository, found.labels) == (None, "", None)
    assert held(shelf, tuned) == [DE]


def test_labels_of_many_repositories_is_one_question(shelf: Shelf) -> None:
    keys = [shelf.publish(f"org/m{n}", WEIGHTS, DE)[0] for n in range(5)]
    asked: list[str] = []
    event.listen(
        shelf.metadata.engine, "before_cursor_execute", lambda *said: asked.append(said[2])
    )
    assert held(shelf, *keys) == [DE] * 5
    assert len([each for each in asked if each.startswith("SELECT")]) == 1


def test_a_receipt_is_believed_for_the_files_it_names_only(shelf: Shelf) -> None:
    training = Training(datasets=(Made(id="org/corpus"),), job="nightly", finished=now())
    receipt = write_receipt(digests_of(WEIGHTS), training, LAB_KEY)
    assert check_receipt(receipt, digests_of(WEIGHTS), [LAB]).state == "verified"
    assert check_receipt(receipt, digests_of(WEIGHTS), []).state == "untrusted"
    altered = check_receipt(receipt, {"model.safetensors": "0" * 64}, [LAB])
    assert (altered.state, altered.training) == ("malformed", None)
    assert check_receipt(write_receipt({}, training, LAB_KEY), {}, [LAB]).state == "malformed"
    assert check_receipt(b"{}", {}, [LAB]).state == "malformed"
    odd = receipt.replace(b"sigstore", b"sigst0re")
    assert check_receipt(odd, digests_of(WEIGHTS), [LAB]).state == "malformed"
    _, data_commit = shelf.publish("org/corpus", {"a.csv": b"1"}, DE, kind="dataset")
    key, commit = shelf.publish("org/tuned", WEIGHTS | {RECEIPT_FILE: receipt}, DE)
    with shelf.metadata.engine.connect() as connection:
        (found,) = lineage.read(connection, key, commit)
    assert (found.source.evidence, found.source.signer) == ("receipt", "lab")
    assert (found.repository, found.commit) == ("org/corpus", data_commit)


def test_what_is_only_proposed_labels_nothing(shelf: Shelf) -> None:
    shelf.publish("org/base", WEIGHTS, SECRET)
    shelf.publish("org/french", WEIGHTS, DE | {"jurisdiction": "fr"})
    front = {"README.md": card(base_model=["org/base", "org/french"])}
    tuned, commit = shelf.publish("org/tuned", front, DE, counts=False)
    with shelf.metadata.engine.connect() as connection:
        found = lineage.read(connection, tuned, commit)
    assert [each.repository for each in found] == ["org/base", "org/french"]
    assert held(shelf, tuned) == [DE]
    with pytest.raises(ContradictionError):
        shelf.publish("org/tuned", front)
