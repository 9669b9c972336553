"""The commands of the kill switches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from holdfast_trust.switches import KINDS
from holdfast_trust.terminal import Settings, as_json, emit, examples, said, table

if TYPE_CHECKING:
    from holdfast_trust.switches import SwitchKind

_WHAT: Final[dict[SwitchKind, tuple[str, str, str]]] = {
    "agent": ("NAME", "an agent", "scout --reason 'asks in a loop'"),
    "key": ("TOKEN_ID", "one token, by its id", "0f3a9c1e55aa7b21"),
    "user": ("NAME", "a user and the agents that act for them", "ada"),
    "service": ("NAME", "a service", "crawler"),
    "team": ("NAME", "what is counted for a team", "research --reason 'budget under review'"),
    "model": ("ID", "a model, for everybody", "org/name --reason 'leaks its prompt'"),
}


@click.group()
def kill() -> None:
    """Stop something at once: nothing new begins, what is in flight ends within a second."""


def _add(kind: SwitchKind) -> None:
    placeholder, what, example = _WHAT[kind]

    @kill.command(
        name=kind,
        help=f"Stop {what}. Until it is lifted nothing new begins; what is in flight ends "
        "within a second.",
        epilog=examples(f"holdfast-trust kill {kind} {example}"),
    )
    @click.argument("name", metavar=placeholder)
    @click.option("--reason", default="", help="Why; told to those who are stopped.")
    @as_json
    @click.pass_obj
    def command(settings: Settings, name: str, reason: str, as_json: bool) -> None:  # noqa: FBT001 - click
        with settings.store(changes=True) as store:
            changed = store.kill(kind, name, reason)
        emit(
            {"changed": changed, "kind": kind, "name": name, "reason": reason},
            said(changed, f"{kind} {name} is stopped", f"{kind} {name} was stopped already"),
            as_json=as_json,
        )


for _kind in KINDS:
    _add(_kind)


@kill.command(name="list")
@click.option("--all", "lifted", is_flag=True, help="Also those that were lifted.")
@as_json
@click.pass_obj
def kill_list(settings: Settings, lifted: bool, as_json: bool) -> None:  # noqa: FBT001 - click
    """List what is stopped: since when, by whom, why."""
    with settings.store() as store:
        rows = [switch.as_dict() for switch in store.switches(lifted=lifted)]
    columns = ("kind", "name", "since_at", "by", "reason", *(("lifted_at",) if lifted else ()))
    emit(rows, table(rows, columns), as_json=as_json)


@kill.command(name="lift", epilog=examples("holdfast-trust kill lift team research"))
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@as_json
@click.pass_obj
def kill_lift(settings: Settings, kind: SwitchKind, name: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """Let something go on again; what was ended stays ended."""
    with settings.store(changes=True) as store:
        changed = store.lift(kind, name)
    emit(
        {"changed": changed, "kind": kind, "name": name},
        said(changed, f"{kind} {name} may go on", f"{kind} {name} was not stopped"),
        as_json=as_json,
    )
