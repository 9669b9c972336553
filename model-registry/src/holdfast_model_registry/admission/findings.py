"""What a policy says of a revision, file by file: values, in the words that people read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MESSAGE_LENGTH: Final = 480  # a header's text is cut at 512
_SHOWN: Final = 3


class Action(StrEnum):
    """What a finding does to a revision, gravest first."""

    REFUSE = "refuse"  # it is not taken in
    HOLD = "hold"  # it stays in quarantine
    WAIT = "wait"  # it stays in quarantine until its scan is done
    BAR = "bar"  # it cannot be approved yet
    FLAG = "flag"  # whoever approves should know


@dataclass(frozen=True)
class Finding:
    """One observation about one file, or with path '' about the whole revision.

    `danger` is what scanners think; they are advice, and change nothing for the better.
    """

    path: str
    name: str  # pickle, archive, format, malformed, remote-code, name, licence, card, …
    action: Action
    detail: str
    danger: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as tables keep and pages show it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Finding:
        """Read what `as_json` wrote."""
        return cls(
            path=document["path"],
            name=document["name"],
            action=Action(document["action"]),
            detail=document["detail"],
            danger=document["danger"],
        )

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}" if self.path else self.detail


def only(findings: Sequence[Finding], *actions: Action) -> list[Finding]:
    """Return the findings of these actions, in their order."""
    return [finding for finding in findings if finding.action in actions]


def in_words(findings: Sequence[Finding]) -> str:
    """Return a sentence of bounded length about the first of them and how many follow."""
    shown = "; ".join(str(finding) for finding in findings[:_SHOWN])
    more = len(findings) - _SHOWN
    if more > 0:
        shown += f"; and {more} more"
    return shown if len(shown) <= MESSAGE_LENGTH else f"{shown[: MESSAGE_LENGTH - 3]}..."
