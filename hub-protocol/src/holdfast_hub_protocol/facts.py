"""What a repository's own files say about it: the card, the configuration, tensors and tags."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import yaml

from holdfast_hub_protocol.changes import file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from holdfast_hub_protocol.changes import Changes
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import NewFile

MAX_CARD_SIZE: Final = 1 << 20
MAX_CONFIG_SIZE: Final = 4 << 20
# The format allows 100 MB, which is gigabytes as Python objects; the largest models have some MB.
MAX_TENSOR_HEADER_SIZE: Final = 16 << 20
MAX_DIMENSIONS: Final = 64
_EXACT: Final = 1 << 53  # JSON numbers stop being exact there
MAX_DEPTH: Final = 16
_LONGEST_NUMBER: Final = 1000
# With `:` too: YAML counts in sixties, and reading that takes the square of its length.
_LONG_NUMBER: Final = re.compile(rf"[-+0-9A-Fa-fox_.:]{{{_LONGEST_NUMBER},}}")
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TELLING: Final = ("README.md", "config.json", "tokenizer_config.json")
_TELLING_SUFFIXES: Final = (".safetensors", ".gguf")
_CONFIG_KEYS: Final = ("architectures", "model_type", "auto_map", "quantization_config")
_TOKENIZER_KEYS: Final = (
    *("bos_token", "eos_token", "mask_token", "pad_token", "unk_token", "chat_template"),
)


def metadata_block(text: str) -> str | None:
    """Return the YAML between the two lines `---` that a card begins with, if it does."""
    lines = text.lstrip().removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != "---":
        return None
    end = next((index for index, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    return None if end is None else "\n".join(lines[1:end])


def load_metadata(block: str) -> Any:  # noqa: ANN401 - JSON
    """Return YAML as strict JSON; raise ValueError, with words for the author, if it is none.

    No aliases: a card of a few lines must not expand to gigabytes. Nesting is checked before the
    C library builds anything: it would overflow its stack. So are numbers, of which JSON has no
    very long ones.
    """
    depth = 0
    try:
        for event in yaml.parse(block, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("aliases are not allowed in a card")  # noqa: TRY004 - a card's
            if (
                isinstance(event, yaml.ScalarEvent)
                and (event.tag or event.style not in {"'", '"', "|", ">"})
                and _LONG_NUMBER.fullmatch(event.value)
            ):
                raise ValueError(f"a number of more than {_LONGEST_NUMBER} digits")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError("nested too deeply")
        return _plain(yaml.load(block, Loader=_LOADER))  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error


def read_facts(files: Iterable[NewFile], blob: Callable[[str], Path]) -> dict[str, Any]:
    """Return the JSON shown by repository info; what is malformed or too large is left out.

    Keys: cardData, config, safetensors, tags, pipeline_tag, library_name; each may be missing.
    """
    by_path = {file.path: file for file in files}

    def content(path: str, bound: int) -> bytes | None:
        file = by_path.get(path)
        return blob(file.sha256).read_bytes() if file and file.size <= bound else None

    card = _card(content("README.md", MAX_CARD_SIZE))
    config = _config(
        _json(content("config.json", MAX_CONFIG_SIZE)),
        _json(content("tokenizer_config.json", MAX_CONFIG_SIZE)),
    )
    tensors = _safetensors(
        [blob(file.sha256) for path, file in by_path.items() if path.endswith(".safetensors")]
    )
    facts: dict[str, Any] = {
        "cardData": card,
        "config": config,
        "safetensors": tensors,
        "pipeline_tag": _text(card, "pipeline_tag"),
        "library_name": _text(card, "library_name"),
        "tags": _tags(card, config, by_path),
    }
    return {key: value for key, value in facts.items() if value is not None}


def updated_facts(
    metadata: MetadataStore, changes: Changes, blob: Callable[[str], Path]
) -> dict[str, Any]:
    """Return the facts of a revision that changes its parent so; mostly they are the parent's."""
    base = changes.base
    paths = {*changes.put, *changes.removed}
    if base is None:
        return read_facts(changes.put.values(), blob)
    if not any(path in _TELLING or path.endswith(_TELLING_SUFFIXES) for path in paths):
        return base.facts
    before = metadata.files_named(base, _TELLING, _TELLING_SUFFIXES)
    kept = [file_of(entry) for entry in before if entry.path not in paths]
    return read_facts([*filter(None, kept), *changes.put.values()], blob)


def _card(content: bytes | None) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        block = metadata_block(content.decode("utf-8-sig"))
        plain = None if block is None else load_metadata(block)
    except ValueError:
        return None
    return plain if isinstance(plain, dict) else None


def _json(content: bytes | None) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        data = _plain(json.loads(content))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _plain(value: object, depth: int = 0) -> Any:  # noqa: ANN401 - JSON
    """Return the value as strict JSON; raise ValueError where JSON has no such thing."""
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    match value:
        case None | bool() | int():
            return value
        case str():
            # NUL and lone surrogates are JSON that PostgreSQL refuses.
            return value.replace("\0", "").encode("utf-8", "replace").decode()
        case float():
            return value if math.isfinite(value) else str(value)
        case date():  # a datetime is a date
            return value.isoformat()
        case list() | tuple() | set():
            return [_plain(item, depth + 1) for item in value]
        case dict():
            return {
                str(_plain(key, depth + 1)): _plain(item, depth + 1) for key, item in value.items()
            }
    raise ValueError(f"not JSON: {type(value).__name__}")


def _config(
    config: dict[str, Any] | None, tokenizer: dict[str, Any] | None
) -> dict[str, Any] | None:
    chosen: dict[str, Any] = {}
    if config:
        chosen |= {key: config[key] for key in _CONFIG_KEYS if key in config}
    if tokenizer:
        chosen["tokenizer_config"] = {
            key: tokenizer[key] for key in _TOKENIZER_KEYS if key in tokenizer
        }
    return chosen or None


def _safetensors(blobs: list[Path]) -> dict[str, Any] | None:
    parameters: Counter[str] = Counter()
    for blob in blobs:
        try:
            parameters += _tensor_parameters(blob)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            return None
    if not parameters or sum(parameters.values()) >= _EXACT:
        return None
    return {"parameters": dict(sorted(parameters.items())), "total": sum(parameters.values())}


def _tensor_parameters(blob: Path) -> Counter[str]:
    with blob.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_TENSOR_HEADER_SIZE:
            raise ValueError("header too large")
        header = json.loads(file.read(size))
    parameters: Counter[str] = Counter()
    for name, tensor in header.items():
        if name != "__metadata__":
            parameters[_plain(str(tensor["dtype"]))] += _count(tensor["shape"])
    return parameters


def _count(shape: list[Any]) -> int:
    """Return how many parameters a tensor has; ValueError for more than JSON can say.

    Asked of every side first: the product of a few thousand long numbers takes hours.
    """
    if len(shape) > MAX_DIMENSIONS or not all(0 <= int(side) < _EXACT for side in shape):
        raise ValueError("a shape that no tensor has")
    return math.prod(int(side) for side in shape)


def _text(card: dict[str, Any] | None, key: str) -> str | None:
    value = card.get(key) if card else None
    return value if isinstance(value, str) else None


def _tags(
    card: dict[str, Any] | None, config: dict[str, Any] | None, by_path: dict[str, NewFile]
) -> list[str]:
    def listed(key: str) -> list[str]:
        value = card.get(key) if card else None
        values = value if isinstance(value, list) else [value]
        return [item for item in values if isinstance(item, str)]

    found = listed("library_name")
    found += ["safetensors"] if any(path.endswith(".safetensors") for path in by_path) else []
    found += ["gguf"] if any(path.endswith(".gguf") for path in by_path) else []
    if config and isinstance(config.get("model_type"), str):
        found.append(config["model_type"])
    found += listed("pipeline_tag") + listed("tags") + listed("language")
    found += [f"dataset:{name}" for name in listed("datasets")]
    found += [f"base_model:{name}" for name in listed("base_model")]
    found += [f"license:{name}" for name in listed("license")]
    return list(dict.fromkeys(found))
