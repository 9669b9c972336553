from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast_trust.errors import TrustError
from holdfast_trust.ledger.checkpoint import Signer, Verifier, open_signer

if TYPE_CHECKING:
    from pathlib import Path

ROOT = bytes(range(32))
TIME = "2026-11-20T08:00:00.000Z"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return open_signer(tmp_path, "holdfast/test")


def test_a_note_says_what_was_signed(signer: Signer) -> None:
    opened = signer.verifier.open(signer.sign(42, ROOT, TIME).note)
    assert (opened.origin, opened.size, opened.root, opened.time) == (signer.name, 42, ROOT, TIME)


def test_the_note_has_the_form_that_witnesses_speak(signer: Signer) -> None:
    lines = signer.sign(42, ROOT, TIME).note.split("\n")
    assert lines[:3] == [signer.name, "42", base64.b64encode(ROOT).decode()]
    assert lines[4] == ""
    assert lines[5].startswith(f"\N{EM DASH} {signer.name} ")
    assert lines[6:] == [""]


def test_every_changed_character_is_noticed(signer: Signer) -> None:
    note = signer.sign(42, ROOT, TIME).note
    for place in range(len(note)):
        changed = note[:place] + ("x" if note[place] != "x" else "y") + note[place + 1 :]
        if changed.rstrip("\n") == note.rstrip("\n"):
            continue
        try:
            opened = signer.verifier.open(changed)
        except ValueError:
            continue
        # Only what stands outside the signed text may change, and then nothing else is read.
        assert (opened.size, opened.root) == (42, ROOT)
        assert place >= note.rindex("\n\n")


def test_another_key_of_the_same_name_is_not_ours(signer: Signer) -> None:
    other = Signer(signer.name, Ed25519PrivateKey.generate())
    with pytest.raises(ValueError, match="no signature by"):
        signer.verifier.open(other.sign(42, ROOT, TIME).note)


@pytest.mark.parametrize("note", ["", "\n\n", "a\n1\n", "a\n1\nb\n\n\N{EM DASH} a ???\n"])
def test_nonsense_is_no_note(signer: Signer, note: str) -> None:
    with pytest.raises(ValueError, match=r"signature|base64"):
        signer.verifier.open(note)


def test_the_public_key_survives_its_text_form(signer: Signer) -> None:
    again = Verifier.parse(f"{signer.verifier}\n")
    assert again.open(signer.sign(1, ROOT, TIME).note).size == 1
    name, key_id, key = str(signer.verifier).split("+", 2)
    with pytest.raises(ValueError, match="does not have the id"):
        Verifier.parse(f"{name}x+{key_id}+{key}")
    with pytest.raises(ValueError, match="not an ed25519 key"):
        Verifier.parse("name+00000000+AA==")


def test_the_private_key_is_private_and_kept(tmp_path: Path, signer: Signer) -> None:
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    again = open_signer(tmp_path, "holdfast/other")
    assert str(again.verifier) == str(signer.verifier)
    assert not list(tmp_path.glob(".*"))


def test_two_ledgers_of_one_name_have_two_origins(tmp_path: Path) -> None:
    names = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        names.add(open_signer(tmp_path / folder, "holdfast/same name").name)
    assert len(names) == 2
    assert all(name.startswith("holdfast/same-name/") for name in names)


@pytest.mark.usefixtures("signer")
def test_a_spoilt_key_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("nonsense")
    with pytest.raises(TrustError, match="signing key cannot be used"):
        open_signer(tmp_path, "holdfast/test")
    assert (tmp_path / "key").read_text() == "nonsense"


@pytest.mark.usefixtures("signer")
def test_a_public_key_of_another_is_noticed(tmp_path: Path) -> None:
    other = Signer("holdfast/test", Ed25519PrivateKey.generate())
    (tmp_path / "key.pub").write_text(f"{other.verifier}\n")
    with pytest.raises(TrustError, match="does not belong"):
        open_signer(tmp_path, "holdfast/test")
