"""Staged xorbs: taken in whole, found again in blobs, forgotten in time."""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from xet_parts import File, Xorb, shard

from holdfast_hub_protocol.blobs import BlobStore
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.records import Repository
from holdfast_hub_protocol.xet import staged
from holdfast_hub_protocol.xet.building import Builder, note
from holdfast_hub_protocol.xet.errors import MissingXorbError, WrongContentError, XetError
from holdfast_hub_protocol.xet.shards import read_files
from holdfast_hub_protocol.xet.staged import Epoch, XorbStore
from holdfast_hub_protocol.xet.xorbs import Segment

if TYPE_CHECKING:
    from pathlib import Path

DAY = 24 * 3600


def repository(key: int = 1, created: int = 2026) -> Repository:
    moment = datetime(created, 1, 1, tzinfo=UTC)
    return Repository(key, RepositoryId.parse("org/name"), moment, moment)


@pytest.fixture
def store(tmp_path: Path) -> XorbStore:
    return XorbStore(tmp_path / "xet")


@pytest.fixture
def epoch(store: XorbStore) -> Epoch:
    return store.current(repository())


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    made = BlobStore(tmp_path / "blobs")
    made.create()
    return made


def xorb(seed: int = 0, chunks: int = 10) -> Xorb:
    numbers = random.Random(seed)
    return Xorb([numbers.randbytes(numbers.randrange(1, 3000)) for _ in range(chunks)])


def names(epoch: Epoch) -> set[str]:
    return {path.name.partition(".")[2] for path in epoch.folder.iterdir()} - {""}


def build(epoch: Epoch, blobs: BlobStore, *files: File) -> list[str]:
    """Build the files of a shard; return their digests."""
    builder = Builder(epoch, blobs, lambda _: None)
    listed = list(read_files(memoryview(shard(files))))
    for file in listed:
        builder.check(file)
    digests = [builder.build(file).sha256 for file in listed]
    note(epoch, zip(listed, digests, strict=True))
    return digests


def test_an_epoch_lasts_until_it_is_ended(store: XorbStore, epoch: Epoch) -> None:
    assert store.current(repository()).name == epoch.name
    assert store.epoch(repository(), epoch.name) is not None
    assert store.epoch(repository(2), epoch.name) is None
    assert store.epoch(repository(created=2027), epoch.name) is None
    for wrong in ("", "..", "current", "0" * 16, epoch.name + "/"):
        assert store.epoch(repository(), wrong) is None
    epoch.end()
    following = store.current(repository())
    assert following.name != epoch.name
    epoch.end()  # of an epoch that is over: nothing
    assert store.current(repository()).name == following.name
    assert store.epoch(repository(), epoch.name) is not None, "uploads under way may end"


def test_a_xorb_is_there_whole_or_not_at_all(epoch: Epoch) -> None:
    good = xorb()
    with pytest.raises(XetError, match="has hash"):
        epoch.receive(bytes(32), [good.stored])
    with pytest.raises(XetError):
        epoch.receive(good.hash, [good.stored[:-1]])
    assert names(epoch) == set()
    with pytest.raises(MissingXorbError):
        epoch.index(good.hash)
    index = epoch.receive(good.hash, [good.stored])
    assert index is not None
    assert epoch.index(good.hash) == index
    assert names(epoch) == {"data", "index"}
    assert epoch.receive(good.hash, iter([good.stored])) is None


def test_the_disk_fills_up(epoch: Epoch, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staged.os, "writev", full)
    with pytest.raises(OSError, match="space"):
        epoch.receive(xorb().hash, [xorb().stored])
    assert names(epoch) == set()


def test_a_short_write_is_gone_on_with(epoch: Epoch, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(staged.os, "writev", lambda fd, data: real(fd, [b"".join(data)[:1000]]))
    good = xorb()
    epoch.receive(good.hash, [good.stored])
    content = (epoch.folder / f"{good.url_hash}.data").read_bytes()
    assert content == b"".join(good.contents)


def test_files_are_built_of_runs_and_xorbs_then_live_in_them(
    epoch: Epoch, blobs: BlobStore
) -> None:
    one, two = xorb(1), xorb(2)
    for each in (one, two):
        epoch.receive(each.hash, [each.stored])
    first = File([(one, 0, 10), (two, 3, 5), (one, 4, 6)])
    assert build(epoch, blobs, first) == [first.digest]
    assert blobs.path(first.digest).read_bytes() == first.content
    assert epoch.open_data(one.hash) is None, "all of it is in the file"
    descriptor = epoch.open_data(two.hash)
    assert descriptor is not None
    os.close(descriptor)
    # From what is in blobs now, from what is still staged, and from both.
    second = File([(one, 2, 7), (two, 0, 10)])
    assert build(epoch, blobs, second) == [second.digest]
    assert epoch.open_data(two.hash) is None
    assert [(s.start, s.end) for s in epoch.index(two.hash).segments] == [(0, 3), (3, 5), (5, 10)]
    third = File([(two, 1, 9), (one, 9, 10)])
    assert build(epoch, blobs, third) == [third.digest]
    assert blobs.path(third.digest).read_bytes() == third.content


def test_many_runs_are_noted_in_turn(
    epoch: Epoch, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_hub_protocol.xet.building._NOTED_AT_ONCE", 3)
    monkeypatch.setattr("holdfast_hub_protocol.xet.building._INDEXES", 1)
    one, two = xorb(1), xorb(2)
    for each in (one, two):
        epoch.receive(each.hash, [each.stored])
    file = File([(each, start, start + 1) for start in range(10) for each in (one, two)])
    assert build(epoch, blobs, file) == [file.digest]
    assert epoch.open_data(one.hash) is epoch.open_data(two.hash) is None
    whole = File([(two, 0, 10), (one, 0, 10)])
    assert build(epoch, blobs, whole) == [whole.digest]


def test_a_file_whose_digest_nobody_said(epoch: Epoch, blobs: BlobStore) -> None:
    one = xorb()
    epoch.receive(one.hash, [one.stored])
    file = File([(one, 0, 4)], sha256="")
    assert build(epoch, blobs, file) == [file.digest]


def test_wrong_files_are_not_built(epoch: Epoch, blobs: BlobStore) -> None:
    one, two = xorb(1), xorb(2, chunks=3)
    epoch.receive(one.hash, [one.stored])
    with pytest.raises(MissingXorbError):
        build(epoch, blobs, File([(two, 0, 1)]))
    epoch.receive(two.hash, [two.stored])
    with pytest.raises(XetError, match="other chunks"):
        build(epoch, blobs, File([(one, 0, 3)], wrong_proof=True))
    with pytest.raises(WrongContentError):
        build(epoch, blobs, File([(one, 0, 3)], sha256="ab" * 32))
    longer = Xorb([*two.contents, b"one more"])
    listed = memoryview(shard([File([(longer, 0, 4)])]).replace(longer.hash, two.hash))
    with pytest.raises(XetError, match="does not have"):
        Builder(epoch, blobs, lambda _: None).check(next(read_files(listed)))
    assert list(blobs.stored()) == []
    assert list(blobs.incoming.iterdir()) == []
    assert epoch.open_data(one.hash) is not None


def test_a_blob_that_is_gone_or_cut_off(epoch: Epoch, blobs: BlobStore) -> None:
    one = xorb()
    epoch.receive(one.hash, [one.stored])
    [digest] = build(epoch, blobs, File([(one, 0, 10)]))
    blobs.path(digest).write_bytes(b"short")
    with pytest.raises(MissingXorbError):
        build(epoch, blobs, File([(one, 1, 9)]))
    blobs.remove(digest)
    with pytest.raises(MissingXorbError):
        build(epoch, blobs, File([(one, 1, 9)]))


def test_a_known_blob_is_found_or_not(epoch: Epoch, blobs: BlobStore, tmp_path: Path) -> None:
    one = xorb()
    epoch.receive(one.hash, [one.stored])
    file = File([(one, 0, 10)])
    [listed] = read_files(memoryview(shard([file])))
    builder = Builder(epoch, blobs, lambda _: None)
    assert not builder.find(listed, file.digest)
    (tmp_path / "file").write_bytes(file.content)
    blobs.add(tmp_path / "file", file.digest, link=False)
    damaged = bytearray(file.content)
    damaged[-1] ^= 1
    blobs.path(file.digest).write_bytes(damaged)
    assert not builder.find(listed, file.digest)
    assert names(epoch) == {"data", "index"}
    blobs.path(file.digest).write_bytes(file.content)
    assert builder.find(listed, file.digest)


def test_a_damaged_index_is_as_none(epoch: Epoch) -> None:
    one = xorb()
    epoch.receive(one.hash, [one.stored])
    (epoch.folder / f"{one.url_hash}.index").write_bytes(b"")
    with pytest.raises(MissingXorbError):
        epoch.index(one.hash)


def test_overlapping_segments_are_kept_once(epoch: Epoch) -> None:
    one = xorb()
    epoch.receive(one.hash, [one.stored])
    for start, end in [(4, 6), (5, 8), (0, 10), (0, 10)]:
        epoch.note({one.hash: [Segment(start, end, "ab" * 32, 100 * start)]})
    index = epoch.index(one.hash)
    runs = [(segment.start, segment.end) for segment in index.segments]
    assert runs == [(0, 4), (4, 6), (6, 8), (8, 10)]
    offsets = index.offsets()
    assert index.segments[2].offset == 500 + offsets[6] - offsets[5]
    assert index.segments[3].offset == offsets[8]


def age(epoch: Epoch, days: float) -> None:
    then = time.time() - days * DAY
    for path in epoch.folder.iterdir():
        os.utime(path, (then, then))
    os.utime(epoch.folder, (then, then))


def test_what_was_uploaded_and_never_used_goes_after_two_days(
    store: XorbStore, epoch: Epoch, blobs: BlobStore
) -> None:
    one, two = xorb(1), xorb(2)
    for each in (one, two):
        epoch.receive(each.hash, [each.stored])
    build(epoch, blobs, File([(one, 0, 10)]))
    assert store.staged_bytes(repository()) == sum(map(len, two.contents))
    assert store.expire().files == 0
    age(epoch, 1.9)
    assert store.expire().files == 0
    age(epoch, 2.1)
    removed = store.expire()
    assert (removed.files, removed.size) == (1, sum(map(len, two.contents)))
    with pytest.raises(MissingXorbError):
        epoch.index(two.hash)
    # Clients may count on what is gone: they are told of a new epoch.
    assert store.current(repository()).name != epoch.name


def test_a_second_upload_of_a_xorb_keeps_it(store: XorbStore, epoch: Epoch) -> None:
    one = xorb()
    epoch.receive(one.hash, [one.stored])
    age(epoch, 2.1)
    assert epoch.receive(one.hash, [one.stored]) is None
    assert store.expire().files == 0


def test_what_is_in_files_is_remembered_as_long_as_clients_do(
    store: XorbStore, epoch: Epoch, blobs: BlobStore
) -> None:
    one = xorb()
    epoch.receive(one.hash, [one.stored])
    build(epoch, blobs, File([(one, 0, 10)]))
    age(epoch, 29)
    assert store.expire().files == 0
    assert store.current(repository()).name == epoch.name
    age(epoch, 31)
    assert store.expire().files > 0
    assert not epoch.folder.exists()
    assert store.current(repository()).name != epoch.name


def test_an_epoch_that_is_over_goes_when_nothing_more_comes(store: XorbStore, epoch: Epoch) -> None:
    epoch.end()
    age(epoch, 1)
    store.expire()
    assert epoch.folder.exists()
    age(epoch, 3)
    store.expire()
    assert not epoch.folder.exists()


def test_leftovers_of_killed_processes_go(store: XorbStore, epoch: Epoch) -> None:
    (epoch.folder / "new-1234").write_bytes(b"half a xorb")
    assert store.expire().files == 0
    age(epoch, 3)
    assert store.expire().files == 1
    assert store.current(repository()).name == epoch.name, "nobody counts on it"


def test_sweeping_beside_nothing(store: XorbStore, tmp_path: Path) -> None:
    assert store.expire().files == 0
    store.expire_now_and_then(repository())
    store.forget(repository())
    assert not (tmp_path / "xet").exists()


def test_a_deleted_repository_is_forgotten(store: XorbStore, epoch: Epoch) -> None:
    epoch.receive(xorb().hash, [xorb().stored])
    store.forget(repository())
    assert store.epoch(repository(), epoch.name) is None
