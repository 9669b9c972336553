"""DSSE envelopes around in-toto statements, signed and verified with keys alone, offline.

One form for everything signed here: the OpenSSF model signature and the training receipt (both in a
sigstore bundle), and the registry's own commit manifests. No certificate authority, transparency
log or clock is asked; a key is trusted because somebody put it into the settings.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
MAX_SIZE: Final = 64 << 20  # bytes: a manifest of 100,000 files has about 20 MB
_HASH_OF_CURVE: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


class EnvelopeError(ValueError):
    """Bytes that are no envelope, or no statement in one."""


class KeyFileError(ValueError):
    """Text that holds no key this registry can use."""


@dataclass(frozen=True)
class TrustedKey:
    """A public key with the name of whoever signs with it."""

    name: str
    key: PublicKey

    @property
    def hint(self) -> str:
        """SHA-256 over the key's PEM text, in hex: how a sigstore bundle names a bare key."""
        return key_hint(self.key)


@dataclass(frozen=True)
class Envelope:
    """What was signed, and by whose hand it says it was; nothing of it is verified yet."""

    payload: bytes
    signatures: tuple[bytes, ...]
    hint: str = ""  # names the key; empty where the envelope does not say

    def signer(self, trusted: Sequence[TrustedKey]) -> TrustedKey | None:
        """Return the trusted key whose signature this carries, None if there is none."""
        message = pre_authentication(self.payload)
        for each in trusted:
            if any(_verifies(each.key, signature, message) for signature in self.signatures):
                return each
        return None

    def statement(self, predicate: str) -> dict[str, Any]:
        """Return the in-toto statement with this type of predicate; EnvelopeError if it is none."""
        document = _parse(self.payload, "the signed statement")
        if document.get("_type") != STATEMENT_TYPE:
            raise EnvelopeError(f"not an in-toto statement v1: {document.get('_type')!r:.80}")
        if document.get("predicateType") != predicate:
            raise EnvelopeError(f"it speaks of {document.get('predicateType')!r:.80}")
        return document


def pre_authentication(payload: bytes) -> bytes:
    """Return the bytes that DSSE signs (DSSE v1.0.0, PAE)."""
    head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} "
    return head.encode() + payload


def sign(statement: dict[str, Any], key: PrivateKey) -> dict[str, Any]:
    """Return the DSSE envelope of a statement, as JSON data."""
    payload = json.dumps(
        statement, separators=(",", ":"), sort_keys=True, ensure_ascii=False
    ).encode()
    message = pre_authentication(payload)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        signature = key.sign(message)
    else:
        signature = key.sign(message, ec.ECDSA(_HASH_OF_CURVE[key.curve.name]))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }


def read_envelope(document: object, hint: str = "") -> Envelope:
    """Read a DSSE envelope from JSON data; EnvelopeError says what is wrong with it."""
    if not isinstance(document, dict):
        raise EnvelopeError("the envelope is not an object")
    if document.get("payloadType") != PAYLOAD_TYPE:
        raise EnvelopeError(f"payload type {document.get('payloadType')!r:.80}")
    signatures = document.get("signatures")
    if not isinstance(signatures, list) or not 0 < len(signatures) <= 16:
        raise EnvelopeError("an envelope carries 1 to 16 signatures")
    return Envelope(
        payload=_bytes(document.get("payload")),
        signatures=tuple(
            _bytes(each.get("sig") if isinstance(each, dict) else None) for each in signatures
        ),
        hint=hint,
    )


def parse_envelope(content: bytes) -> Envelope:
    """Read a bare DSSE envelope from its JSON text."""
    return read_envelope(_parse(content, "the envelope"))


def parse_json(content: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object of bounded size; EnvelopeError names `what` is not one."""
    return _parse(content, what)


def read_public_key(text: str) -> PublicKey:
    """Read a PEM public key, or the key of a PEM certificate: P-256, P-384, P-521 or Ed25519."""
    try:
        if "BEGIN CERTIFICATE" in text:
            return _usable(x509.load_pem_x509_certificate(text.encode()).public_key())
        return _usable(load_pem_public_key(text.encode()))
    except (ValueError, UnsupportedAlgorithm) as error:
        if isinstance(error, KeyFileError):
            raise
        raise KeyFileError(f"not a PEM public key or certificate: {error}") from error


def read_private_key(content: bytes, password: bytes | None = None) -> PrivateKey:
    """Read a PEM private key of one of the same kinds."""
    try:
        key = load_pem_private_key(content, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"not a PEM private key: {error}") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _HASH_OF_CURVE:
        return key
    raise KeyFileError("the key is not of P-256, P-384, P-521 or Ed25519")


def key_pem(key: PublicKey) -> str:
    """Return a public key as PEM text."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_hint(key: PublicKey) -> str:
    """Return the SHA-256 over a key's PEM text, in hex."""
    return hashlib.sha256(key_pem(key).encode()).hexdigest()


def certificate_key(der: bytes) -> PublicKey:
    """Return the key of a DER certificate; EnvelopeError if there is no usable one in it."""
    try:
        return _usable(x509.load_der_x509_certificate(der).public_key())
    except (ValueError, UnsupportedAlgorithm) as error:  # KeyFileError is a ValueError
        raise EnvelopeError(f"the certificate cannot be read: {error}") from error


def _usable(key: object) -> PublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASH_OF_CURVE:
        return key
    raise KeyFileError("the key is not of P-256, P-384, P-521 or Ed25519")


def _verifies(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(_HASH_OF_CURVE[key.curve.name]))
    except InvalidSignature:
        return False
    return True


def _parse(content: bytes, what: str) -> dict[str, Any]:
    if len(content) > MAX_SIZE:
        raise EnvelopeError(f"{what} has more than {MAX_SIZE} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise EnvelopeError(f"{what} is not JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise EnvelopeError(f"{what} is not a JSON object")
    return document


def _bytes(encoded: object) -> bytes:
    if not isinstance(encoded, str):
        raise EnvelopeError("expected base64 text")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EnvelopeError(f"not base64: {error}") from error
