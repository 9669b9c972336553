"""JSON that stays as it is while a commit does: rendered once, remembered as bytes.

Listing a thousand files takes ten times as long as deciding who may see them, and what a commit
holds never changes. Whether the caller may see it is decided before anything is looked up here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from holdfast_hub_protocol.records import Commit, Repository

ROOM: Final = 16 << 20  # bytes, for each process that serves
_LARGEST: Final = ROOM >> 3  # one commit must not push all others out
_OVERHEAD: Final = 500  # bytes that keeping one takes beside its own


class Rendered(NamedTuple):
    """A piece of JSON, and what else the answer is made of."""

    json: bytes
    note: str | int = ""


class RenderedCommits:
    """What was rendered lately; safe to share between threads."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Rendered] = OrderedDict()
        self._size = 0

    def get(
        self,
        repository: Repository,
        commit: Commit,
        asked: tuple[Hashable, ...],
        render: Callable[[], Rendered],
    ) -> Rendered:
        """Return what `render` makes of what is asked of a commit, now or the last time."""
        # The row's number may be used again by another commit, its id by another repository.
        key = (repository.key, commit.snapshot, commit.oid, *asked)
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
                return known
        made = render()
        size = len(made.json) + _OVERHEAD
        if size > _LARGEST:
            return made
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._size += size
            while self._size > self._room:
                _, gone = self._kept.popitem(last=False)
                self._size -= len(gone.json) + _OVERHEAD
        return made
