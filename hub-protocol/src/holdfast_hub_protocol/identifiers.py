"""Names that arrive in a URL or a manifest, checked before anything looks them up."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

KINDS: Final = ("model", "dataset", "space")
MAX_REVISION_LENGTH: Final = 256
MAX_PATH_LENGTH: Final = 1024

_ID_PART: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_RESERVED_NAMESPACES: Final = frozenset({"api", "datasets", "spaces", "models", "_blobs", "v1"})
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_COMMIT_PREFIX: Final = re.compile(r"[0-9a-f]{7,40}")
# What git allows in no reference (git-check-ref-format), and `refs/`, which would be a whole name.
_BAD_IN_REF: Final = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|^[./-]|^refs/|[./]$|\.lock(?:/|$)|^@$"
)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_LAST_CONTROL_CHARACTER: Final = 0x1F
_DELETE: Final = 0x7F


class BadIdentifierError(ValueError):
    """A name that no repository, revision or file can have."""


@dataclass(frozen=True)
class RepositoryId:
    """A repository's whole name as it is written; two that differ in case only are one."""

    kind: str
    namespace: str
    name: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadIdentifierError(f"no such kind of repository: {self.kind!r}")
        for part in (self.namespace, self.name):
            if not _ID_PART.fullmatch(part) or "--" in part or ".." in part:
                raise BadIdentifierError(
                    f"not a repository name: {self.namespace!r}/{self.name!r}; "
                    "use letters, digits, '-', '_' and '.'"
                )
        if self.namespace.lower() in _RESERVED_NAMESPACES or self.name.lower().endswith(".git"):
            raise BadIdentifierError(f"reserved repository name: {self.namespace}/{self.name}")
        if len(str(self)) > 96:
            raise BadIdentifierError("a repository name has at most 96 characters")

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def folded(self) -> str:
        """The name by which it is found: `namespace/name` in lower case."""
        return str(self).lower()

    @classmethod
    def parse(cls, text: str, kind: str = "model") -> RepositoryId:
        """Read `namespace/name`; raise BadIdentifierError for anything else."""
        namespace, slash, name = text.partition("/")
        if not slash:
            raise BadIdentifierError(f"not of the form namespace/name: {text!r}")
        return cls(kind, namespace, name)


def is_commit(text: str) -> bool:
    """Tell whether the text is a whole commit id: 40 lower-case hex digits."""
    return _COMMIT.fullmatch(text) is not None


def is_commit_prefix(text: str) -> bool:
    """Tell whether the text may stand for a commit id: its first 7 to 40 hex digits."""
    return _COMMIT_PREFIX.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """Tell whether the text is a SHA-256 digest: 64 lower-case hex digits."""
    return _SHA256.fullmatch(text) is not None


def decode(encoded: str) -> str:
    """Undo percent-encoding; raise BadIdentifierError unless it is printable UTF-8."""
    try:
        text = unquote_to_bytes(encoded).decode("utf-8", errors="strict")
    except UnicodeError:
        raise BadIdentifierError("not UTF-8") from None
    if _has_control_character(text):
        raise BadIdentifierError("control character")
    return text


def checked_revision(text: str) -> str:
    """Return a revision that may be looked up; raise BadIdentifierError otherwise."""
    if not text or len(text) > MAX_REVISION_LENGTH or _has_control_character(text):
        raise BadIdentifierError("not a revision")
    return text


def checked_ref_name(text: str) -> str:
    """Return a name that a new branch or tag may have; raise BadIdentifierError otherwise.

    Not a commit's: that would hide the commit from whoever asks for it by id.
    """
    checked_revision(text)
    if _BAD_IN_REF.search(text) or is_commit(text):
        raise BadIdentifierError(f"not a name for a branch or tag: {text!r}")
    return text


def checked_path(text: str) -> str:
    """Return a file's path inside a repository; raise BadIdentifierError for any other text.

    Such a path is relative, has no empty, `.` or `..` segment, no backslash and no control
    character, so that a client writing it under a folder stays inside that folder.
    """
    if not text or len(text.encode("utf-8", "surrogatepass")) > MAX_PATH_LENGTH:
        raise BadIdentifierError("a path has 1 to 1024 bytes")
    if _has_control_character(text) or "\\" in text:
        raise BadIdentifierError(f"control character or backslash in path {text!r}")
    if any(part in {"", ".", "..", ".git"} for part in text.split("/")):
        raise BadIdentifierError(f"empty, '.', '..' or '.git' segment in path {text!r}")
    return text


def _has_control_character(text: str) -> bool:
    return any(
        ord(character) <= _LAST_CONTROL_CHARACTER
        or ord(character) == _DELETE
        or "\ud800" <= character <= "\udfff"
        for character in text
    )
