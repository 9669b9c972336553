"""The command group `model`: reviews from the machine that keeps them.

Without a token the actor is the operator who runs the command, and their word counts as one
approval. With one (--token-file, or HOLDFAST_TOKEN) it is the user whom the token proves.
"""

from __future__ import annotations

import functools
import getpass
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from sqlalchemy.exc import SQLAlchemyError

from holdfast_hub_protocol.access import UnavailableError
from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_model_registry.admission.observing import Observer
from holdfast_model_registry.admission.policy import read_policy
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.policy import CedarAuthorizer
from holdfast_model_registry.review import store
from holdfast_model_registry.review.reviewing import Reviewing
from holdfast_model_registry.review.states import LOCAL, Actor, State, TransitionError
from holdfast_model_registry.review.withdrawing import withdraw
from holdfast_model_registry.settings import read_settings
from holdfast_model_registry.storage import open_storage
from holdfast_trust.decisions import Decisions
from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import Ledger
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast_hub_protocol.records import Commit, Repository
    from holdfast_model_registry.settings import Settings
    from holdfast_trust.principals import Principal

_PATH: Final = click.Path(path_type=Path)
_ACTOR: Final = "HOLDFAST_TRUST_ACTOR"  # who the installer says sits at the other end of SSH
_TOKEN: Final = "HOLDFAST_TOKEN"  # noqa: S105 - the variable's name
EXIT_REFUSED: Final = 3


@dataclass(frozen=True)
class Desk:
    """An open registry, and who sits at it."""

    reviewing: Reviewing
    settings: Settings
    actor: Actor
    principal: Principal | None

    def revision(self, text: str) -> tuple[Repository, Commit]:
        """Return what `org/name` or `org/name@revision` names; the revision is main if not said."""
        name, _, revision = text.partition("@")
        metadata = self.reviewing.storage.metadata
        repository = metadata.repository(RepositoryId.parse(name))
        if repository is None:
            raise RegistryError(f"there is no model {name}", next_command="holdfast model list")
        commit = metadata.commit(repository, revision or "main") or self._short(
            repository, revision
        )
        if commit is None:
            raise RegistryError(
                f"{name} has no revision {revision or 'main'}",
                next_command=f"holdfast model list --model {name}",
            )
        return repository, commit

    def _short(self, repository: Repository, revision: str) -> Commit | None:
        """Return the one reviewed commit whose id begins like this."""
        if len(revision) < 7:
            return None
        with self.reviewing.engine.connect() as connection:
            found = {
                each.review.commit
                for each in store.listed(connection)
                if each.review.repository == repository.key
                and each.review.commit.startswith(revision)
            }
        if len(found) != 1:
            return None
        return self.reviewing.storage.metadata.commit(repository, found.pop())

    def check(self, repository: Repository) -> None:
        """Refuse whoever came with a token that does not carry this right."""
        if self.principal is None:
            return
        authorizer = CedarAuthorizer(Decisions(), self.reviewing.engine)
        verdict = authorizer.may_approve(self.principal, repository)
        if not verdict.allowed:
            raise TransitionError(
                f"{self.actor.name} may not: {verdict.message or 'reviewers and operators may'}",
                forbidden=True,
            )


def _registry(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which registry and who acts, and errors in words."""

    @click.option("--data", type=_PATH, metavar="DIR", help="The registry's folder.")
    @click.option("--database", metavar="URL", help="As for serve.")
    @click.option("--trust-database", metavar="URL", help="As for serve; read with a token only.")
    @click.option("--ledger", type=_PATH, metavar="DIR", help="As for serve.")
    @click.option("--policy", type=_PATH, metavar="FILE", help="As for serve.")
    @click.option("--config", type=_PATH, metavar="FILE", help="As for serve; --data from there.")
    @click.option(
        "--token-file", metavar="FILE", help="Act as the user of this token; - reads it from stdin."
    )
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @functools.wraps(command)
    def wrapped(config: Path | None, token_file: str | None, **options: Any) -> None:  # noqa: ANN401 - the command's own options
        names = ("data", "database", "trust_database", "ledger", "policy")
        given = {name: options.pop(name) for name in names}
        try:
            with _desk(read_settings(config, given), _secret(token_file)) as desk:
                command(desk, **options)
        except TransitionError as error:
            click.echo(f"Refused: {error}", err=True)
            sys.exit(EXIT_REFUSED)
        except (TrustError, BadIdentifierError, UnavailableError, OSError) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).splitlines()[0]
            click.echo(f"Error: the database cannot be used: {cause}", err=True)
            sys.exit(1)

    return wrapped


def _secret(token_file: str | None) -> str:
    if token_file is None:
        return os.environ.get(_TOKEN, "").strip()
    from_stdin = token_file == "-"  # noqa: S105 - a dash is no secret
    text = sys.stdin.read() if from_stdin else Path(token_file).read_text(encoding="utf-8")
    if not text.strip():
        raise RegistryError("there is no token", where=token_file)
    return text.strip()


@contextmanager
def _desk(settings: Settings, secret: str) -> Iterator[Desk]:
    storage = open_storage(settings.locations)
    try:
        principal = _proven(settings, secret) if secret else None
        actor = Actor(os.environ.get(_ACTOR) or _login(), LOCAL)
        if principal is not None:
            actor = Actor(principal.name, principal.kind, principal.token_id)
        with Ledger(settings.locations.ledger_folder) as ledger:
            policy = read_policy(settings.policy)
            yield Desk(Reviewing(storage, policy, ledger, Observer()), settings, actor, principal)
    finally:
        storage.close()


def _proven(settings: Settings, secret: str) -> Principal:
    trust = TrustStore(settings.locations.trust_url)
    try:
        principal = trust.authenticate(secret)
    finally:
        trust.close()
    if principal is None:
        raise RegistryError(
            "the token proves nobody",
            cause="unknown, expired or revoked",
            next_command="holdfast token list NAME",
        )
    return principal


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid-{os.getuid()}"


@click.group()
def model() -> None:
    """Which revisions wait, which are served, and who let them.

    \b
    holdfast-model-registry model list --config registry.yml --state scanned
    holdfast-model-registry model approve org/name --config registry.yml --token-file ada.token
    """  # noqa: D301 - \b is click's mark for text to leave as it is


@model.command("list")
@click.option("--state", type=click.Choice([str(state) for state in State]), help="Only these.")
@click.option("--model", "name", metavar="ORG/NAME", help="Only revisions of this one.")
@_registry
def list_command(desk: Desk, *, state: str | None, name: str | None, as_json: bool) -> None:
    """List the revisions of models with their states, newest change first."""
    with desk.reviewing.engine.connect() as connection:
        found = store.listed(connection, State(state) if state else None)
    items = [desk.reviewing.item(each) for each in found if name is None or str(each.id) == name]
    if as_json:
        click.echo(json.dumps(items, indent=2))
        return
    for item in items:
        words = f"{item['approvals']} of {item['approvals_needed']} approvals"
        if item["findings"]:
            words += f", {item['findings']} findings"
        click.echo(f"{item['state']:<12} {item['id']}@{item['commit'][:12]}  {words}")
    if not items:
        click.echo("no revisions", err=True)


@model.command("show")
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@_registry
def show(desk: Desk, *, revision: str, as_json: bool) -> None:
    """Show one revision's review: findings, approvals, history; main if no revision is said."""
    _tell(desk.reviewing.detail(*desk.revision(revision)), as_json=as_json)


@model.command("approve")
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@click.option("--note", default="", help="What others should know.")
@_registry
def approve(desk: Desk, *, revision: str, note: str, as_json: bool) -> None:
    """Let a revision be served; where the policy asks for two people, each says so once."""
    repository, commit = desk.revision(revision)
    desk.check(repository)
    desk.reviewing.approve(desk.actor, repository, commit, note)
    _tell(desk.reviewing.detail(repository, commit), as_json=as_json)


@model.command("quarantine")
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@click.option("--note", required=True, help="Why; whoever is refused it will read this.")
@_registry
def quarantine(desk: Desk, *, revision: str, note: str, as_json: bool) -> None:
    """Take a revision back: only its writers and reviewers get it, no host serves it."""
    _hold_back(desk, revision, State.QUARANTINED, note, as_json=as_json)


@model.command("reject")
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@click.option("--note", required=True, help="Why; whoever is refused it will read this.")
@_registry
def reject(desk: Desk, *, revision: str, note: str, as_json: bool) -> None:
    """Quarantine a revision for good: no approval leads out, until it is quarantined again."""
    _hold_back(desk, revision, State.REJECTED, note, as_json=as_json)


@model.command("withdraw")
@click.option("--except", "keep", multiple=True, metavar="ORG/NAME", help="Models of the site.")
@_registry
def withdraw_command(desk: Desk, *, keep: tuple[str, ...], as_json: bool) -> None:
    """Let nobody fetch imported models that are not named: those taken out of the site file."""
    kept = {RepositoryId.parse(each) for each in keep}
    gone = [
        str(name)
        for name in withdraw(desk.reviewing.engine, desk.reviewing.ledger, desk.actor, kept)
    ]
    if as_json:
        click.echo(json.dumps({"changed": bool(gone), "withdrawn": gone}, indent=2))
        return
    click.echo(f"withdrawn: {', '.join(gone)}" if gone else "nothing to withdraw", err=True)


def _hold_back(desk: Desk, revision: str, state: State, note: str, *, as_json: bool) -> None:
    repository, commit = desk.revision(revision)
    desk.check(repository)
    desk.reviewing.hold_back(desk.actor, repository, commit, state, note)
    _tell(desk.reviewing.detail(repository, commit), as_json=as_json)


def _tell(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{document['id']}@{document['commit']}")
    click.echo(f"  state      {document['state']}")
    if document["reason"]:
        click.echo(f"  reason     {document['reason']}")
    click.echo(f"  digest     {document['digest']}")
    click.echo(f"  uploader   {document['uploader']}")
    given = ", ".join(f"{each['by']} ({each['kind']})" for each in document["approvals"]) or "none"
    click.echo(f"  approvals  {given}; {document['approvals_needed']} needed")
    for finding in document["findings"]:
        where = f"{finding['path']}: " if finding["path"] else ""
        danger = " (danger)" if finding["danger"] else ""
        click.echo(f"  {finding['action']:<10} {where}{finding['detail']}{danger}")
