"""Profiles as data: hardware, jurisdiction, level, software and policy; no code but the way in."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def folder(kind: str) -> Traversable:
    """Return the folder of one kind of data, e.g. "hardware" or "policy"; it may not exist."""
    return files(__name__) / kind


def names(kind: str) -> tuple[str, ...]:
    """Return the sorted names of the YAML profiles of a kind; empty when none is shipped."""
    place = folder(kind)
    if not place.is_dir():
        return ()
    found = (entry.name for entry in place.iterdir())
    return tuple(sorted(name.removesuffix(".yml") for name in found if name.endswith(".yml")))


def read(kind: str, name: str) -> str:
    """Return the YAML text of one profile; `KeyError` names those there are."""
    if name not in names(kind):
        raise KeyError(f"no {kind} profile {name!r}; there are: {', '.join(names(kind)) or 'none'}")
    return (folder(kind) / f"{name}.yml").read_text(encoding="utf-8")
