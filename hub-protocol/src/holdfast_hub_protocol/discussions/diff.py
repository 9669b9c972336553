"""Differences between two revisions: which files, and as git prints them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.git_objects import lfs_pointer
from holdfast_hub_protocol.records import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from holdfast_hub_protocol.records import Commit

MAX_FILE_SIZE: Final = 256 << 10  # bytes of a file that is compared line by line
MAX_LINES: Final = 2000  # comparing takes the product of both files' lines at worst
MAX_DIFF_SIZE: Final = 1 << 20  # characters of a whole answer
_NOTHING: Final = "0" * 40
_NO_NEWLINE: Final = "\\ No newline at end of file\n"


@dataclass(frozen=True)
class Change:
    """A path at which two revisions differ; None stands for no file."""

    path: str
    before: Entry | None
    after: Entry | None


def changes(connection: sa.Connection, old: Commit, new: Commit) -> list[Change]:
    """Return where two revisions of one repository differ, by path."""
    gone = _missing_or_other(connection, old, new)
    come = _missing_or_other(connection, new, old)
    paths = sorted({*gone, *come}, key=str.encode)
    return [Change(path, gone.get(path), come.get(path)) for path in paths]


def _missing_or_other(connection: sa.Connection, one: Commit, other: Commit) -> dict[str, Entry]:
    """Return the files of `one` that `other` has not, or has otherwise."""
    mine, theirs = schema.entries.alias(), schema.entries.alias()
    same_path = (theirs.c.snapshot_id == other.snapshot) & (theirs.c.path == mine.c.path)
    rows = connection.execute(
        sa.select(mine.c.path, mine.c.oid, mine.c.size, mine.c.sha256, mine.c.is_lfs)
        .select_from(mine.outerjoin(theirs, same_path))
        .where(
            mine.c.snapshot_id == one.snapshot,
            mine.c.sha256.is_not(None),
            theirs.c.sha256.is_(None)
            | (theirs.c.sha256 != mine.c.sha256)
            | (theirs.c.is_lfs != mine.c.is_lfs),
        )
    )
    return {row.path: Entry(row.path, row.oid, row.size, row.sha256, row.is_lfs) for row in rows}


def conflicts(ours: Sequence[Change], theirs: Sequence[Change]) -> list[str]:
    """Return the paths that two sets of changes since one revision leave in different states.

    A file on one side and a folder of that name on the other are a conflict too.
    """
    mine = {change.path: change for change in ours}
    found = {
        change.path
        for change in theirs
        if change.path in mine and not _same(mine[change.path].after, change.after)
    }
    our_files = {change.path for change in ours if change.after}
    their_files = {change.path for change in theirs if change.after}
    found |= _below(our_files, their_files) | _below(their_files, our_files)
    return sorted(found, key=str.encode)


def _same(one: Entry | None, other: Entry | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.sha256, one.is_lfs) == (other.sha256, other.is_lfs)


def _below(files: set[str], folders: set[str]) -> set[str]:
    """Return the paths of `files` that have one of `folders` for a parent."""
    return {
        path
        for path in files
        if any(path[:index] in folders for index, char in enumerate(path) if char == "/")
    }


def unified(found: Sequence[Change], blob: Callable[[str], Path]) -> str:
    """Return the changes as `git diff` prints them, bounded; large and binary files by name."""
    text: list[str] = []
    size = 0
    for number, change in enumerate(found):
        for line in _of_file(change, blob):
            text.append(line)
            size += len(line)
        if size > MAX_DIFF_SIZE and number + 1 < len(found):
            text.append(f"# {len(found) - number - 1} more files differ\n")
            break
    return "".join(text)


def _of_file(change: Change, blob: Callable[[str], Path]) -> Iterator[str]:
    before, after = change.before, change.after
    old, new = f"a/{change.path}", f"b/{change.path}"
    yield f"diff --git {old} {new}\n"
    if before is None:
        yield "new file mode 100644\n"
    if after is None:
        yield "deleted file mode 100644\n"
    ids = (entry.oid if entry else _NOTHING for entry in (before, after))
    yield f"index {'..'.join(ids)}{' 100644' if before and after else ''}\n"
    if not before:
        old = "/dev/null"
    if not after:
        new = "/dev/null"
    lines = _lines(before, blob), _lines(after, blob)
    if lines[0] is None or lines[1] is None:
        yield f"Binary files {old} and {new} differ\n"
        return
    for line in difflib.unified_diff(lines[0], lines[1], old, new):
        yield line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}"


def _lines(entry: Entry | None, blob: Callable[[str], Path]) -> list[str] | None:
    """Return a file's lines as git has them; None if they are not to be compared."""
    if entry is None or entry.sha256 is None:
        return []
    if entry.is_lfs:
        content = lfs_pointer(entry.sha256, entry.size)
    elif entry.size > MAX_FILE_SIZE:
        return None
    else:
        content = blob(entry.sha256).read_bytes()
    if b"\0" in content:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    # Not splitlines: git knows no line end but \n.
    lines = [f"{line}\n" for line in text.split("\n")]
    last = lines.pop().removesuffix("\n")
    if last:
        lines.append(last)
    return lines if len(lines) <= MAX_LINES else None
