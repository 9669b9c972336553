"""A hub with several people: whoever has a verb in a repository has those before it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from starlette.testclient import TestClient

from holdfast_hub_protocol.access import Caller, Verb, Verdict
from holdfast_hub_protocol.application import create_application

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx2

    from conftest import Person, TwoPeople, World
    from holdfast_hub_protocol.access import AccessEvent
    from holdfast_hub_protocol.endpoints import Hub
    from holdfast_hub_protocol.identifiers import RepositoryId
    from holdfast_hub_protocol.records import Repository

ORDER = list(Verb)


@dataclass
class Crowd:
    """Authenticator, authorizer and observer; a token is the name of whoever has it."""

    person: Callable[[str], Person]
    people: TwoPeople
    verbs: Mapping[str, Verb]
    hidden: Callable[[str, Repository], bool] = lambda *_: False
    bound: Mapping[str, Sequence[str]] = field(default_factory=dict)
    asked: int = 0  # repositories that were decided on

    def authenticate(self, token: str) -> Caller | None:
        return self.person(token) if token in self.verbs else None

    def recall(self, token_id: str) -> Caller | None:
        return self.authenticate(token_id)

    def may(
        self, caller: Caller, verb: Verb, name: RepositoryId, repository: Repository | None
    ) -> Verdict:
        self.asked += 1
        has = self.verbs[caller.name]
        allowed = repository is not None and ORDER.index(verb) <= ORDER.index(has)
        seen = repository is not None and not self.hidden(caller.name, repository)
        return Verdict(allowed and seen, reason=str(name))

    def readable(self, caller: Caller, repositories: Sequence[Repository]) -> Sequence[Repository]:
        return [
            each
            for each in repositories
            if self.may(caller, Verb.DISCOVER, each.id, each).allowed and self._within(caller, each)
        ]

    def bounds(self, caller: Caller) -> Sequence[str] | None:
        return self.bound.get(caller.name)

    def observe(self, event: AccessEvent) -> None:
        self.people.observe(event)

    def may_create(self, caller: Caller, name: RepositoryId) -> Verdict:
        return self.people.may_create(caller, name)

    def created(self, *_: object) -> None:
        """Note nothing."""

    def _within(self, caller: Caller, repository: Repository) -> bool:
        bounds = self.bounds(caller)
        return bounds is None or any(
            repository.id.folded == bound or repository.id.folded.startswith(bound.rstrip("*"))
            for bound in bounds
        )


@dataclass
class Crowded:
    """A hub that a crowd decides on."""

    hub: Hub
    crowd: Crowd
    client: TestClient

    def ask(self, name: str, method: str, path: str, **body: object) -> httpx2.Response:
        """Send a request as somebody, the body as JSON."""
        headers = {"Authorization": f"Bearer {name}"}
        if method == "GET":
            return self.client.get(path, headers=headers)
        return self.client.request(method, path, headers=headers, json=body)


def crowded(world: World, **verbs: Verb) -> Crowded:
    """Return the world's hub for these people and their verbs."""
    crowd = Crowd(type(world.people.authenticate("ada")), world.people, verbs)  # type: ignore[arg-type] # the type of a person
    hub = replace(world.hub, authenticator=crowd, authorizer=crowd, observer=crowd)
    return Crowded(hub, crowd, TestClient(create_application(hub), follow_redirects=False))
