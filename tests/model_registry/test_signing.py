from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.signing import (
    SignatureState,
    check_signature,
    sign_files,
    write_bundle,
)
from holdfast_model_registry.signing_envelope import (
    EnvelopeError,
    KeyFileError,
    TrustedKey,
    key_pem,
    parse_envelope,
    read_private_key,
    read_public_key,
    sign,
)
from holdfast_model_registry.signing_key import Signer, open_registry_key, trusted_keys

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_model_registry.signing_envelope import PrivateKey

FILES = {"README.md": "a" * 64, "a/w.safetensors": "b" * 64, "a-b": "c" * 64, "model.sig": "d" * 64}
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP384R1())
LAB = TrustedKey("lab", KEY.public_key())


def payload(signature: bytes) -> dict[str, Any]:
    """Return what a signature signs."""
    found: dict[str, Any] = json.loads(
        base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"])
    )
    return found


def signed_again(statement: dict[str, Any]) -> bytes:
    return write_bundle(statement, KEY)


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        OTHER,
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_a_trusted_signature_over_just_these_files_is_verified(key: PrivateKey) -> None:
    verdict = check_signature(
        sign_files(FILES, "tiny", key), FILES, [LAB, TrustedKey("it", key.public_key())]
    )
    assert verdict.state is SignatureState.VERIFIED
    assert verdict.signer == ("lab" if key is KEY else "it")
    assert dict(verdict.manifest) == {
        path: sha256 for path, sha256 in FILES.items() if path != "model.sig"
    }


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (FILES | {"a-b": "0" * 64}, "altered: a-b"),
        (FILES | {"extra.bin": "0" * 64}, "not signed: extra.bin"),
        ({"README.md": "a" * 64}, "signed but not here: a-b, a/w.safetensors"),
    ],
)
def test_a_trusted_signature_over_other_files_says_which(files: dict[str, str], what: str) -> None:
    verdict = check_signature(sign_files(FILES, "tiny", KEY), files, [LAB])
    assert (verdict.state, verdict.detail) == (SignatureState.MISMATCH, what)
    assert verdict.broken


def test_what_a_signature_asks_to_ignore_is_not_ignored() -> None:
    statement = payload(sign_files({"README.md": "a" * 64}, "tiny", KEY))
    statement["predicate"]["serialization"]["ignore_paths"].append("w.safetensors")
    files = {"README.md": "a" * 64, "w.safetensors": "b" * 64}
    verdict = check_signature(signed_again(statement), files, [LAB])
    assert (verdict.state, verdict.detail) == (
        SignatureState.MISMATCH,
        "not signed: w.safetensors",
    )


def test_git_files_need_no_signature_but_may_have_one() -> None:
    files = FILES | {".gitattributes": "e" * 64, ".github/x.yml": "f" * 64}
    assert check_signature(sign_files(FILES, "t", KEY), files, [LAB]).state == "verified"
    statement = payload(sign_files(FILES | {"z": "e" * 64}, "t", KEY))
    statement["predicate"]["resources"][-1]["name"] = ".gitattributes"
    assert check_signature(signed_again(statement), files, [LAB]).state == "verified"
    files[".gitattributes"] = "0" * 64
    assert check_signature(signed_again(statement), files, [LAB]).state == "mismatch"


def test_absent_unknown_and_forged_are_told_apart() -> None:
    assert check_signature(None, FILES, [LAB]).state is SignatureState.ABSENT
    unknown = check_signature(sign_files(FILES, "tiny", OTHER), FILES, [LAB])
    assert unknown.state is SignatureState.UNTRUSTED
    assert "signers known here: lab" in unknown.detail
    assert not unknown.broken
    forged = json.loads(sign_files(FILES, "tiny", OTHER))
    forged["verificationMaterial"]["publicKey"]["hint"] = LAB.hint
    verdict = check_signature(json.dumps(forged).encode(), FILES, [LAB])
    assert verdict.state is SignatureState.MALFORMED
    assert "lab" in verdict.detail


def test_a_byte_of_the_payload_makes_it_no_signature() -> None:
    document = json.loads(sign_files(FILES, "tiny", KEY))
    altered = json.dumps(payload(sign_files(FILES, "tiny", KEY))).replace("b" * 64, "9" * 64)
    document["dsseEnvelope"]["payload"] = base64.b64encode(altered.encode()).decode()
    verdict = check_signature(json.dumps(document).encode(), FILES, [LAB])
    assert verdict.state is SignatureState.MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        {"subject": []},
        {"subject": [{"name": "x", "digest": {"sha256": "0" * 64}}]},
        {"predicateType": "https://elsewhere/v1"},
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicate": {"serialization": {"method": "shards", "hash_type": "sha256"}}},
        {"predicate": {"serialization": {"method": "files", "hash_type": "blake3"}}},
        {"predicate": []},
    ],
)
def test_statements_that_are_no_model_signature(change: dict[str, Any]) -> None:
    statement = payload(sign_files(FILES, "tiny", KEY)) | change
    assert check_signature(signed_again(statement), FILES, [LAB]).state == "malformed"


def test_a_file_signed_twice_is_malformed() -> None:
    statement = payload(sign_files(FILES, "tiny", KEY))
    statement["predicate"]["resources"].append(statement["predicate"]["resources"][0])
    assert check_signature(signed_again(statement), FILES, [LAB]).state == "malformed"


@given(st.binary(max_size=300))
def test_any_bytes_are_judged(content: bytes) -> None:
    assert check_signature(content, FILES, [LAB]).state is SignatureState.MALFORMED


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    st.sampled_from(["mediaType", "verificationMaterial", "dsseEnvelope"]),
    json_values,
)
def test_any_json_in_any_place_is_judged(place: str, value: object) -> None:
    document = json.loads(sign_files(FILES, "tiny", KEY)) | {place: value}
    verdict = check_signature(json.dumps(document).encode(), FILES, [LAB])
    assert verdict.state in {SignatureState.MALFORMED, SignatureState.VERIFIED}
    assert verdict.state is not SignatureState.VERIFIED or place == "verificationMaterial"


@given(st.sampled_from(["subject", "predicate"]), json_values)
def test_any_signed_json_is_judged(place: str, value: object) -> None:
    statement = payload(sign_files(FILES, "tiny", KEY)) | {place: value}
    assert check_signature(signed_again(statement), FILES, [LAB]).state == "malformed"


def test_keys_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="not a PEM"):
        read_public_key("no key")
    with pytest.raises(KeyFileError, match="P-256"):
        read_public_key(key_pem(ec.generate_private_key(ec.SECP256K1()).public_key()))  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="signer lab cannot be read"):
        trusted_keys([Signer(name="lab", key="missing.pem")], tmp_path)
    (tmp_path / "lab.pem").write_text(key_pem(KEY.public_key()))
    for key in ("lab.pem", key_pem(KEY.public_key())):
        assert trusted_keys([Signer(name="lab", key=key)], tmp_path)[0].hint == LAB.hint


def test_the_registry_makes_its_key_once_and_refuses_a_swapped_half(tmp_path: Path) -> None:
    first = open_registry_key(tmp_path)
    assert (tmp_path / "keys/registry.pem").stat().st_mode & 0o777 == 0o600
    assert open_registry_key(tmp_path).trusted.hint == first.trusted.hint
    (tmp_path / "keys/registry.pub").write_text(key_pem(KEY.public_key()))
    with pytest.raises(RegistryError, match="does not belong"):
        open_registry_key(tmp_path)
    (tmp_path / "keys/registry.pem").write_text("damaged")
    with pytest.raises(RegistryError, match="cannot be used"):
        open_registry_key(tmp_path)


def test_a_bare_envelope_is_read_back_and_an_encrypted_key_opened() -> None:
    statement = {"_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "predicate": {}}
    envelope = parse_envelope(json.dumps(sign(statement, KEY)).encode())
    assert envelope.statement("x") == statement
    with pytest.raises(EnvelopeError, match="it speaks of 'x'"):
        envelope.statement("y")
    assert envelope.signer([LAB]) == LAB
    with pytest.raises(EnvelopeError, match="1 to 16"):
        parse_envelope(json.dumps(sign(statement, KEY) | {"signatures": []}).encode())
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert key_pem(read_private_key(pem).public_key()) == key_pem(KEY.public_key())
