"""Puts what an operator does to a model's replicas on the site's ledger, before it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_installer.errors import HoldfastError
from holdfast_installer.remote import operator_name, run_on

if TYPE_CHECKING:
    from holdfast_installer.site import Site

# The identity role installs this wrapper: it runs holdfast-trust as its own user.
ON_CONTROL = "/usr/local/sbin/holdfast-trust"


def record(site: Site, action: str, **fields: str | int) -> None:
    """Append an event; HoldfastError where it cannot be: what is not recorded is not done."""
    words = [f"{name}={value}" for name, value in fields.items()]
    actor = f"HOLDFAST_TRUST_ACTOR={operator_name()}"
    control = site.with_role("control")[0]
    done = run_on(site, control, ["env", actor, ON_CONTROL, "ledger", "note", action, *words])
    if done.returncode:
        raise HoldfastError(
            "It cannot be put on the site's ledger, and so it is not done.",
            where=control.name,
            cause=done.stderr.strip()[-400:],
            next_command="holdfast ledger verify; a site of an older release: holdfast apply first",
        )
