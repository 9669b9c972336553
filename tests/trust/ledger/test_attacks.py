"""What somebody with write access to the files may try, and what the check says to it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import Ledger, Report, verify
from holdfast_trust.ledger.checkpoint import Signer, open_signer
from holdfast_trust.ledger.merkle import Frontier, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ledger of twelve entries, with checkpoints over 0, 5 and all of them."""
    path = tmp_path / "ledger"
    with Ledger(path) as ledger:
        for n in range(SIZE):
            ledger.append({"action": "model.read", "model": f"org/{n}"})
            if n == 4:
                ledger.checkpoint()
    assert verify(path).ok
    return path


def failures(report: Report) -> set[str]:
    return {each.name for each in report.findings if each.verdict == "fail"}


def lines(folder: Path) -> list[bytes]:
    return (folder / "entries.jsonl").read_bytes().splitlines()


def put(folder: Path, entries: list[bytes]) -> None:
    (folder / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in entries))


def renumber(entries: list[bytes]) -> list[bytes]:
    """Write the entries as an honest writer would have in this order: a re-chained log."""
    records = [json.loads(line) for line in entries]
    return [rfc8785.dumps({**record, "index": n}) for n, record in enumerate(records)]


def resign(folder: Path, signer: Signer) -> None:
    """Replace the checkpoints and the state by ones that fit the entries."""
    frontier = Frontier()
    for line in lines(folder):
        frontier.append(leaf_hash(line))
    notes = [
        signer.sign(0, Frontier().root(), "2026-11-20T08:00:00Z").note,
        signer.sign(frontier.size, frontier.root(), "2026-11-20T08:00:00Z").note,
    ]
    text = "".join(json.dumps(note, ensure_ascii=False) + "\n" for note in notes)
    (folder / "checkpoints.jsonl").write_text(text)
    (folder / "state.json").unlink(missing_ok=True)


@pytest.mark.parametrize("place", range(SIZE))
def test_an_edited_entry_is_caught(folder: Path, place: int) -> None:
    entries = lines(folder)
    entries[place] = entries[place].replace(b"model.read", b"model.reab")
    put(folder, entries)
    assert "checkpoint" in failures(verify(folder))


@pytest.mark.parametrize("kept", range(SIZE))
def test_a_truncated_log_is_caught(folder: Path, kept: int) -> None:
    put(folder, lines(folder)[:kept])
    assert "truncated" in failures(verify(folder))


def test_a_log_cut_in_the_middle_of_an_entry_is_caught(folder: Path) -> None:
    path = folder / "entries.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert "truncated" in failures(verify(folder))


def test_reordered_entries_are_caught(folder: Path) -> None:
    entries = lines(folder)
    entries[6], entries[7] = entries[7], entries[6]
    put(folder, entries)
    assert failures(verify(folder)) == {"entry", "checkpoint"}


def test_a_removed_entry_is_caught_even_when_the_rest_is_renumbered(folder: Path) -> None:
    entries = lines(folder)
    del entries[3]
    put(folder, renumber(entries))
    assert {"checkpoint", "truncated"} <= failures(verify(folder))


def test_an_inserted_entry_is_caught(folder: Path) -> None:
    entries = lines(folder)
    entries.insert(3, entries[3])
    put(folder, renumber(entries))
    assert "checkpoint" in failures(verify(folder))


def test_a_rechained_log_is_caught_without_the_key(folder: Path) -> None:
    entries = lines(folder)
    entries[2] = entries[2].replace(b"org/2", b"org/9")
    put(folder, renumber(entries))
    (folder / "state.json").unlink()
    assert failures(verify(folder)) == {"checkpoint"}
    forger = Signer(open_signer(folder, "").name, Ed25519PrivateKey.generate())
    resign(folder, forger)
    assert "checkpoint" in failures(verify(folder))


def test_a_rechained_log_signed_with_the_stolen_key_is_caught_by_a_witness(folder: Path) -> None:
    note = json.loads((folder / "checkpoints.jsonl").read_text().splitlines()[1])
    entries = lines(folder)
    entries[2] = entries[2].replace(b"org/2", b"org/9")
    put(folder, renumber(entries))
    resign(folder, open_signer(folder, ""))
    alone = verify(folder)
    assert alone.ok  # which is why it says:
    assert [each.name for each in alone.findings] == ["unanchored"]
    assert "checkpoint" in failures(verify(folder, anchors=[note]))


def test_a_log_truncated_with_the_stolen_key_is_caught_by_a_witness(folder: Path) -> None:
    note = json.loads((folder / "checkpoints.jsonl").read_text().splitlines()[-1])
    put(folder, lines(folder)[:7])
    resign(folder, open_signer(folder, ""))
    assert verify(folder).ok
    assert failures(verify(folder, anchors=[note])) == {"truncated"}


def test_a_log_replaced_with_its_key_is_caught_by_the_key_kept_elsewhere(folder: Path) -> None:
    key = (folder / "key.pub").read_text()
    shutil.rmtree(folder)
    with Ledger(folder) as ledger:
        ledger.append({"action": "nothing.happened"})
    assert verify(folder).ok
    assert "fork" in failures(verify(folder, public_key=key))


def test_two_signed_histories_are_a_fork(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for path, name in ((folder, "here"), (other, "there")):
        with Ledger(path) as ledger:
            ledger.append({"action": name})
    note = json.loads((other / "checkpoints.jsonl").read_text().splitlines()[-1])
    assert verify(other).ok
    assert "fork" in failures(verify(folder, anchors=[note]))


def test_a_log_that_was_shortened_and_continued_is_caught(folder: Path) -> None:
    path = folder / "checkpoints.jsonl"
    signed = path.read_bytes().splitlines(keepends=True)
    put(folder, lines(folder)[:7])
    (folder / "state.json").unlink()
    path.write_bytes(b"".join(signed[:2]))
    with Ledger(folder) as ledger:
        ledger.append({"action": "going on"})
    continued = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*signed, *continued[2:]]))
    assert {"fork", "truncated"} <= failures(verify(folder))


def test_checkpoints_that_are_gone_are_missed(folder: Path) -> None:
    (folder / "checkpoints.jsonl").unlink()
    assert failures(verify(folder)) == {"unsigned"}


def test_a_line_that_is_no_record_is_caught(folder: Path) -> None:
    for bad in (b"{}", b"[]", b"\xff\xfe", b'{"event":1,"index":12,"time":"x"}', b"[" * 100_000):
        entries = lines(folder)[:SIZE]
        put(folder, [*entries, bad])
        assert failures(verify(folder)) == {"entry"}


def test_spaces_and_doubled_keys_are_not_canonical(folder: Path) -> None:
    entries = lines(folder)
    for bad in (
        entries[0].replace(b'"index":0', b'"index": 12'),
        entries[0].replace(b'"index":0', b'"index":0,"index":12'),
        entries[0].replace(b'"index":0', b'"index":true'),
    ):
        put(folder, [*entries, bad])
        assert failures(verify(folder)) == {"entry"}


def test_a_thousand_damaged_entries_are_counted_not_listed(folder: Path) -> None:
    put(folder, [*lines(folder), *[b"{}"] * 1000])
    report = verify(folder)
    assert len(report.findings) < 30
    assert any("980 more entries are damaged" in each.detail for each in report.findings)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_covered_entry_is_caught(folder: Path, place: int, bit: int) -> None:
    path = folder / "entries.jsonl"
    whole = path.read_bytes()
    data = bytearray(whole)
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    try:
        assert not verify(folder).ok
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "attack",
    [
        lambda entries: entries[:7],
        lambda entries: [entries[0].replace(b"org/0", b"org/9"), *entries[1:]],
        lambda entries: renumber([*entries[:3], *entries[4:]]),
    ],
)
def test_a_service_does_not_go_on_with_a_ledger_that_was_tampered_with(
    folder: Path, attack: Callable[[list[bytes]], list[bytes]]
) -> None:
    put(folder, attack(lines(folder)))
    (folder / "state.json").unlink()
    with pytest.raises(TrustError, match="does not fit its checkpoints"):
        Ledger(folder)


def test_verifying_changes_nothing(folder: Path) -> None:
    def snapshot() -> dict[str, tuple[bytes, float]]:
        return {file.name: (file.read_bytes(), file.stat().st_mtime) for file in folder.iterdir()}

    before = snapshot()
    verify(folder)
    assert snapshot() == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "key.pub").unlink(),
        lambda folder: (folder / "key.pub").write_text("nonsense"),
        lambda folder: (folder / "entries.jsonl").unlink(),
        shutil.rmtree,
    ],
)
def test_a_ledger_that_cannot_be_read_is_an_error_never_ok(
    folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder)
    with pytest.raises(TrustError):
        verify(folder)
