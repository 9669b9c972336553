"""What goes wrong with what a client sends."""

from __future__ import annotations


class XetError(Exception):
    """A xorb or shard that is malformed, past a limit, or not what it claims; nothing is kept."""


class MissingXorbError(XetError):
    """A shard that builds a file from a xorb which is not here, or no longer."""


class WrongContentError(XetError):
    """A file whose chunks are all here, and which has another SHA-256 than was said."""
