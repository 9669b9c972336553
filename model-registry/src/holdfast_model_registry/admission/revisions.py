"""A revision as the judgement wants it: observations, the card, disagreements between files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol.facts import read_facts
from holdfast_model_registry.admission.judging import CARD, Revision
from holdfast_model_registry.formats import shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import sqlalchemy as sa

    from holdfast_hub_protocol.records import NewFile
    from holdfast_model_registry.admission.observing import Observer

_WEIGHTS: Final = ".safetensors"


def look_at(  # noqa: PLR0913 - all that a revision is
    connection: sa.Connection,
    observer: Observer,
    files: Sequence[NewFile],
    blob: Callable[[str], Path],
    *,
    changed: Iterable[str] = (),
    labels: Mapping[str, str],
    deep: bool = False,
) -> Revision:
    """Return the revision with every file looked at; OSError if a content cannot be read."""
    seen = observer.observe(connection, files, blob, deep=deep)
    card = read_facts([file for file in files if file.path == CARD], blob).get("cardData")
    unsound = any(seen[path].problem for path in seen if path.endswith(_WEIGHTS))
    return Revision(
        observations=seen,
        changed=frozenset(changed),
        card=card,
        # Files that are unsound in themselves need not agree with others too.
        disagreements=() if unsound else tuple(disagreements(files, blob)),
        labels=labels,
    )


def bears_weights(path: str) -> bool:
    """Tell whether a file is one of those that must agree with one another."""
    return path.endswith((_WEIGHTS, shards.INDEX_SUFFIX))


def disagreements(
    files: Iterable[NewFile], blob: Callable[[str], Path]
) -> Iterator[tuple[str, str]]:
    """Yield (path, why) for numbered weights that are missing and indexes that do not fit."""
    by_path = {file.path: file for file in files}
    for path in shards.missing_shards(by_path):
        yield path, "it is missing: the files around it are numbered"
    weights = {path: blob(by_path[path].sha256) for path in by_path if path.endswith(_WEIGHTS)}
    for path, file in by_path.items():
        if not path.endswith(shards.INDEX_SUFFIX):
            continue
        if file.size > shards.MAX_INDEX_SIZE:
            yield path, f"an index of {file.size} bytes is not read"
        elif why := shards.index_problem(path, blob(file.sha256).read_bytes(), weights):
            yield path, f"the index and its files disagree: {why}"
