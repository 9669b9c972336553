"""Files are what their content is, whatever they are called."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_model_registry.formats import Observation, observe, pickles
from holdfast_model_registry.formats.recognition import claim_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

quick = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("true",))


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Observation]:
    def look(name: str, content: bytes, *, deep: bool = True) -> Observation:
        path = tmp_path / "content"
        path.write_bytes(content)
        return observe(name, path, deep=deep)

    return look


def zipped(*entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return content.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["model.safetensors.txt", "vocab.txt", "w.bin", "README.md"])
def test_a_pickle_of_any_protocol_under_any_name(
    look: Callable[..., Observation], protocol: int, name: str
) -> None:
    content = pickle.dumps(Harmful(), protocol=protocol)
    seen = look(name, content)
    assert (seen.format, seen.dangerous, seen.complete) == ("pickle", True, True)
    assert seen.advice == ("imports posix.system",)
    assert look(name, content, deep=False).format == "pickle"
    broken = look(name, content[:-1] + b"\xff")  # it runs before the unpickler meets the end
    assert broken.format == "pickle"


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"V" + b"long " * 10_000 + b"\n0cos\nsystem\n(S'id'\ntR.", ["os.system"]),
        (b"(S'id'\nios\nsystem\n.", ["os.system"]),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93(\x8c\x02idtR.", ["os.system"]),
        (b"\x80\x02\x82\x01)R.", ["?.?"]),
        (b"\x80\x04K\x01\x85K\x02\x93)R.", ["?.?"]),
    ],
)
def test_names_are_followed_through_stack_and_memo(content: bytes, names: list[str]) -> None:
    found = pickles.walk(content)
    assert found.imports == names
    assert found.dangerous == names
    assert found.runs


def test_what_weights_need_is_not_worth_a_word() -> None:
    from collections import OrderedDict

    found = pickles.walk(pickle.dumps(OrderedDict(a=[1, 2.0, b"x", "y"])))
    assert found.imports == ["collections.OrderedDict"]
    assert (found.suspicious, found.dangerous, found.stopped) == ([], [], True)
    for name in ("torch._utils._rebuild_tensor_v2", "torch.FloatStorage", "torch.bfloat16"):
        module, _, attribute = name.rpartition(".")
        assert pickles.walk(f"c{module}\n{attribute}\n.".encode()).suspicious == []
    assert pickles.walk(b"ctorch.hub\nload\n.").suspicious == ["torch.hub.load"]
    assert pickles.walk(b"cbuiltins\neval\n.").dangerous == ["builtins.eval"]


def test_a_walk_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_STEPS", 100)
    assert "more than 100" in pickles.walk(b"N0" * 1000).why_ended


def test_text_that_goes_on_as_a_pickle_is_read_in_the_background(
    look: Callable[..., Observation], monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = b"N0" * 10_000
    assert look("a.txt", endless, deep=False) == Observation("text", complete=False)
    assert look("a.txt", endless).format == "text"  # it comes to an end, and to nothing
    monkeypatch.setattr(pickles, "MAX_STEPS", 1000)
    assert look("a.txt", endless).format == "pickle"
    hidden = b"N0" * 6_000 + pickle.dumps(Harmful(), protocol=0)
    monkeypatch.setattr(pickles, "MAX_STEPS", 100_000)
    assert look("a.txt", hidden, deep=False).complete is False
    assert look("a.txt", hidden).advice == ("imports posix.system",)


@quick
@given(st.binary(max_size=200))
def test_walking_any_bytes_ends_well(content: bytes) -> None:
    pickles.walk(content)
    pickles.walk(b"\x80\x04" + content)


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("empty", b"", "text"),
        ("README.md", "---\nlicense: mit\n---\n# größe\n".encode(), "text"),
        ("vocab.txt", b"cat\ndog\nindex\nSystem\n" * 500, "text"),
        ("LICENSE", "Fran\xe7ais".encode("latin-1"), "text"),
        ("tokenizer.model", b"IQ== 0\nIg== 1\n", "text"),
        ("tokenizer.model", b"\x0a\x03abc\x0a\x02xy\x12\x01z", "sentencepiece"),
        ("tokenizer.bin", b"\x0a\x03abc\x0a\x02xy\x12\x01z", "other"),
        ("model.onnx", b"\x08\x07\x12\x03abc\x3a\x02xy", "onnx"),
        ("model.onnx", b"\x08\x07\x12\x09abc", "other"),
        ("modeling.py", b"import os\n", "code"),
        ("anything", b"#!/usr/bin/env python\n", "code"),
        ("logo.png", b"\x89PNG\r\n\x1a\n\0\0", "image"),
        ("logo.webp", b"RIFF\0\0\0\0WEBP", "image"),
        ("paper.pdf", b"%PDF-1.7\n", "pdf"),
        ("a.npy", b"\x93NUMPY\x01\0v\0{'descr': '<f4', }", "numpy"),
        ("a.npy", b"\x93NUMPY\x01\0v\0{'descr': [('a', '|O')], }", "pickle"),
        ("a.parquet", b"PAR1\0\0", "parquet"),
        ("lib.txt", b"\x7fELF\x02\x01", "executable"),
        ("a.exe", b"MZ\x90\0", "executable"),
        ("tf_model.h5", b"\x89HDF\r\n\x1a\n", "hdf5"),
        ("a.zip", zipped(("a", b"x")), "archive"),
        ("a.tar", tarred(), "archive"),
        ("a.rar", b"Rar!\x1a\x07\x01\0", "archive"),
        ("a.xz", b"\xfd7zXZ\0", "archive"),
        ("a.zst", b"\x28\xb5\x2f\xfd\0", "archive"),
        ("pytorch_model.bin", zipped(("x/data.pkl", pickle.dumps({}))), "pickle"),
        ("a.bin", b"\x02\0\0\0\0\0\0\0{}", "safetensors"),
        ("random", random.Random(1).randbytes(10_000), "other"),
    ],
)
def test_each_format(
    look: Callable[..., Observation], name: str, content: bytes, form: str
) -> None:
    seen = look(name, content)
    assert (seen.format, seen.problem, seen.complete) == (form, "", True)
    shallow = look(name, content, deep=False)
    assert shallow.format == form
    if form not in {"pickle", "archive"}:
        assert shallow.complete


@pytest.mark.parametrize(
    "start",
    [b"\x89PNG\r\n\x1a\n", b"a text\n", b"GIF89a", b"%PDF-1.7", b"#!/usr/bin/python\n"],
)
def test_a_file_that_is_a_zip_to_those_who_look_at_its_end(
    look: Callable[..., Observation], start: bytes
) -> None:
    seen = look("logo.png", start + zipped(("data.pkl", pickle.dumps(Harmful()))))
    assert (seen.format, seen.dangerous) == ("archive", True)


def test_the_four_bytes_alone_are_no_zip(look: Callable[..., Observation]) -> None:
    assert look("a.png", b"\x89PNG\r\n\x1a\n" + b"PK\x05\x06" + bytes(40)).format == "image"


def test_what_is_wrong_with_a_zip(look: Callable[..., Observation]) -> None:
    bomb = zipped(("zeros", bytes(2 << 20)), method=zipfile.ZIP_DEFLATED)
    assert not look("a.zip", bomb).dangerous  # large for its size, and small
    escaping = look("a.zip", zipped(("../../etc/cron.d/x", b"")))
    assert escaping.dangerous
    assert "outside" in escaping.advice[0]
    cut = look("a.zip", zipped(("a", b"x"))[:-10])
    assert (cut.format, cut.dangerous) == ("archive", True)
    lying = bytearray(zipped(("a", b"x")))
    lying[-10:-6] = struct.pack("<L", 1 << 31)
    assert look("a.zip", bytes(lying)).dangerous


def test_a_bomb_is_seen_without_being_unpacked(
    look: Callable[..., Observation], monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast_model_registry.formats import archives

    monkeypatch.setattr(archives, "BOMB_SIZE", 1 << 20)
    bomb = zipped(("zeros", bytes(8 << 20)), method=zipfile.ZIP_DEFLATED)
    seen = look("a.zip", bomb)
    assert seen.dangerous
    assert "a bomb" in seen.advice[0]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b'{"auto_map": {"AutoConfig": "c.C", "AutoModel": "m.M"}}', ("c.C", "m.M")),
        (b'{"auto_map": "c.C"}', ("c.C",)),
        (b'{"auto_map": {}}', ()),
        (b'{"model_type": "llama"}', ()),
        (b"[1]", ()),
        (b"not JSON", ()),
    ],
)
def test_code_that_a_loader_would_fetch(
    look: Callable[..., Observation], text: bytes, names: tuple[str, ...]
) -> None:
    for name in ("config.json", "deep/er/tokenizer_config.json", "preprocessor_config.json"):
        assert look(name, text).remote_code == names
    assert look("other.json", text).remote_code == ()


def test_files_of_one_claim_look_alike() -> None:
    assert claim_of("a/config.json") == claim_of("tokenizer_config.json") != claim_of("a.json")
    assert claim_of("x.SAFETENSORS") == ".safetensors"
    assert claim_of("x.md") == claim_of("x") == claim_of("x." + "y" * 300) == ""


def gguf(
    *tensors: tuple[str, list[int], int, int], pairs: bytes = b"", count: int = 0, data: int = 0
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + pairs
    for name, shape, kind, offset in tensors:
        head += struct.pack("<Q", len(name)) + name.encode()
        head += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return head + bytes(-len(head) % 32) + bytes(data)


ALIGN = struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<I", 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gguf(("a", [4], 0, 0), data=16), ""),
        (gguf(("a", [4], 0, 0), ("b", [32], 8, 32), data=66), ""),
        (gguf(pairs=ALIGN + struct.pack("<I", 64), count=1), ""),
        (gguf(("a", [4], 0, 0), data=15), "past the file"),
        (gguf(("a", [16], 0, 0), ("b", [4], 0, 32), data=64), "overlaps"),
        (gguf(("a", [4], 0, 4), data=64), "not aligned"),
        (gguf(("a", [33], 8, 0), data=64), "whole number of blocks"),
        (gguf(("a", [4], 99, 0), data=64), "unknown type 99"),
        (gguf(("a", [1 << 62, 1 << 62], 0, 0), data=64), "whole number of blocks"),
        (gguf(pairs=ALIGN + struct.pack("<I", 3), count=1), "power of two"),
        (gguf(count=1 << 40), "past the file"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "more than it has bytes"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
        (b"GGUX", "does not begin"),
        (b"GG", "past the file"),
    ],
)
def test_gguf_headers(look: Callable[..., Observation], content: bytes, words: str) -> None:
    seen = look("model.gguf", content)
    assert seen.format == "gguf"
    assert words in seen.problem
    assert bool(seen.problem) == bool(words)


@quick
@given(st.binary(max_size=400))
def test_any_bytes_are_something(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    for start in (b"", b"GGUF\x03\0\0\0", b"PK\x03\x04", b"\x80\x04", b"\x0a\x02", b"{"):
        path.write_bytes(start + content)
        for name in ("a", "a.gguf", "a.model", "a.onnx", "config.json", "a.safetensors"):
            seen = observe(name, path, deep=True)
            assert Observation.from_json(seen.as_json()) == seen
