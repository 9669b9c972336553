"""Weights in several files: what the index says against what the files hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from holdfast_model_registry.formats.observation import FormatError
from holdfast_model_registry.formats.safetensors import LARGE, one_large_header, read_header
from holdfast_model_registry.formats.strict_json import read_object, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

INDEX_SUFFIX: Final = ".safetensors.index.json"
MAX_INDEX_SIZE: Final = 16 << 20  # the largest models have 9 MB of it
_NUMBERED: Final = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.safetensors")


def index_problem(index: str, content: bytes, weights: Mapping[str, Path]) -> str:
    """Say how an index disagrees with its files, '' where it does not.

    `weights` are the .safetensors files of the repository by path; an index names those beside it.
    """
    try:
        if len(content) <= LARGE:
            return _disagreement(index, read_object(content, "the index"), weights)
        with one_large_header:
            document = read_object(content, "the index")
        return _disagreement(index, document, weights)
    except FormatError as error:
        return str(error)


def _disagreement(index: str, document: Mapping[str, object], weights: Mapping[str, Path]) -> str:
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        return "it has no weight_map"
    folder = index.rpartition("/")[0]
    by_file: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            return f"weight_map names no file for {shown(tensor)}"
        by_file.setdefault(name, set()).add(tensor)
    for name, listed in sorted(by_file.items()):
        where = f"{folder}/{name}" if folder else name
        if where not in weights:
            return f"it names {shown(name)}, which is not there"
        held = set(_tensors(weights[where]))
        if missing := listed - held:
            return f"{shown(name)} does not hold {shown(min(missing))}"
        if extra := held - listed:
            return f"{shown(name)} holds {shown(min(extra))}, which the index does not know"
    return ""


def _tensors(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        yield from read_header(file, path.stat().st_size).tensors


def missing_shards(paths: Mapping[str, object]) -> list[str]:
    """Return the numbered files (`…-00002-of-00003.safetensors`) whose siblings show a gap."""
    missing = []
    groups = {
        (match[1], match[3]) for path in paths if (match := _NUMBERED.fullmatch(path)) is not None
    }
    for stem, count in sorted(groups):
        if not 0 < int(count) <= 10_000:
            continue
        names = (
            f"{stem}-{number:05d}-of-{count}.safetensors" for number in range(1, int(count) + 1)
        )
        missing += [name for name in names if name not in paths]
    return missing
