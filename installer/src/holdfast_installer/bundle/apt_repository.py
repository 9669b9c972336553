"""The signed apt repository of a bundle: Packages, InRelease, and the key that belongs to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pysequoia

from holdfast_installer.bundle.digests import digest_of_bytes, hex_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast_installer.bundle.manifest import Artifact
    from holdfast_installer.bundle.store import Store

SUITE = "holdfast"
_OWNER = "Holdfast bundle archive"


@dataclass(frozen=True)
class Repository:
    """The three index files; the packages lie beside them as blobs."""

    packages: bytes
    in_release: bytes
    key: bytes

    def files(self) -> dict[str, bytes]:
        """Return artifact name -> content."""
        return {
            "apt/Packages": self.packages,
            "apt/InRelease": self.in_release,
            "apt/holdfast-archive.asc": self.key,
        }


def make(debs: Iterable[tuple[Artifact, str]], *, architecture: str, store: Store) -> Repository:
    """Index (artifact, control fields) pairs and sign the index.

    The key lives for one index: its secret half is never written. The index, signature and public
    half are remembered, so that the same packages give the same bytes.
    """
    stanzas = [
        f"{control}\nFilename: pool/{deb.filename}\n"
        f"Size: {deb.size}\nSHA256: {hex_of(deb.digest)}\n"
        for deb, control in sorted(debs, key=lambda pair: (pair[0].name, pair[0].version))
    ]
    packages = "\n".join(stanzas).encode()
    digest = digest_of_bytes(packages)
    known = store.recall("signed-indexes", digest)
    if known:
        fields = cast("dict[str, str]", known)
        return Repository(packages, fields["in_release"].encode(), fields["key"].encode())
    # Without an end: a site must be able to install long after its bundle was made.
    key = pysequoia.Tsk.generate(_OWNER, validity_seconds=None)
    release = _release(packages, architecture)
    signed = pysequoia.sign(key.signer(), release, mode=pysequoia.SignatureMode.CLEAR)
    public = str(key.extract_certificate()).encode()
    store.remember(
        "signed-indexes", digest, {"in_release": signed.decode(), "key": public.decode()}
    )
    return Repository(packages, signed, public)


def _release(packages: bytes, architecture: str) -> bytes:
    # No Valid-Until: a bundle does not spoil. Replay of an older one is the manifest's business.
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    digest = hashlib.sha256(packages).hexdigest()
    return (
        f"Origin: Holdfast\nLabel: Holdfast\nSuite: {SUITE}\nCodename: {SUITE}\nDate: {date}\n"
        f"Architectures: {architecture}\nComponents: main\nDescription: one bundle's packages\n"
        f"SHA256:\n {digest} {len(packages)} main/binary-{architecture}/Packages\n"
    ).encode()
