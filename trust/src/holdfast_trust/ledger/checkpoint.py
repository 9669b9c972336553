"""Signed checkpoints: the size and root of a log at a moment, as a C2SP signed note.

    holdfast/identity/3f9a...        the log's origin
    42                               entries
    <base64 root hash>
    time 2026-11-20T08:00:00Z        an extension line
                                     (empty)
    — <origin> <base64 of 4 bytes of key id and the ed25519 signature>

The form is the one that transparency-log witnesses speak (c2sp.org/tlog-checkpoint), so that a
checkpoint can be kept and compared by somebody who is not us.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from pathlib import Path

_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_HASH_BYTES = 32
_DASH = "\N{EM DASH}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's state at a moment: `size` entries whose tree has `root`; `note` is signed."""

    origin: str
    size: int
    root: bytes
    time: str
    note: str


@dataclass(frozen=True, slots=True)
class Verifier:
    """A log's public key: `name+hex key id+base64` as text, the form witnesses use."""

    name: str
    key: Ed25519PublicKey

    @property
    def key_id(self) -> bytes:
        """The four bytes that tell keys of one name apart."""
        raw = self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + raw).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        raw = self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + raw).decode()}"

    @staticmethod
    def parse(text: str) -> Verifier:
        """Read the text form; `ValueError` says what is wrong with it."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = _decode(encoded)
        if not name or raw[:1] != _ED25519 or len(raw) != _HASH_BYTES + 1:
            raise ValueError("not an ed25519 key in the form name+id+key")
        verifier = Verifier(name, Ed25519PublicKey.from_public_bytes(raw[1:]))
        if verifier.key_id.hex() != key_id:
            raise ValueError("the key does not have the id it is written with")
        return verifier

    def open(self, note: str) -> Checkpoint:
        """Check the signature of `note` and return what it says; `ValueError` says why not."""
        text, found, signatures = note.rpartition("\n\n")
        text += "\n"
        if not found:
            raise ValueError("the note carries no signature")
        for line in signatures.splitlines():
            dash, _, rest = line.partition(" ")
            name, _, encoded = rest.partition(" ")
            if dash != _DASH or name != self.name:
                continue
            blob = _decode(encoded)
            if blob[:_KEY_ID_BYTES] != self.key_id:
                continue
            try:
                self.key.verify(blob[_KEY_ID_BYTES:], text.encode())
            except InvalidSignature:
                raise ValueError("the signature does not fit the text") from None
            return _parsed(text, note)
        raise ValueError(f"no signature by {self.name} with key {self.key_id.hex()}")


@dataclass(frozen=True, slots=True)
class Signer:
    """A log's private key, under its origin."""

    name: str
    key: Ed25519PrivateKey

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self.key.public_key())

    def sign(self, size: int, root: bytes, time: str) -> Checkpoint:
        """Sign the state of the log at `time` (RFC 3339, UTC)."""
        text = f"{self.name}\n{size}\n{base64.b64encode(root).decode()}\ntime {time}\n"
        blob = base64.b64encode(self.verifier.key_id + self.key.sign(text.encode())).decode()
        return Checkpoint(self.name, size, root, time, f"{text}\n{_DASH} {self.name} {blob}\n")


def open_signer(folder: Path, origin: str) -> Signer:
    """Read the signing key of the ledger in `folder`, or make it on first use (mode 0600)."""
    private, public = folder / "key", folder / "key.pub"
    try:
        if not private.exists():
            return _make(private, public, origin)
        key = load_pem_private_key(private.read_bytes(), password=None)
        verifier = Verifier.parse(public.read_text(encoding="utf-8"))
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise TrustError(
            "the ledger's signing key cannot be used",
            where=str(private),
            cause=str(error),
            next_command="restore key and key.pub from where they were kept; "
            "without them this ledger can be verified but not continued",
        ) from error
    if not isinstance(key, Ed25519PrivateKey) or not _same(key.public_key(), verifier.key):
        raise TrustError("the ledger's key.pub does not belong to its key", where=str(public))
    return Signer(verifier.name, key)


def _make(private: Path, public: Path, origin: str) -> Signer:
    # The random part keeps two ledgers of one name from being taken for forks of each other.
    name = re.sub(r"[^A-Za-z0-9._/-]", "-", origin)  # a note's key name has no spaces or pluses
    signer = Signer(f"{name}/{secrets.token_hex(8)}", Ed25519PrivateKey.generate())
    pem = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # The public half goes first: a kill in between leaves no private key without its name.
    for path, data, mode in (
        (public, f"{signer.verifier}\n".encode(), 0o644),
        (private, pem, 0o600),
    ):
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    return signer


def _same(one: Ed25519PublicKey, other: Ed25519PublicKey) -> bool:
    return one.public_bytes(Encoding.Raw, PublicFormat.Raw) == other.public_bytes(
        Encoding.Raw, PublicFormat.Raw
    )


def _decode(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


def _parsed(text: str, note: str) -> Checkpoint:
    origin, size, root, *extensions = text.rstrip("\n").split("\n")
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", size):
        raise ValueError(f"{size!r} is not a number of entries")
    digest = _decode(root)
    if len(digest) != _HASH_BYTES:
        raise ValueError("the root hash has not 32 bytes")
    times = [line.removeprefix("time ") for line in extensions if line.startswith("time ")]
    return Checkpoint(origin, int(size), digest, times[0] if times else "", note)
