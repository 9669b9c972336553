from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from holdfast_hub_protocol.blobs import BlobStore, DigestMismatchError
from holdfast_hub_protocol.git_objects import blob_id

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"weights" * 400_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    store = BlobStore(tmp_path / "blobs")
    store.create()
    return store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def everything(store: BlobStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("link", [True, False])
def test_a_blob_is_stored_under_its_digest(store: BlobStore, source: Path, *, link: bool) -> None:
    content = store.add(source, DIGEST, link=link)
    assert content.git_oid == blob_id(CONTENT)
    path = store.path(DIGEST)
    assert path == store.root / "sha256" / DIGEST[:2] / DIGEST
    assert path.read_bytes() == CONTENT
    assert path.samefile(source) == link
    assert store.has(DIGEST, len(CONTENT))
    assert not store.has(DIGEST, 1)
    assert everything(store) == [path]
    store.add(source, DIGEST, link=link)


def test_a_flipped_byte_is_not_stored(store: BlobStore, source: Path) -> None:
    source.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(DigestMismatchError, match=DIGEST):
        store.add(source, DIGEST)
    assert everything(store) == []
    assert source.exists()


def test_a_missing_source_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.add(tmp_path / "absent", DIGEST)
    assert everything(store) == []


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EXDEV, errno.EMLINK])
def test_where_it_cannot_link_it_copies(
    store: BlobStore, source: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", refuse)
    store.add(source, DIGEST)
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert not store.path(DIGEST).samefile(source)


@pytest.mark.parametrize(
    "digest", ["", "../../etc/passwd", DIGEST.upper(), DIGEST + "\n", "0" * 63]
)
def test_only_digests_name_blobs(store: BlobStore, digest: str) -> None:
    with pytest.raises(ValueError, match="not a SHA-256"):
        store.path(digest)
