"""OpenSSF model signatures (`model.sig`): an in-toto statement in a sigstore bundle, key mode.

The format is that of model-signing 1.x (`predicateType https://model_signing/signature/v1.0`); why
it is read here with `cryptography` and not by that package is ADR 0011. What is stricter than
there: every file of the revision must be covered but the signature itself and git's own files,
whatever paths the signature asks to ignore.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from holdfast_hub_protocol.identifiers import is_sha256
from holdfast_model_registry.signing_envelope import (
    STATEMENT_TYPE,
    Envelope,
    EnvelopeError,
    KeyFileError,
    certificate_key,
    key_hint,
    parse_json,
    read_envelope,
    sign,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from holdfast_model_registry.signing_envelope import PrivateKey, TrustedKey

SIGNATURE_FILE: Final = "model.sig"
MODEL_PREDICATE: Final = "https://model_signing/signature/v1.0"
BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
# What model-signing leaves out by itself; none of these is loaded by anything.
_UNSIGNED: Final = frozenset({SIGNATURE_FILE, ".gitattributes", ".gitignore"})
_UNSIGNED_FOLDERS: Final = (".git/", ".github/")


class SignatureState(StrEnum):
    """What is known of a revision's signature."""

    VERIFIED = "verified"  # by a trusted signer, over just these files
    ABSENT = "absent"
    UNTRUSTED = "untrusted"  # no signer of the settings made it
    MISMATCH = "mismatch"  # a trusted signer signed other files
    MALFORMED = "malformed"


@dataclass(frozen=True)
class ModelSignature:
    """The verdict on one revision's signature."""

    state: SignatureState
    detail: str
    signer: str = ""
    key: str = ""  # the key's hint: SHA-256 of its PEM
    manifest: Mapping[str, str] = field(default_factory=dict)  # path -> SHA-256, once verified

    @property
    def broken(self) -> bool:
        """Tell whether somebody altered something: never admitted, whatever a profile says."""
        return self.state in {SignatureState.MISMATCH, SignatureState.MALFORMED}

    def as_json(self) -> dict[str, str]:
        """Return the verdict as commands and pages show it."""
        return {
            "state": self.state.value,
            "signer": self.signer,
            "key": self.key,
            "detail": self.detail,
        }


def check_signature(
    content: bytes | None, files: Mapping[str, str], trusted: Sequence[TrustedKey]
) -> ModelSignature:
    """Judge `model.sig` (None: there is none) against `files`: path -> SHA-256 of the revision."""
    if content is None:
        return ModelSignature(SignatureState.ABSENT, f"no {SIGNATURE_FILE} in this revision")
    try:
        envelope = read_bundle(content)
        signer = envelope.signer(trusted)
        if signer is None:
            return _unverified(envelope, trusted)
        signed = _signed_files(envelope.statement(MODEL_PREDICATE))
    except EnvelopeError as error:
        return ModelSignature(SignatureState.MALFORMED, f"{SIGNATURE_FILE}: {error}")
    if differences := _differences(signed, files):
        detail = "; ".join(differences)
        return ModelSignature(SignatureState.MISMATCH, detail, signer.name, signer.hint)
    detail = f"{len(signed)} files signed by {signer.name}"
    return ModelSignature(SignatureState.VERIFIED, detail, signer.name, signer.hint, signed)


def sign_files(files: Mapping[str, str], name: str, key: PrivateKey) -> bytes:
    """Return a `model.sig` over path -> SHA-256, as model-signing writes and reads it.

    model-signing reads signatures by P-256, P-384 and P-521 keys only.
    """
    covered = {path: sha256 for path, sha256 in files.items() if not _is_unsigned(path)}
    ordered = sorted(covered.items(), key=lambda item: item[0].split("/"))
    root = hashlib.sha256(b"".join(bytes.fromhex(sha256) for _, sha256 in ordered))
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root.hexdigest()}}],
        "predicateType": MODEL_PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_FILE, ".git", ".gitattributes", ".github", ".gitignore"],
            },
            "resources": [
                {"name": path, "algorithm": "sha256", "digest": sha256} for path, sha256 in ordered
            ],
        },
    }
    return write_bundle(statement, key)


def write_bundle(statement: dict[str, Any], key: PrivateKey) -> bytes:
    """Return a sigstore bundle v0.3 around a statement, signed by a bare key."""
    document = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": key_hint(key.public_key())},
            "tlogEntries": [],
        },
        "dsseEnvelope": sign(statement, key),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def read_bundle(content: bytes) -> Envelope:
    """Read a sigstore bundle v0.3 that carries an envelope; EnvelopeError says why it is none."""
    document = parse_json(content, "the sigstore bundle")
    if document.get("mediaType") != BUNDLE_TYPE:
        raise EnvelopeError(f"media type {document.get('mediaType')!r:.80}, expected {BUNDLE_TYPE}")
    material = document.get("verificationMaterial")
    if not isinstance(material, dict):
        raise EnvelopeError("no verification material")
    return read_envelope(document.get("dsseEnvelope"), _hint(material))


def _hint(material: dict[str, Any]) -> str:
    """Return which key a bundle names; a certificate is read for its key alone, not for trust."""
    chain = material.get("x509CertificateChain")
    if isinstance(chain, dict):
        try:
            return key_hint(certificate_key(_decoded(chain["certificates"][0]["rawBytes"])))
        except (KeyError, IndexError, TypeError, KeyFileError) as error:
            raise EnvelopeError(f"the certificate chain cannot be read: {error}") from error
    named = material.get("publicKey")
    hint = named.get("hint") if isinstance(named, dict) else None
    return hint if isinstance(hint, str) else ""


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise EnvelopeError("a certificate is not base64 text")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise EnvelopeError(f"a certificate is not base64: {error}") from error


def _unverified(envelope: Envelope, trusted: Sequence[TrustedKey]) -> ModelSignature:
    named = next((each for each in trusted if each.hint == envelope.hint), None)
    if named is not None:
        return ModelSignature(
            SignatureState.MALFORMED,
            f"it names the key of {named.name}, whose signature this is not",
            signer=named.name,
            key=named.hint,
        )
    by = f"by key {envelope.hint[:16]}" if envelope.hint else "by a key it does not name"
    known = ", ".join(each.name for each in trusted) or "none"
    return ModelSignature(
        SignatureState.UNTRUSTED, f"signed {by}; signers known here: {known}", key=envelope.hint
    )


def _signed_files(statement: dict[str, Any]) -> dict[str, str]:
    """Return path -> SHA-256 that a verified statement speaks of."""
    try:
        predicate = statement["predicate"]
        method = predicate["serialization"]["method"]
        hashed = predicate["serialization"]["hash_type"]
        if (method, hashed) != ("files", "sha256"):
            raise EnvelopeError(f"signed by {method} with {hashed}; sign by files with sha256")
        root = hashlib.sha256()
        signed: dict[str, str] = {}
        for resource in predicate["resources"]:
            name, sha256 = resource["name"], resource["digest"]
            if resource["algorithm"] != "sha256" or not is_sha256(sha256) or name in signed:
                raise EnvelopeError(f"malformed entry for {name!r:.200}")
            signed[name] = sha256
            root.update(bytes.fromhex(sha256))
        (subject,) = statement["subject"]
        if subject["digest"]["sha256"] != root.hexdigest():
            raise EnvelopeError("the statement's own digest is not that of its files")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, EnvelopeError):
            raise
        raise EnvelopeError(f"not a model signature's statement: {error!r:.200}") from error
    return signed


def _differences(signed: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
    unsigned = [path for path in files if path not in signed and not _is_unsigned(path)]
    missing = [path for path in signed if path not in files]
    altered = [path for path, sha256 in files.items() if signed.get(path, sha256) != sha256]
    found = ((unsigned, "not signed"), (missing, "signed but not here"), (altered, "altered"))
    return [f"{what}: {_some(paths)}" for paths, what in found if paths]


def _some(paths: Iterable[str], most: int = 5) -> str:
    listed = sorted(paths)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _is_unsigned(path: str) -> bool:
    return path in _UNSIGNED or path.startswith(_UNSIGNED_FOLDERS)
