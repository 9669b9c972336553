"""The events of reviews, as the ledger has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_hub_protocol.access import UnavailableError
from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_model_registry.admission.findings import Finding
    from holdfast_model_registry.review.states import Actor
    from holdfast_trust.ledger import Ledger


def note_state(  # noqa: PLR0913 - an event is all of this
    ledger: Ledger,
    actor: Actor,
    model: str,
    commit: str,
    *,
    before: str,
    after: str,
    note: str = "",
    digest: str = "",
    approvals: Sequence[str] = (),
) -> None:
    """Put a revision's transition on the ledger; UnavailableError if that fails."""
    _append(
        ledger,
        {
            "action": "model.state",
            **_who(actor),
            "model": model,
            "commit": commit,
            "before": before,
            "after": after,
            "note": note,
            "digest": digest,
            "approvals": list(approvals),
        },
    )


def note_approval(  # noqa: PLR0913 - an event is all of this
    ledger: Ledger, actor: Actor, model: str, commit: str, *, note: str, digest: str, needed: int
) -> None:
    """Put one person's approval on the ledger, whether or not more are needed."""
    _append(
        ledger,
        {
            "action": "model.approve",
            **_who(actor),
            "model": model,
            "commit": commit,
            "note": note,
            "digest": digest,
            "needed": needed,
        },
    )


def note_refusal(ledger: Ledger, actor: Actor, model: str, findings: Sequence[Finding]) -> None:
    """Put what was not taken in on the ledger."""
    _append(
        ledger,
        {
            "action": "model.refuse",
            **_who(actor),
            "model": model,
            "findings": [str(finding)[:300] for finding in findings[:20]],
        },
    )


def note_withdrawal(ledger: Ledger, actor: Actor, model: str) -> None:
    """Put on the ledger that a model was taken out of the site."""
    _append(ledger, {"action": "model.withdraw", **_who(actor), "model": model})


def _who(actor: Actor) -> dict[str, str]:
    return {"actor": actor.name, "actor_kind": actor.kind, "token": actor.token}


def _append(ledger: Ledger, event: dict[str, object]) -> None:
    try:
        ledger.append(event)
    except TrustError as error:
        raise UnavailableError(str(error)) from error
