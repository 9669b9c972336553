"""Patterns of .gitignore and .gitattributes, as git reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SIZE: Final = 256 << 10  # bytes of such a file that are read
MAX_LINES: Final = 1000
_MAX_PATTERN: Final = 512
_MAX_DEEP: Final = 2  # `**` in one pattern
_STAR: Final = "[^/]*"
_FOLDERS: Final = "(?:.*/)?"
_ALL: Final = ".+"
_NOTHING: Final = "(?!)"


@dataclass(frozen=True)
class _Rule:
    expression: re.Pattern[str]
    negated: bool
    folders_only: bool


class Ignored:
    """What a .gitignore at the root leaves out."""

    def __init__(self, text: str) -> None:
        self._rules = [rule for line in _lines(text) if (rule := _rule(line)) is not None]

    def __contains__(self, path: str) -> bool:
        """Tell whether a file is left out, by its own name or a folder's above it.

        As in git, nothing below a folder that is left out can be taken in again.
        """
        parts = path.split("/")
        return any(
            self._decides("/".join(parts[:end]), folder=end < len(parts))
            for end in range(1, len(parts) + 1)
        )

    def _decides(self, path: str, *, folder: bool) -> bool:
        for rule in reversed(self._rules):
            if (folder or not rule.folders_only) and rule.expression.fullmatch(path):
                return not rule.negated
        return False


class LargeFiles:
    """The paths that a .gitattributes gives to LFS."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for line in _lines(text):
            pattern, *attributes = line.split()
            pattern = pattern.replace("[[:space:]]", " ")
            filters = [word for word in attributes if word.lstrip("-!").startswith("filter")]
            if filters and not pattern.startswith(("!", '"', "[attr]")):
                expression = _expression(pattern)
                if expression is not None:
                    self._rules.append((expression, filters[-1] == "filter=lfs"))

    def __contains__(self, path: str) -> bool:
        """Tell whether git would keep a pointer in place of this file."""
        for expression, large in reversed(self._rules):
            if expression.fullmatch(path):
                return large
        return False


def _lines(text: str) -> list[str]:
    lines = [line.rstrip("\r") for line in text[:MAX_SIZE].split("\n")[:MAX_LINES]]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _rule(line: str) -> _Rule | None:
    # Spaces at the end mean nothing, unless the last one is escaped.
    stripped = line.rstrip(" ")
    line = f"{stripped} " if stripped.endswith("\\") and stripped != line else stripped
    negated = line.startswith("!")
    line = line.removeprefix("!")
    expression = _expression(line.rstrip("/"))
    if expression is None:
        return None
    return _Rule(expression, negated, folders_only=line.endswith("/"))


def _expression(pattern: str) -> re.Pattern[str] | None:
    """Return what a whole path must match; None for a pattern that matches nothing."""
    if len(pattern) > _MAX_PATTERN:
        return None
    anchored = "/" in pattern
    pattern = pattern.removeprefix("/")
    if not pattern:
        return None
    try:
        return re.compile(("" if anchored else "(?:.*/)?") + _translated(pattern), re.DOTALL)
    except re.error:
        return None


def _translated(pattern: str) -> str:
    """Return the expression of a pattern.

    What follows a star is found where it first occurs, and never looked for again: that is as
    good as any other place, and a pattern of many stars takes no longer than one of few. Folders
    of any depth have to be tried, so few of them are allowed.
    """
    pieces = list(_pieces(pattern))
    if sum(piece in {_FOLDERS, _ALL} for piece in pieces) > _MAX_DEEP:
        return _NOTHING
    result, fixed, star = "", "", False
    for piece in pieces:
        if piece not in {_STAR, _FOLDERS, _ALL}:
            fixed += piece
            continue
        result += f"(?>[^/]*?{fixed})" if star and fixed else _STAR * star + fixed
        fixed, star = "", piece == _STAR
        result += "" if star else piece
    return result + _STAR * star + fixed


def _pieces(pattern: str) -> Iterator[str]:
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        whole_part = position == 0 or pattern[position - 1] == "/"
        stars = len(rest) - len(rest.lstrip("*"))
        if stars == 2 and whole_part and rest[2:3] in {"", "/"}:
            yield _FOLDERS if rest[2:] else _ALL
            position += 3
        elif stars:
            yield _STAR
            position += stars
        elif rest[0] == "?":
            yield "[^/]"
            position += 1
        elif rest[0] == "[" and (found := _character_set(rest)):
            yield found[0]
            position += found[1]
        else:
            escaped = rest[0] == "\\" and len(rest) > 1
            yield re.escape(rest[1] if escaped else rest[0])
            position += 2 if escaped else 1


def _character_set(rest: str) -> tuple[str, int] | None:
    """Return the expression of a `[…]` at the start, and its length; None if it has no end."""
    end = rest.find("]", 3 if rest[1:2] in {"!", "^"} else 2)
    if end < 0:
        return None
    inside = rest[1:end]
    negated = inside[:1] in {"!", "^"}
    inside = inside[1:] if negated else inside
    inside = inside.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    inside = inside.replace("&&", "&\\&").replace("||", "|\\|").replace("~~", "~\\~")
    return f"(?!/)[{'^' if negated else ''}{inside.replace('^', chr(92) + '^')}]", end + 1
