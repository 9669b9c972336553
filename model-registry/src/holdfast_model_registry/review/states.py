"""The states of a revision, and the only ways from one to another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from holdfast_model_registry.admission.findings import Action, Finding, in_words, only

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class State(StrEnum):
    """How far a revision came; `served` is not a state: the serving hosts are asked for that."""

    QUARANTINED = "quarantined"  # its own writers and reviewers get its files, nobody else
    SCANNED = "scanned"  # its readers do, serving hosts do not
    APPROVED = "approved"  # serving hosts do too
    REJECTED = "rejected"  # as quarantined, and no approval leads out


class TransitionError(Exception):
    """A way that does not exist, or not for this person; the message says why."""

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message)
        self.forbidden = forbidden  # the person is the obstacle, not the state


@dataclass(frozen=True)
class Actor:
    """Who acts: a user or service by a token, or an operator on the machine itself (`local`)."""

    name: str
    kind: str
    token: str = ""

    @property
    def person(self) -> str:
        """The name that two-person rules compare: an operator's login without the machine."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class Approval:
    """One person's word for a revision."""

    approver: str
    kind: str
    note: str
    at: str

    @property
    def person(self) -> str:
        """As of Actor."""
        return self.approver.partition("@")[0]


LOCAL: Final = "local"


def settled(findings: Sequence[Finding]) -> State:
    """Return the state that findings alone lead to: a clean scan, or quarantine."""
    held = only(findings, Action.REFUSE, Action.HOLD, Action.WAIT)
    return State.QUARANTINED if held else State.SCANNED


def check_approval(
    state: State,
    findings: Sequence[Finding],
    actor: Actor,
    uploader: str,
    given: Sequence[Approval],
) -> None:
    """Raise TransitionError unless this person may add an approval to those given already."""
    if state is State.REJECTED:
        raise TransitionError("it was rejected; quarantine it first to look at it again")
    if only(findings, Action.WAIT):
        raise TransitionError("its scan is not done yet; try again in a moment")
    if barred := only(findings, Action.REFUSE, Action.HOLD, Action.BAR):
        raise TransitionError(f"the policy does not let it be approved: {in_words(barred)}")
    if actor.kind not in {"user", LOCAL}:
        raise TransitionError("only people approve", forbidden=True)
    if actor.person in {each.person for each in given}:
        raise TransitionError("you approved it already; another person must", forbidden=True)
    if given and actor.person == uploader.partition("@")[0]:
        raise TransitionError(
            "you brought it in; the second approval is another person's", forbidden=True
        )
    # An operator's name is their machine's word, not proven by a token: it counts once.
    if actor.kind == LOCAL and any(each.kind == LOCAL for each in given):
        raise TransitionError(
            "it has an operator's approval already; the second needs a token", forbidden=True
        )


def content_digest(files: Mapping[str, str]) -> str:
    """Return the digest of a revision's content (path -> SHA-256): what an approval is about.

    SHA-256 over {"path": "sha256:…"} as JSON with sorted keys and no spaces; `holdfast plan`
    works out the same of a bundle.
    """
    named = {path: f"sha256:{sha256}" for path, sha256 in files.items()}
    text = json.dumps(named, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
