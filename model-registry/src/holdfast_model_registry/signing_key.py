"""The registry's own key: it signs the manifest of each commit; made at first use.

`keys/registry.pem` (mode 0600) and `keys/registry.pub` in the data folder. Hosts and other
registries are given the public half by whoever installs them, never by the registry itself.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import BaseModel, ConfigDict, Field

from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.signing_envelope import (
    KeyFileError,
    TrustedKey,
    key_pem,
    read_private_key,
    read_public_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast_model_registry.signing_envelope import PrivateKey, PublicKey


class Signer(BaseModel):
    """Somebody whose model signatures and receipts are believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,79}$")]
    key: Annotated[str, Field(min_length=1)]  # PEM of a public key or certificate, or its file


@dataclass(frozen=True)
class RegistryKey:
    """The open key, and the name under which others know it."""

    private: PrivateKey
    trusted: TrustedKey


def trusted_keys(signers: Iterable[Signer], base: Path | None = None) -> tuple[TrustedKey, ...]:
    """Read the keys of the settings; a relative file starts at `base`. RegistryError names one."""
    return tuple(TrustedKey(signer.name, _key_of(signer, base)) for signer in signers)


def read_key_file(path: Path, name: str) -> TrustedKey:
    """Read a public key's PEM file under a name for it."""
    return TrustedKey(name, _key_of(Signer(name=name, key=str(path)), None))


def open_registry_key(data: Path) -> RegistryKey:
    """Read the key of the registry in a data folder, or make it. Processes may race for it."""
    private, public = data / "keys" / "registry.pem", data / "keys" / "registry.pub"
    try:
        if not private.exists():
            _make(private)
        key = read_private_key(private.read_bytes())
        if not public.exists():
            _write_once(public, key_pem(key.public_key()).encode(), 0o644)
        known = read_public_key(public.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError, KeyFileError) as error:
        raise RegistryError(
            "the registry's signing key cannot be used",
            where=str(private),
            cause=str(error),
            next_command="restore keys/ of the data folder from its backup",
        ) from error
    if key_pem(known) != key_pem(key.public_key()):
        raise RegistryError("registry.pub does not belong to registry.pem", where=str(public))
    return RegistryKey(key, TrustedKey("this registry", known))


def _make(private: Path) -> None:
    private.parent.mkdir(mode=0o755, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    _write_once(private, pem, 0o600)


def _write_once(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole, unless somebody else did meanwhile."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(fresh)
    fresh.unlink()


def _key_of(signer: Signer, base: Path | None) -> PublicKey:
    inline = "-----BEGIN" in signer.key
    path = Path(signer.key).expanduser()
    where = f"the key of {signer.name}" if inline else str(path)
    try:
        text = signer.key if inline else ((base or Path()) / path).read_text(encoding="ascii")
        return read_public_key(text)
    except (OSError, UnicodeDecodeError, KeyFileError) as error:
        raise RegistryError(
            f"the key of signer {signer.name} cannot be read", where=where, cause=str(error)
        ) from error
