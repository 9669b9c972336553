"""The watch alone: what it ends, when, and what it does while the identity database is away."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from holdfast_gateway.access import Access
from holdfast_gateway.api.calls import CHAT, Call
from holdfast_gateway.api.errors import ApiError
from holdfast_gateway.client import Ended, Inflight
from holdfast_gateway.config import Labels, Model, Trust
from holdfast_gateway.question import Question
from holdfast_gateway.switches import Switches
from holdfast_trust.errors import TrustError
from holdfast_trust.hours import checked_hours
from holdfast_trust.ledger import Ledger
from holdfast_trust.scopes import checked_scope
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

ID = "org/name"
LABELS = Labels(jurisdiction="de", classification="internal")
MODEL = Model(id=ID, upstream="http://127.0.0.1:9", teams=("press", "research"), labels=LABELS)
SOON = 3.0  # a bound of correctness on a busy machine; the promise is one second
ASK = checked_scope(["infer"], [], [ID])


class Site:
    """An operator's side of the database, and the gateway's."""

    def __init__(self, url: str, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger")
        self.operator = TrustStore(url, ledger=self.ledger, actor="tester")
        self.operator.create_schema()
        for team in ("press", "research"):
            self.operator.add_team(team)
        self.operator.add_user("ada", ("research",))
        self.operator.add_user("bea", ("research",))
        self.secrets = {
            "ada": self.operator.issue_token("ada").secret,
            "bea": self.operator.issue_token("bea").secret,
            "scout": self.operator.create_agent(
                "scout", "ada", lifetime_seconds=3600, scope=ASK
            ).secret,
        }
        self.access = Access(Trust(database=url))
        self.inflight = Inflight()

    def close(self) -> None:
        self.access.close()
        self.operator.close()
        self.ledger.close()

    async def question(self, name: str, team: str = "research", **more: Any) -> Question:
        started = time.perf_counter()
        principal = await self.access.authenticate(f"Bearer {self.secrets[name]}")
        fields: dict[str, Any] = {
            "request_id": f"req_{name}_{started}",
            "started": started,
            "time": datetime.now(UTC),
            "principal": principal,
            "team": team,
            "session": None,
            "call": Call(CHAT, ID, {}),
            "model": MODEL,
            "decision": self.access.may_infer(principal, ID, MODEL),
        }
        return Question(**(fields | more))

    @asynccontextmanager
    async def watched(self, **more: Any) -> AsyncIterator[Switches]:
        blind = more.pop("blind_seconds", 60)
        async with Switches(self.access, self.inflight, blind, **more) as switches:
            yield switches

    def begin(self, question: Question, work: Coroutine[None, None, None] | None = None) -> Any:
        """Run a request that never ends by itself."""

        async def silent() -> dict[str, Any]:
            await asyncio.sleep(3600)
            return {}

        async def forever() -> None:
            await asyncio.sleep(3600)

        run = self.inflight.run(question, silent, work or forever())
        return asyncio.ensure_future(run)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Site]:
    made = Site(f"sqlite:///{tmp_path}/identity.db", tmp_path)
    yield made
    made.close()


@pytest.fixture
def large(tmp_path: Path, postgresql: Callable[[], str]) -> Iterator[Site]:
    made = Site(postgresql(), tmp_path)
    yield made
    made.close()


async def ended(running: Any, code: str, seconds: float = SOON) -> ApiError:
    error = await asyncio.wait_for(running, seconds)
    assert isinstance(error, ApiError), error
    assert error.code == code, error.message
    return error


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - what is tested tells nobody
            await asyncio.sleep(0.02)


def key_of(site: Site, name: str) -> str:
    return str(site.operator.tokens(name)[0]["id"])


ORDERS: dict[str, tuple[Callable[[Site], Any], str, set[str]]] = {
    "agent": (lambda site: site.operator.kill("agent", "scout"), "stopped", {"scout"}),
    "user": (lambda site: site.operator.kill("user", "ada"), "stopped", {"ada", "scout"}),
    "key": (lambda site: site.operator.kill("key", key_of(site, "ada")), "stopped", {"ada"}),
    "team": (
        lambda site: site.operator.kill("team", "research"),
        "stopped",
        {"ada", "bea", "scout"},
    ),
    "model": (lambda site: site.operator.kill("model", ID), "stopped", {"ada", "bea", "scout"}),
    "revoked": (
        lambda site: site.operator.revoke_token(key_of(site, "bea")),
        "key_ended",
        {"bea"},
    ),
    "rotated": (
        lambda site: site.operator.issue_token("bea", rotate=True),
        "key_ended",
        {"bea"},
    ),
    "disabled": (
        lambda site: site.operator.set_disabled("ada", disabled=True),
        "key_ended",
        {"ada", "scout"},
    ),
    "left the team": (
        lambda site: site.operator.remove_member("research", "ada"),
        "key_ended",
        {"ada", "scout"},
    ),
    "agent ended": (lambda site: site.operator.end_agent("scout"), "key_ended", {"scout"}),
}


async def _an_order_ends_what_it_names_and_nothing_else(site: Site, order: str) -> None:
    act, code, whom = ORDERS[order]
    async with site.watched():
        running = {name: site.begin(await site.question(name)) for name in site.secrets}
        await asyncio.sleep(0.25)  # watched, and proven once
        assert not any(each.done() for each in running.values())
        act(site)
        for name in whom:
            await ended(running[name], code)
        await asyncio.sleep(0.25)
        assert {name for name, each in running.items() if each.done()} == whom
        assert len(site.inflight) == len(running) - len(whom)
        for each in running.values():
            each.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)


@pytest.mark.parametrize("order", ORDERS)
async def test_an_order_ends_what_it_names_and_nothing_else(small: Site, order: str) -> None:
    await _an_order_ends_what_it_names_and_nothing_else(small, order)


@pytest.mark.parametrize("order", ["user", "key", "rotated", "left the team"])
async def test_it_does_so_on_postgresql(large: Site, order: str) -> None:
    await _an_order_ends_what_it_names_and_nothing_else(large, order)


async def test_a_team_that_is_not_asked_for_may_be_lost(small: Site) -> None:
    small.operator.add_member("press", "bea")
    async with small.watched():
        running = small.begin(await small.question("bea"))
        small.operator.remove_member("press", "bea")
        small.operator.add_member("research", "bea", "write")
        await asyncio.sleep(0.7)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_team_that_pays_may_not_be_lost(small: Site) -> None:
    """Another team of theirs may use the model too: it was not asked to pay for this."""
    small.operator.add_member("press", "bea")
    async with small.watched():
        running = small.begin(await small.question("bea"))
        await asyncio.sleep(0.3)
        small.operator.remove_member("research", "bea")
        assert "research" in (await ended(running, "key_ended")).message


async def test_a_token_that_came_back_does_not_bring_its_answers_back(small: Site) -> None:
    secret = "a-secret-of-a-seed-file"
    small.secrets["bea"] = small.operator.issue_token("bea", "seeded", secret=secret).secret
    async with small.watched():
        running = small.begin(await small.question("bea"))
        await asyncio.sleep(0.3)
        seeded = next(each for each in small.operator.tokens("bea") if each["name"] == "seeded")
        small.operator.revoke_token(str(seeded["id"]))
        small.operator.issue_token("bea", "seeded", secret=secret, rotate=True)
        await ended(running, "key_ended")


async def test_who_came_in_by_an_old_proof_is_found_out(small: Site) -> None:
    """The body of a slow client comes after its key was revoked, and the watch has looked."""
    async with small.watched():
        question = await small.question("bea")
        small.operator.revoke_token(key_of(small, "bea"))
        await asyncio.sleep(0.7)
        await ended(small.begin(question), "key_ended")


async def test_new_requests_are_barred_while_it_holds(small: Site) -> None:
    async with small.watched() as switches:
        questions = {name: await small.question(name) for name in small.secrets}
        small.operator.kill("team", "research", "budget under review")
        small.operator.kill("model", ID)
        await until(lambda: switches.model(ID) is not None)
        for question in questions.values():
            with pytest.raises(ApiError, match="team 'research' was stopped by the operator") as no:
                switches.check(question)
            assert no.value.message.endswith("UTC: budget under review")
            assert (no.value.status, no.value.code) == (403, "stopped")
        small.operator.lift("model", ID)
        small.operator.lift("team", "research")
        await until(lambda: switches.model(ID) is None)
        for question in questions.values():
            switches.check(question)


async def test_what_was_stopped_before_the_start_is_barred_from_the_first_request_on(
    small: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = await small.question("ada")
    small.operator.kill("model", ID)
    async with small.watched() as switches:
        with pytest.raises(ApiError, match="was stopped"):
            switches.check(question)
    # Who cannot read the switches yet lets nobody in.
    monkeypatch.setattr(small.access.store, "changes", _away)
    async with small.watched() as switches:
        with pytest.raises(ApiError) as unknown:
            switches.check(question)
        assert unknown.value.code == "identity_unavailable"


async def test_the_door_tells_who_is_stopped_and_nobody_else(small: Site) -> None:
    small.operator.kill("user", "ada", "left for good")
    for name in ("ada", "scout"):
        with pytest.raises(ApiError, match=r"user was stopped .* left for good") as no:
            await small.access.authenticate(f"Bearer {small.secrets[name]}")
        assert no.value.status == 403
    with pytest.raises(ApiError) as unknown:
        await small.access.authenticate(f"Bearer {small.secrets['ada']}x")
    assert (unknown.value.status, unknown.value.code) == (401, "invalid_api_key")


async def test_time_ends_answers_without_the_database(
    small: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small.access.store, "changes", _away)
    ten = int(time.time()) // 86400 * 86400 + 10 * 3600
    at = [ten + 1800.0]
    question = await small.question("scout")
    brief = replace(question.principal, expires_at=ten + 2 * 3600)
    early = replace(question.principal, hours=checked_hours("10-11"))
    async with small.watched(clock=lambda: at[0]):
        first = small.begin(await small.question("scout", principal=early))
        second = small.begin(await small.question("scout", principal=brief))
        await asyncio.sleep(0.3)
        assert not first.done()
        at[0] = ten + 3600
        assert "hour" in (await ended(first, "outside_hours")).message
        assert not second.done()
        at[0] = ten + 7200
        assert "time" in (await ended(second, "key_ended")).message


def _away() -> int:
    raise TrustError("the identity database cannot be used")


async def test_a_database_that_is_away_breaks_nothing_for_a_while(
    small: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with small.watched(blind_seconds=1.0):
        with monkeypatch.context() as broken:
            running = small.begin(await small.question("ada"))
            await asyncio.sleep(0.3)
            broken.setattr(small.access.store, "changes", _away)
            await asyncio.sleep(0.5)
            assert not running.done()
        await asyncio.sleep(1.2)  # it is back: nothing was lost
        assert not running.done()
        monkeypatch.setattr(small.access.store, "changes", _away)
        began = time.monotonic()
        error = await ended(running, "identity_unavailable", 5)
        assert error.status == 503
        assert time.monotonic() - began > 0.7


async def test_a_database_that_hangs_is_away_too(
    small: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with small.watched(blind_seconds=0.6):
        running = small.begin(await small.question("ada"))
        monkeypatch.setattr(small.access.store, "changes", partial(time.sleep, 2))
        await ended(running, "identity_unavailable", 5)


async def test_an_order_of_the_time_it_was_away_is_found(
    small: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with small.watched():
        running = small.begin(await small.question("bea"))
        await asyncio.sleep(0.3)
        with monkeypatch.context() as broken:
            broken.setattr(small.access.store, "changes", _away)
            await asyncio.sleep(0.3)
            small.operator.kill("user", "bea")
            await asyncio.sleep(0.4)
            assert not running.done()
        await ended(running, "stopped")


async def test_watching_asks_for_one_row_while_nothing_changes(
    small: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(small.access.store, "recall_all", asked.append)
    async with small.watched():
        await asyncio.sleep(1.4)
        running = [small.begin(await small.question("ada")) for _ in range(20)]
        await asyncio.sleep(0.6)
        assert asked == []
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_work_that_ends_by_itself_is_done_and_what_it_raises_is_raised(small: Site) -> None:
    async def good() -> None:
        await asyncio.sleep(0)

    async def bad() -> None:
        raise ApiError(429, "no", code="no")

    assert await small.begin(await small.question("ada"), good()) is Ended.DONE
    with pytest.raises(ApiError, match="no"):
        await small.begin(await small.question("ada"), bad())
    assert len(small.inflight) == 0


async def test_stopped_work_has_cleaned_up_when_it_is_told(small: Site) -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            cleaned.append(True)

    running = small.begin(await small.question("ada"), work())
    await asyncio.sleep(0)
    small.inflight.stop_all()
    small.inflight.stop_all(ApiError(403, "later", code="later"))
    await ended(running, "upstream_unavailable")
    assert cleaned == [True]
