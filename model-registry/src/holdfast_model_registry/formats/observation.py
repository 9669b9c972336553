"""What looking at one file came to: its format, what is wrong with it, what scanners saw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a policy may allow; the names stand in profiles.
FORMATS: Final = frozenset(
    {"safetensors", "gguf", "onnx", "sentencepiece", "text", "image", "pdf", "numpy", "parquet"}
)
# What no list of formats can allow: it has a rule of its own, or none.
CODE: Final = "code"
PICKLE: Final = "pickle"
ARCHIVE: Final = "archive"
EXECUTABLE: Final = "executable"
OTHER: Final = "other"


# How the advice of a look begins that came to no end; it can be tried again.
FAILED: Final = "it cannot be scanned"


class FormatError(Exception):
    """A file that is not what its format promises; the message is one phrase."""


@dataclass(frozen=True)
class Observation:
    """What a file turned out to be.

    `problem` says why it breaks its own format. `advice` and `dangerous` are what scanners saw:
    they can make a verdict worse, never better. `remote_code` names what a loader would import
    from the repository. Until `complete`, only a part of the file was read.
    """

    format: str
    problem: str = ""
    advice: tuple[str, ...] = ()
    dangerous: bool = False
    remote_code: tuple[str, ...] = ()
    complete: bool = True

    @property
    def failed(self) -> bool:
        """Whether this is no observation, but that none could be made."""
        return any(each.startswith(FAILED) for each in self.advice)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Observation:
        """Read what `as_json` wrote; raise TypeError or KeyError for anything else."""
        return cls(
            format=str(document["format"]),
            problem=str(document["problem"]),
            advice=tuple(map(str, document["advice"])),
            dangerous=bool(document["dangerous"]),
            remote_code=tuple(map(str, document["remote_code"])),
            complete=bool(document["complete"]),
        )
