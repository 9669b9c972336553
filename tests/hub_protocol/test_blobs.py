from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from holdfast_hub_protocol.blobs import (
    LEFTOVER_SECONDS,
    BlobStore,
    Content,
    DigestMismatchError,
    ReceivedFile,
    SizeMismatchError,
)
from holdfast_hub_protocol.git_objects import blob_id

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def test_content_is_received_piece_by_piece(store: BlobStore) -> None:
    with store.receive(len(CONTENT), git=True) as incoming:
        for first in range(0, len(CONTENT), 99_991):
            incoming.write(memoryview(CONTENT)[first : first + 99_991])
        assert not store.has(DIGEST, len(CONTENT))
        content = incoming.keep(DIGEST)
    assert content == Content(len(CONTENT), DIGEST, blob_id(CONTENT))
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert everything(store) == [store.path(DIGEST)]


def test_pieces_of_all_sizes_are_hashed_in_their_order(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large ones beside their writing; memory that is not theirs may be used again at once."""
    slow = ReceivedFile._hash

    def lag(self: ReceivedFile, data: bytes) -> None:
        time.sleep(0.02 if len(data) >= 1 << 20 else 0)
        slow(self, data)

    monkeypatch.setattr(ReceivedFile, "_hash", lag)
    memory = bytearray(3 << 20)
    content = b""
    pieces = [b"a" * (2 << 20), b"b", memory, b"c" * (1 << 20), memory, b"d" * (1 << 20)]
    with store.receive() as incoming:
        for number, piece in enumerate(pieces):
            memory[:] = bytes([number]) * len(memory)
            content += piece
            incoming.write(piece)
        kept = incoming.keep()
    assert kept.sha256 == hashlib.sha256(content).hexdigest()
    assert store.path(kept.sha256).read_bytes() == content


def test_received_over_a_damaged_blob_it_mends_it(store: BlobStore, source: Path) -> None:
    store.add(source, DIGEST, link=False)
    store.path(DIGEST).write_bytes(CONTENT[:-1] + b"x")
    with store.receive() as incoming:
        incoming.write(CONTENT)
        assert incoming.keep() == Content(len(CONTENT), DIGEST, "")
    assert store.path(DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("announced", "sent", "digest", "error"),
    [
        (3, b"four", None, SizeMismatchError),
        (5, b"four", None, SizeMismatchError),
        (4, b"four", DIGEST, DigestMismatchError),
        (None, b"four", DIGEST, DigestMismatchError),
    ],
)
def test_what_is_not_as_announced_leaves_nothing(
    store: BlobStore, announced: int | None, sent: bytes, digest: str | None, error: type[Exception]
) -> None:
    def receive() -> None:
        with store.receive(announced) as incoming:
            incoming.write(sent)
            incoming.keep(digest)

    with pytest.raises(error):
        receive()
    assert everything(store) == []


def test_what_is_not_kept_leaves_nothing(store: BlobStore) -> None:
    with store.receive() as incoming:
        incoming.write(CONTENT)
    assert everything(store) == []


def test_leftovers_of_killed_processes_go_when_they_are_old(store: BlobStore) -> None:
    for name, age in (("old", 2 * LEFTOVER_SECONDS), ("new", 60)):
        path = store.incoming / name
        path.write_bytes(b"half")
        os.utime(path, (0, time.time() - age))
    folder = store.incoming / "folder"
    folder.mkdir()
    (folder / "blob").write_bytes(b"half")
    os.utime(folder, (0, 0))
    store.create()
    assert [path.name for path in store.incoming.iterdir()] == ["new"]


def test_the_list_of_blobs_leaves_out_what_is_none(store: BlobStore, source: Path) -> None:
    store.add(source, DIGEST)
    (store.path(DIGEST).parent / "notes.txt").write_bytes(b"")
    (store.path(DIGEST).parent / ("0" * 64)).write_bytes(b"")  # in a folder of other digests
    (store.root / "sha256" / "README").write_bytes(b"")
    assert [(blob.sha256, blob.size) for blob in store.stored()] == [(DIGEST, len(CONTENT))]


def test_a_damaged_blob_is_set_aside(store: BlobStore, source: Path) -> None:
    store.add(source, DIGEST)
    store.set_aside(DIGEST)
    store.set_aside(DIGEST)
    assert not store.has(DIGEST, len(CONTENT))
    assert (store.damaged / DIGEST).read_bytes() == CONTENT
    with pytest.raises(FileNotFoundError):
        store.open(DIGEST)


def test_a_part_that_still_comes_in_cannot_change_a_blob(store: BlobStore) -> None:
    """A slow writer began before the completion: the completion waits, and sees what it wrote."""
    partial = store.partial("x")
    partial.write(0, [CONTENT], len(CONTENT))
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"w"
        begun.set()
        go_on.wait(10)
        yield b"X"

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(partial.write, 0, slowly(), 2)
        assert begun.wait(10)
        keeping = pool.submit(store.partial("x").keep, DIGEST)
        time.sleep(0.2)
        assert not keeping.done()
        go_on.set()
        writing.result(10)
        with pytest.raises(DigestMismatchError):
            keeping.result(10)
    assert not store.has(DIGEST, len(CONTENT))


def test_who_completes_second_or_writes_afterwards_finds_another_file(store: BlobStore) -> None:
    partial = store.partial("x")
    partial.write(0, [CONTENT], len(CONTENT))
    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(store.partial("x").keep, DIGEST) for _ in range(4)]
    failures = [end.exception() for end in ends if end.exception() is not None]
    assert len(failures) == 3
    assert all(isinstance(failure, FileNotFoundError) for failure in failures)
    partial.write(0, [b"other"], 5)
    assert store.path(DIGEST).read_bytes() == CONTENT
    partial.discard()
    assert everything(store) == [store.path(DIGEST)]
