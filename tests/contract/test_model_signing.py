"""Model signatures of OpenSSF's own program verify here, and ours verify there; offline, by key."""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from client_environment import interpreter
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from registry_parts import make_model

from holdfast_model_registry.signing import check_signature, sign_files
from holdfast_model_registry.signing_envelope import TrustedKey, key_pem

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.contract
# Whatever tries to leave this machine ends at once, and fails the test.
CLOSED = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}


def model_signing(*words: str | Path) -> subprocess.CompletedProcess[str]:
    python = interpreter("model-signing")
    return subprocess.run(
        [python, "-m", "model_signing", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | CLOSED,
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = make_model(tmp_path / "tiny", weights=40_000)
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    # Names that sort otherwise by path than by text.
    (folder / "tokenizer-2.txt").write_text("2")
    return folder


@pytest.fixture(params=[ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def key(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, TrustedKey]:
    """Return the file of a new private key, with the public one beside it."""
    private = ec.generate_private_key(request.param)
    path = tmp_path / "signer.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.with_suffix(".pub").write_text(key_pem(private.public_key()))
    return path, TrustedKey("lab", private.public_key())


def test_its_signature_verifies_here(model: Path, key: tuple[Path, TrustedKey]) -> None:
    path, trusted = key
    signature = model / "model.sig"
    done = model_signing("sign", "key", model, "--private_key", path, "--signature", signature)
    assert done.returncode == 0, done.stderr
    verdict = check_signature(signature.read_bytes(), digests(model), [trusted])
    assert verdict.state == "verified", verdict
    (model / "config.json").write_text("{}")
    verdict = check_signature(signature.read_bytes(), digests(model), [trusted])
    assert (verdict.state, verdict.detail) == ("mismatch", "altered: config.json")


def test_our_signature_verifies_there(model: Path, key: tuple[Path, TrustedKey]) -> None:
    from holdfast_model_registry.signing_envelope import read_private_key

    path, _ = key
    signature = model / "model.sig"
    signature.write_bytes(sign_files(digests(model), "tiny", read_private_key(path.read_bytes())))
    verify = ("verify", "key", model, "--signature", signature)
    done = model_signing(*verify, "--public_key", path.with_suffix(".pub"))
    assert done.returncode == 0, done.stderr + done.stdout
    (model / "config.json").write_text("{}")
    done = model_signing(*verify, "--public_key", path.with_suffix(".pub"))
    assert done.returncode != 0
    assert "config.json" in done.stderr + done.stdout


def test_a_signature_by_certificate_is_told_by_its_key(tmp_path: Path, model: Path) -> None:
    key = tmp_path / "signer.pem"
    certificate = tmp_path / "signer.crt"
    make = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    names = ("-nodes", "-subj", "/CN=signer", "-addext", "keyUsage=critical,digitalSignature")
    subprocess.run(
        [*make, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    signature = model / "model.sig"
    words = ("--private_key", key, "--signing_certificate", certificate)
    chain = ("--certificate_chain", certificate, "--signature", signature)
    done = model_signing("sign", "certificate", model, *words, *chain)
    assert done.returncode == 0, done.stderr
    from holdfast_model_registry.signing_envelope import read_public_key

    trusted = TrustedKey("by certificate", read_public_key(certificate.read_text()))
    assert check_signature(signature.read_bytes(), digests(model), [trusted]).state == "verified"
    assert check_signature(signature.read_bytes(), digests(model), []).state == "untrusted"


def test_what_is_signed_in_shards_or_by_another_hash_is_said_so(
    model: Path, key: tuple[Path, TrustedKey]
) -> None:
    path, trusted = key
    program = (
        "import sys, model_signing as m; c = m.hashing.Config();"
        "c = c.use_file_serialization(hashing_algorithm='blake2');"
        "c = c.set_ignored_paths(paths=[sys.argv[3]]);"
        "m.signing.Config().use_elliptic_key_signer(private_key=sys.argv[2])"
        ".set_hashing_config(c).sign(sys.argv[1], sys.argv[3])"
    )
    signature = model / "model.sig"
    python = interpreter("model-signing")
    done = subprocess.run(
        [python, "-c", program, model, path, signature],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | CLOSED,
    )
    assert done.returncode == 0, done.stderr
    verdict = check_signature(signature.read_bytes(), digests(model), [trusted])
    assert verdict.state == "malformed"
    assert "sign by files with sha256" in verdict.detail
