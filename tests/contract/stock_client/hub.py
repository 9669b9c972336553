"""The hub under test as scenarios see it: callers, fresh repositories, files worth uploading."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import huggingface_hub
from huggingface_hub import HfApi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NUMBERS = itertools.count(1)
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: [en]
tags: [contract]
---
# A card
"""


@dataclass(frozen=True)
class Hub:
    """One scenario's hub, and an empty folder of its own."""

    endpoint: str
    folder: Path
    names: dict[str, Any]
    api: HfApi = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "api", self.caller("ada"))

    def caller(self, name: str) -> HfApi:
        """Return the client of one of the people: ada writes, eve reads, bob is elsewhere."""
        return HfApi(endpoint=self.endpoint, token=self.names["tokens"][name])

    def stranger(self) -> HfApi:
        """Return a client without a token."""
        return HfApi(endpoint=self.endpoint, token=False)

    def name(self) -> str:
        """Return a repository name that nobody has used."""
        version = huggingface_hub.__version__.replace(".", "-")
        return f"research/{self.names['prefix']}-{version}-{next(_NUMBERS)}"

    def repository(self, **options: Any) -> str:
        """Create a repository and return its name."""
        return self.api.create_repo(self.name(), **options).repo_id

    def cache(self) -> Path:
        """Return a cache that nothing has been downloaded to."""
        return self.folder / f"cache-{next(_NUMBERS)}"

    def fetch(self, repository: str, path: str, **options: Any) -> bytes:
        """Download one file past every cache and return its content."""
        found = self.api.hf_hub_download(repository, path, cache_dir=self.cache(), **options)
        with open(found, "rb") as file:  # noqa: PTH123 - a path of the client's, as it gives it
            return file.read()

    def write(self, path: str, content: bytes) -> Path:
        """Write a file in the scenario's folder."""
        there = self.folder / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content)
        return there


def weights(seed: str, count: int = 1000) -> bytes:
    """Return a valid safetensors file of `count` 32-bit numbers that differ by seed."""
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, count * 4]}}
    ).encode()
    header += b" " * (-len(header) % 8)
    data = hashlib.shake_128(seed.encode()).digest(count * 4)
    return struct.pack("<Q", len(header)) + header + data


def sha256(content: bytes) -> str:
    """Return the digest in hex."""
    return hashlib.sha256(content).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Return path -> SHA-256 of a downloaded folder, the client's own files left out."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    }


@contextmanager
def raises(expected: type[Exception], status: int | None = None, text: str = "") -> Iterator[None]:
    """Expect just this class, no parent and no child of it; and its status and text."""
    raised: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001 - which one it is, is the question
        raised = error
    found = type(raised).__name__
    # Newer clients raise a child of their own for entries that are missing remotely.
    assert found in {expected.__name__, f"Remote{expected.__name__}"}, f"{found}: {raised}"
    if status is not None:
        answered = getattr(getattr(raised, "response", None), "status_code", None)
        assert answered == status, f"{answered}: {raised}"
    assert text in str(raised), f"{text!r} is not in {raised}"
