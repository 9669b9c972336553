"""Gated repositories: who asks, who decides, and what each is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event
from starlette.testclient import TestClient

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.access import Caller, UnavailableError, Verb, Verdict
from holdfast_hub_protocol.access_requests import accepted, access_requests, standing
from holdfast_hub_protocol.application import create_application
from holdfast_hub_protocol.directory import TokenDescription
from holdfast_hub_protocol.identifiers import RepositoryId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx2
    import sqlalchemy as sa

    from conftest import World
    from holdfast_hub_protocol.access import AccessEvent
    from holdfast_hub_protocol.records import Repository

NAME = "org/gated"
BASE = f"/api/models/{NAME}/user-access-request"
TEAMS: dict[str, dict[str, str]] = {
    "ada": {"org": "admin"},
    "ben": {"org": "read", "other": "write"},
    "cleo": {"other": "read"},
    "dan": {},
}


@dataclass(frozen=True)
class Person:
    name: str
    roles: Mapping[str, str]
    kind: str = "user"
    token_id: str = "t1"

    @property
    def teams(self) -> tuple[str, ...]:
        return tuple(self.roles)

    @property
    def email(self) -> str:
        return f"{self.name}@users.invalid"


@dataclass
class Club:
    """Ada administers, everybody discovers but dan; the gate lets in who was accepted."""

    engine: sa.Engine
    events: list[AccessEvent] = field(default_factory=list)

    def authenticate(self, token: str) -> Caller | None:
        return Person(token, TEAMS[token]) if token in TEAMS else None

    def recall(self, token_id: str) -> Caller | None:
        return self.authenticate(token_id)

    def may(
        self, caller: Caller, verb: Verb, name: RepositoryId, repository: Repository | None
    ) -> Verdict:
        if repository is None or caller.name == "dan":
            return Verdict(allowed=False, reason=str(name))
        if verb is Verb.READ and repository.gated and caller.name != "ada":
            let_in = accepted(self.engine, caller.name, [repository.key])
            return Verdict(repository.key in let_in, message="ask first")
        return Verdict(caller.name == "ada" or verb in {Verb.DISCOVER, Verb.READ})

    def readable(self, caller: Caller, repositories: Sequence[Repository]) -> Sequence[Repository]:
        return [] if caller.name == "dan" else repositories

    def bounds(self, caller: Caller) -> Sequence[str] | None:  # noqa: ARG002 - unbound
        return None

    def observe(self, event: AccessEvent) -> None:
        self.events.append(event)

    def members(self, team: str) -> Mapping[str, str] | None:
        found = {user: teams[team] for user, teams in TEAMS.items() if team in teams}
        return found or None

    def teams(self, user: str) -> Mapping[str, str] | None:
        return TEAMS.get(user)

    def token(self, caller: Caller) -> TokenDescription:
        return TokenDescription(f"{caller.name}'s", 1_700_000_000)


@dataclass
class Gate:
    world: World
    club: Club
    client: TestClient

    def set(self, gated: str) -> None:
        table = schema.repositories
        with self.world.metadata.engine.begin() as connection:
            connection.execute(table.update().where(table.c.name == "gated").values(gated=gated))

    def ask(self, who: str, method: str, path: str, **options: object) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {who}"}
        return self.client.request(method, path, headers=headers, **options)  # type: ignore[arg-type]  # json, content

    def post(self, who: str, what: str, **body: object) -> int:
        return self.ask(who, "POST", f"{BASE}/{what}", json=body).status_code

    def knock(self, who: str) -> httpx2.Response:
        return self.ask(who, "POST", f"/{NAME}/ask-access")

    def reads(self, who: str) -> int:
        return self.ask(who, "GET", f"/{NAME}/resolve/main/README.md").status_code

    def names(self, status: str) -> list[str]:
        answer = self.ask("ada", "GET", f"{BASE}/{status}")
        assert answer.status_code == 200
        assert all(item["status"] == status for item in answer.json())
        return [item["user"]["user"] for item in answer.json()]


@pytest.fixture
def gate(world: World) -> Gate:
    world.publish(NAME, [world.store("README.md", b"x")])
    club = Club(world.metadata.engine)
    hub = replace(world.hub, authenticator=club, authorizer=club, observer=club, directory=club)
    client = TestClient(create_application(hub), raise_server_exceptions=False)
    made = Gate(world, club, client)
    made.set("manual")
    return made


def test_who_asks_waits_for_an_admin(gate: Gate) -> None:
    refused = gate.ask("ben", "GET", f"/{NAME}/resolve/main/README.md")
    assert (refused.status_code, refused.headers["x-error-code"]) == (403, "GatedRepo")
    assert refused.headers["x-error-message"] == "ask first"
    assert gate.ask("ben", "GET", f"/api/models/{NAME}").status_code == 200
    assert gate.ask("ben", "GET", f"/api/models/{NAME}/auth-check").status_code == 403
    assert gate.knock("ben").json() == {"status": "pending"}
    assert gate.knock("ben").json() == {"status": "pending"}
    assert (gate.names("pending"), gate.reads("ben")) == (["ben"], 403)
    assert gate.post("ada", "handle", user="ben", status="accepted") == 200
    assert (gate.names("accepted"), gate.names("pending")) == (["ben"], [])
    assert gate.reads("ben") == 200
    assert gate.reads("cleo") == 403
    assert gate.knock("ben").json() == {"status": "accepted"}


def test_an_automatic_gate_opens_to_who_asks(gate: Gate) -> None:
    assert gate.knock("cleo").json()["status"] == "pending"
    gate.set("auto")
    assert gate.reads("cleo") == 403
    assert gate.knock("cleo").json()["status"] == "accepted"
    assert gate.reads("cleo") == 200
    assert gate.knock("ben").json()["status"] == "accepted"


def test_granted_cancelled_rejected_accepted(gate: Gate) -> None:
    assert gate.post("ada", "grant", user="ben") == 200
    assert gate.reads("ben") == 200
    assert gate.post("ada", "handle", user="ben", status="pending") == 200
    assert (gate.names("pending"), gate.reads("ben")) == (["ben"], 403)
    said = "not this year"
    assert gate.post("ada", "handle", user="ben", status="rejected", rejectionReason=said) == 200
    assert (gate.names("rejected"), gate.reads("ben")) == (["ben"], 403)
    key = gate.world.metadata.repository(RepositoryId.parse(NAME))
    assert key is not None
    found = standing(gate.world.metadata.engine, "ben", key.key)
    assert found is not None
    assert (found.status, found.reason) == ("rejected", said)
    assert gate.knock("ben").json()["status"] == "rejected", "asking again does not help"
    gate.set("auto")
    assert gate.knock("ben").json()["status"] == "rejected"
    (item,) = gate.ask("ada", "GET", f"{BASE}/rejected").json()
    request_id = item["requestId"]
    assert gate.post("ada", "handle", requestId=request_id, status="accepted") == 200
    assert gate.reads("ben") == 200
    assert gate.post("ada", "handle", user="ben", status="rejected") == 200
    assert gate.post("ada", "grant", user="ben") == 200
    assert gate.reads("ben") == 200


def test_what_cannot_be_done_says_so(gate: Gate) -> None:
    assert gate.post("ada", "grant", user="ben") == 200
    for body, status in (
        ({"user": "ben", "status": "accepted"}, 404),
        ({"user": "cleo", "status": "accepted"}, 404),
        ({"requestId": "0" * 24, "status": "accepted"}, 404),
        ({"user": "ben", "status": "owner"}, 400),
        ({"user": "ben"}, 400),
        ({"status": "accepted"}, 400),
        ({"user": "ben", "requestId": "0" * 24, "status": "pending"}, 400),
        ({"user": 7, "status": "pending"}, 400),
        ({"user": "b\0", "status": "pending"}, 400),
        ({"user": "ben", "status": "rejected", "rejectionReason": "x" * 201}, 400),
        ({"user": "ben", "status": "pending", "rejectionReason": "x"}, 400),
        ({"user": "ben", "status": "rejected", "rejectionReason": 7}, 400),
    ):
        assert gate.post("ada", "handle", **body) == status, body
    for body, status in (({"user": "ben"}, 400), ({"user": "nobody"}, 404), ({}, 400)):
        assert gate.post("ada", "grant", **body) == status, body
    assert gate.ask("ada", "GET", f"{BASE}/owner").status_code == 404
    assert gate.ask("ada", "GET", f"{BASE}/pending?cursor=x").status_code == 400
    assert gate.names("accepted") == ["ben"]
    gate.set("")
    for listed in ("pending", "accepted", "rejected"):
        assert gate.ask("ada", "GET", f"{BASE}/{listed}").status_code == 400
    assert gate.post("ada", "grant", user="cleo") == 400
    assert gate.post("ada", "handle", user="ben", status="pending") == 400
    assert gate.knock("cleo").status_code == 400


@pytest.mark.parametrize("who", ["ben", "dan"])
def test_only_admins_decide_and_who_may_not_see_it_sees_nothing(gate: Gate, who: str) -> None:
    gate.knock("cleo")
    status = 404 if who == "dan" else 403
    assert gate.ask(who, "GET", f"{BASE}/pending").status_code == status
    assert gate.post(who, "grant", user=who) == status
    assert gate.post(who, "handle", user="cleo", status="accepted") == status
    if who == "dan":
        absent = gate.ask(who, "POST", "/org/absent/ask-access")
        hidden = gate.knock(who)
        assert (hidden.status_code, hidden.content) == (absent.status_code, absent.content)
    assert gate.names("accepted") == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/{}"),
        ("HEAD", "/{}/resolve/main/README.md"),
        ("GET", "/api/models/{}/tree/main"),
        ("POST", "/api/models/{}/commit/main"),
        ("POST", "/{}/ask-access"),
        ("GET", "/api/models/{}/user-access-request/pending"),
        ("DELETE", "/api/models/{}/tag/v1"),
    ],
)
def test_what_is_hidden_takes_the_steps_of_what_is_absent(
    gate: Gate, method: str, path: str
) -> None:
    with gate.world.metadata.engine.begin() as connection:
        connection.execute(
            schema.redirects.insert().values(kind="model", folded="org/before", repository_id=1)
        )
    statements: list[str] = []

    @event.listens_for(gate.world.metadata.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    def steps(name: str) -> tuple[list[str], int, bytes]:
        statements.clear()
        answer = gate.ask("dan", method, path.format(name))
        assert answer.status_code == 404
        return list(statements), len(gate.club.events), answer.content

    steps(NAME)  # connections are opened
    asked, _, said = steps("org/absent")
    for name in (NAME, "org/before", "ORG/Gated"):
        assert steps(name)[::2] == (asked, said), name


@pytest.mark.parametrize(
    ("content", "kind", "fields"),
    [
        (b"", "", None),
        (b"institute=Holdfast&purpose=a+b", "application/x-www-form-urlencoded", "a b"),
        (b'{"institute": "Holdfast", "purpose": "a b"}', "application/json", "a b"),
        (b"%", "application/x-www-form-urlencoded", None),
    ],
)
def test_what_was_filled_in_is_shown_to_admins(
    gate: Gate, content: bytes, kind: str, fields: str | None
) -> None:
    headers = {"Authorization": "Bearer ben", "Content-Type": kind}
    asked = gate.client.post(f"/{NAME}/ask-access", content=content, headers=headers)
    assert asked.status_code == 200
    (item,) = gate.ask("ada", "GET", f"{BASE}/pending").json()
    assert item.get("fields", {}).get("purpose") == fields
    assert "email" not in item["user"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"a=" + b"x" * 9000, 413),
        (b"[]", 400),
        (b"{", 400),
        (b'{"a": "\\u0000"}', 400),
        (b"\xff", 400),
    ],
)
def test_odd_forms_are_refused(gate: Gate, content: bytes, status: int) -> None:
    headers = {"Authorization": "Bearer ben", "Content-Type": "application/json"}
    asked = gate.client.post(f"/{NAME}/ask-access", content=content, headers=headers)
    assert asked.status_code == status
    assert gate.names("pending") == []


def test_many_who_ask_at_once_make_one_request_each_and_pages_hold_them_all(gate: Gate) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(gate.knock, ["ben", "cleo"] * 6))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(gate.names("pending")) == ["ben", "cleo"]
    first = gate.ask("ada", "GET", f"{BASE}/pending?limit=1")
    after = first.links["next"]["url"]
    second = gate.ask("ada", "GET", after)
    assert "next" not in second.links
    users = [answer.json()[0]["user"]["user"] for answer in (first, second)]
    assert sorted(users) == ["ben", "cleo"]


def test_requests_go_with_their_repository(gate: Gate) -> None:
    gate.knock("ben")
    engine = gate.world.metadata.engine
    with engine.begin() as connection:
        for table in ("refs", "commits", "entries", "snapshots", "repositories"):
            connection.execute(schema.metadata.tables[table].delete())
    with engine.connect() as connection:
        assert connection.execute(access_requests.select()).all() == []


def test_the_record_says_who_let_whom_in_before_they_are(gate: Gate) -> None:
    gate.post("ada", "grant", user="ben")
    before, after = gate.club.events[-2:]
    assert (before.status, after.status) == (0, 200)
    for each in (before, after):
        assert (each.operation, each.verb, each.kind) == ("access-requests", "admin", "model")
        assert each.repository == NAME
        assert dict(each.details) == {"user": "ben", "standing": "accepted"}


@pytest.mark.parametrize("what", ["ask", "handle", "grant"])
def test_what_cannot_be_recorded_does_not_happen(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    gate.knock("cleo")

    def full(*_: object) -> None:
        raise UnavailableError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Club, "observe", full)
        if what == "ask":
            assert gate.knock("ben").status_code == 503
        else:
            body = {"user": "ben"} if what == "grant" else {"user": "cleo", "status": "accepted"}
            assert gate.post("ada", what, **body) == 503
    assert (gate.names("pending"), gate.names("accepted")) == (["cleo"], [])


def test_organisations_are_told_to_their_members_and_to_who_sees_what_they_own(
    gate: Gate,
) -> None:
    def told(who: str, path: str) -> tuple[int, object]:
        answer = gate.ask(who, "GET", f"/api/organizations/{path}")
        return answer.status_code, answer.json()

    status, org = told("ben", "org/overview")
    assert (status, org["name"], org["numUsers"], org["numModels"]) == (200, "org", 2, 1)  # type: ignore[index]
    status, people = told("ben", "org/members")
    assert [(each["user"], each["role"]) for each in people] == [("ada", "admin"), ("ben", "read")]  # type: ignore[attr-defined]
    status, org = told("cleo", "org/overview")
    assert (status, "numUsers" in org, org["numModels"]) == (200, False, 1)  # type: ignore[operator, index]
    assert told("cleo", "org/members") == (200, [])
    assert told("cleo", "org/followers") == (200, [])
    for path in ("org/overview", "org/members", "org/followers"):
        status, hidden = told("dan", path)
        assert (status, hidden) == (404, {"error": "org does not exist"})
    assert told("ada", "other/overview")[0] == told("ada", "none/overview")[0] == 404
    assert told("ada", "o%00/members")[0] == 404


def test_what_repositories_store_is_told_to_their_team_page_by_page(gate: Gate) -> None:
    gate.world.publish("org/second", [gate.world.store("w.bin", b"w" * 30, lfs=True)])
    gate.world.publish("ada/own", [gate.world.store("w.bin", b"w" * 10, lfs=True)])
    path = "/api/organizations/org/settings/repositories"
    first = gate.ask("ben", "GET", f"{path}?limit=1")
    second = gate.ask("ben", "GET", first.links["next"]["url"])
    assert "next" not in second.links
    items = [*first.json(), *second.json()]
    assert [(item["id"], item["type"]) for item in items] == [
        ("org/gated", "model"),
        ("org/second", "model"),
    ]
    assert all(item["storage"] >= 0 and item["visibility"] == "private" for item in items)
    own = gate.ask("ada", "GET", "/api/settings/repositories").json()
    assert [item["id"] for item in own] == ["ada/own"]
    for who in ("cleo", "dan"):
        assert gate.ask(who, "GET", path).status_code == 404
    assert gate.ask("ada", "GET", f"{path}?cursor=x").status_code == 400


def test_users_are_told_to_who_shares_a_team_with_them(gate: Gate) -> None:
    def told(who: str, name: str) -> tuple[int, list[str]]:
        answer = gate.ask(who, "GET", f"/api/users/{name}/overview")
        return answer.status_code, [org["name"] for org in answer.json().get("orgs", [])]

    assert told("dan", "dan") == (200, [])
    assert told("cleo", "ben") == (200, ["other"])
    assert told("ada", "ben") == (200, ["org"])
    assert told("ada", "cleo")[0] == told("ada", "nobody")[0] == 404
    assert gate.ask("cleo", "GET", "/api/users/ben/followers").json() == []
    assert gate.ask("cleo", "GET", "/api/users/ada/following").status_code == 404


@pytest.mark.parametrize(
    ("bounds", "shown"),
    [
        ({}, ("write", None, None)),
        ({"verbs": ("read",)}, ("read", None, None)),
        (
            {"verbs": ("write",)},
            (
                "fineGrained",
                ["repo.content.read", "discussion.write", "repo.write"],
                [
                    {"type": "user", "name": "ben"},
                    {"type": "org", "name": "org"},
                    {"type": "org", "name": "other"},
                ],
            ),
        ),
        (
            {"teams": ("ben", "org"), "verbs": ("infer",)},
            (
                "fineGrained",
                ["inference.serverless.write"],
                [{"type": "user", "name": "ben"}, {"type": "org", "name": "org"}],
            ),
        ),
        (
            {"repositories": ("org/*", "other/x"), "verbs": ("read", "infer")},
            (
                "fineGrained",
                ["repo.content.read", "inference.serverless.write"],
                [{"type": "org", "name": "org"}, {"type": "model", "name": "other/x"}],
            ),
        ),
    ],
)
def test_whoami_tells_roles_and_what_the_token_is_bound_to(
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    bounds: dict[str, tuple[str, ...]],
    shown: tuple[str, list[str] | None, list[dict[str, str]] | None],
) -> None:
    role, permissions, entities = shown
    described = TokenDescription("laptop", 1_700_000_000, **bounds)
    monkeypatch.setattr(Club, "token", lambda *_: described)
    document = gate.ask("ben", "GET", "/api/whoami-v2").json()
    assert [(org["name"], org["roleInOrg"]) for org in document["orgs"]] == [
        ("org", "read"),
        ("other", "write"),
    ]
    token = document["auth"]["accessToken"]
    assert (token["displayName"], token["role"]) == ("laptop", role)
    assert token["createdAt"] == "2023-11-14T22:13:20.000Z"
    if permissions is None:
        assert "fineGrained" not in token
        return
    scoped = token["fineGrained"]["scoped"]
    assert [each["entity"] for each in scoped] == entities
    assert all(each["permissions"] == permissions for each in scoped)
