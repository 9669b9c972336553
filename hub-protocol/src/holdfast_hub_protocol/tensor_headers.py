"""The tensors of a model in several files, in one answer: `/safetensors-metadata/{index file}`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.endpoints import repository_route
from holdfast_hub_protocol.identifiers import BadIdentifierError, checked_path
from holdfast_hub_protocol.metadata import MAIN

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.routing import Route

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_hub_protocol.records import Commit

MAX_INDEX: Final = 32 << 20
MAX_HEADERS: Final = 32 << 20  # of all files together
MAX_FILES: Final = 2000


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the route, which models have."""
    if kind != "model":
        return []
    path = "/safetensors-metadata/{path:path}"
    return [repository_route(hub, kind, path, "safetensors-metadata", safetensors_metadata)]


def safetensors_metadata(visit: RepositoryVisit) -> Response:
    """Answer with an index file of main, without its weight map, and its files' headers."""
    commit = visit.commit_of(MAIN)
    visit.check_fetch(commit)
    entry = visit.entry(commit)
    if entry.sha256 is None or entry.size > MAX_INDEX:
        raise errors.entry_not_found(entry.path, commit.oid)
    index = _object(visit.hub.blobs.path(entry.sha256).read_bytes(), entry.path)
    weights = index.get("weight_map")
    if not isinstance(weights, dict):
        raise errors.unprocessable(f"{entry.path} has no weight_map")
    names = sorted({name for name in weights.values() if isinstance(name, str)})
    if len(names) > MAX_FILES:
        raise errors.unprocessable(f"{entry.path} names more than {MAX_FILES} files")
    left = MAX_HEADERS
    headers: dict[str, Any] = {}
    for name in names:
        blob = _file(visit, commit, entry.path, name)
        content = _header(blob, left, name)
        left -= len(content)
        headers[name] = _object(content, name)
    rest = {key: value for key, value in index.items() if key != "weight_map"}
    try:
        # In ASCII: half of a character is JSON that UTF-8 has no bytes for.
        text = json.dumps({"index": rest, "headers": headers}, allow_nan=False)
    except ValueError:
        raise errors.unprocessable(f"{entry.path} and its files are not JSON") from None
    return Response(text, headers={"X-Repo-Commit": commit.oid}, media_type="application/json")


def _file(visit: RepositoryVisit, commit: Commit, index: str, name: str) -> Path:
    folder, slash, _ = index.rpartition("/")
    try:
        path = checked_path(folder + slash + name)
    except BadIdentifierError:
        raise errors.entry_not_found("malformed", commit.oid) from None
    entry = visit.hub.metadata.entry(commit, path)
    if entry is None or entry.sha256 is None:
        raise errors.entry_not_found(path, commit.oid)
    return visit.hub.blobs.path(entry.sha256)


def _header(blob: Path, most: int, name: str) -> bytes:
    with blob.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > most:
            raise errors.unprocessable(f"the headers are too large, from {name} on")
        return file.read(size)


def _object(content: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise errors.unprocessable(f"{name} cannot be read")
    return document
