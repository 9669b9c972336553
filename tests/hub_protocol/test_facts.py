from __future__ import annotations

import hashlib
import json
import struct
import time
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_hub_protocol.facts import read_facts
from holdfast_hub_protocol.records import NewFile

if TYPE_CHECKING:
    from pathlib import Path


def facts(folder: Path, **contents: bytes) -> dict[str, Any]:
    files = []
    for name, content in contents.items():
        path = name.replace("__", ".")
        digest = hashlib.sha256(content).hexdigest()
        (folder / digest).write_bytes(content)
        files.append(NewFile(path, len(content), digest, None))
    return read_facts(files, lambda digest: folder / digest)


def tensors(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def test_card_and_configuration(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        README__md=b"---\nlicense: mit\nlanguage: [de, en]\ndate: 2026-01-02\n---\n# text",
        config__json=b'{"model_type": "llama", "hidden_size": 8}',
        tokenizer_config__json=b'{"chat_template": "{{x}}", "secret": 1}',
        m__safetensors=tensors({"a": {"dtype": "BF16", "shape": [2, 3]}, "__metadata__": {}}),
    )
    assert found["cardData"] == {"license": "mit", "language": ["de", "en"], "date": "2026-01-02"}
    assert found["config"] == {
        "model_type": "llama",
        "tokenizer_config": {"chat_template": "{{x}}"},
    }
    assert found["safetensors"] == {"parameters": {"BF16": 6}, "total": 6}
    assert found["tags"] == ["safetensors", "llama", "de", "en", "license:mit"]


def test_shards_are_added_up(tmp_path: Path) -> None:
    shard = tensors({"a": {"dtype": "F32", "shape": [5]}})
    other = tensors({"b": {"dtype": "F32", "shape": [7]}})
    found = facts(tmp_path, a__safetensors=shard, b__safetensors=other)
    assert found["safetensors"] == {"parameters": {"F32": 12}, "total": 12}


def test_a_card_cannot_explode(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    bomb = ("---\n" + "\n".join(lines) + "\n---\n").encode()
    assert "cardData" not in facts(tmp_path, README__md=bomb)


def test_what_is_malformed_is_left_out(tmp_path: Path) -> None:
    for card in (
        b"",
        b"---",
        b"---\n[1]\n---\n",
        b"---\na: [\n---\n",
        b"\xff\xfe",
        b"no front matter",
    ):
        assert "cardData" not in facts(tmp_path, README__md=card)
    assert "cardData" not in facts(
        tmp_path, README__md=b"---\na: !!python/object:os.system x\n---\n"
    )
    for header in (
        *(b"", b"\xff" * 8, b"\x05" + b"\0" * 7 + b"{", tensors([]), tensors({"a": 1})),
        *(tensors({"a": {"dtype": "F32", "shape": [[]]}}), tensors({"a": {"dtype": "F32"}})),
        tensors({"a": {"dtype": "F32", "shape": [1 << 60]}}),
    ):
        assert "safetensors" not in facts(tmp_path, m__safetensors=header)


def test_what_a_database_cannot_hold_is_taken_out(tmp_path: Path) -> None:
    found = facts(tmp_path, config__json=b'{"model_type": "a\\u0000\\ud800b", "auto_map": NaN}')
    assert found["config"] == {"model_type": "a?b", "auto_map": "nan"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=300))
def test_no_content_breaks_it(tmp_path: Path, content: bytes) -> None:
    card = b"---\n" + content + b"\n---\n"
    found = facts(tmp_path, README__md=card, config__json=content, m__safetensors=content)
    json.dumps(found, allow_nan=False)


def test_a_product_of_long_numbers_is_not_worked_out(tmp_path: Path) -> None:
    shape = ",".join(["9" * 4000] * 2000)
    text = f'{{"a": {{"dtype": "F32", "shape": [{shape}], "data_offsets": [0, 0]}}}}'.encode()
    began = time.process_time()
    found = facts(tmp_path, m__safetensors=struct.pack("<Q", len(text)) + text)
    assert "safetensors" not in found
    assert time.process_time() - began < 20  # it would take an hour


def test_numbers_without_end_are_no_metadata(tmp_path: Path) -> None:
    for number in ("1" + ":59" * 300_000, "0x" + "f" * 5000, "!!int '" + "9" * 4000 + "'"):
        began = time.process_time()
        card = f"---\nlicense: mit\na: {number}\n---\n".encode()
        assert "cardData" not in facts(tmp_path, README__md=card)
        assert time.process_time() - began < 10
    text = "f" * 5000
    found = facts(tmp_path, README__md=f"---\na: '{text}'\nb: 1:30\n---\n".encode())
    assert found["cardData"] == {"a": text, "b": 90}
