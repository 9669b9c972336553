"""The kill switch as clients feel it: running gateways, streams under way, the command itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from gateway_parts import ADA, EVE, OTHERS, RunningGateway, run_gateway, until
from scripted_upstream import MODEL, Script, ScriptedUpstream

from holdfast_trust.ledger import Ledger
from holdfast_trust.ledger import read as read_ledger
from holdfast_trust.scopes import checked_scope
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BOUND = 3.0  # a second is promised; with a margin for a machine that is busy with other tests


@dataclass
class Operator:
    """Who has the identity database and its ledger."""

    url: str
    ledger: Path
    store: TrustStore
    scout: str = ""

    def ids(self, name: str) -> list[str]:
        return [str(each["id"]) for each in self.store.tokens(name)]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run holdfast-trust as its wrapper on a control host does."""
        names = {"HOLDFAST_TRUST_DATABASE": self.url, "HOLDFAST_TRUST_LEDGER": str(self.ledger)}
        return subprocess.run(
            [sys.executable, "-c", "from holdfast_trust.cli import main; main()", *arguments],
            env=os.environ | names | {"HOLDFAST_TRUST_ACTOR": "lin@ops"},
            capture_output=True,
            text=True,
            check=True,
        )


@pytest.fixture
def operator(gateway: RunningGateway, tmp_path: Path) -> Iterator[Operator]:
    """The operator of the gateway, with ada's agent scout; nothing stays stopped."""
    with operating(gateway, tmp_path / "identity") as found:
        yield found
        for switch in found.store.switches():
            found.store.lift(switch.kind, switch.name)
        found.store.end_agent("scout")
        time.sleep(0.5)  # until the gateway has seen it


@contextmanager
def operating(gateway: RunningGateway, ledger: Path) -> Iterator[Operator]:
    url = yaml.safe_load(gateway.config.read_text())["trust"]["database"]
    with Ledger(ledger) as opened:
        store = TrustStore(url, ledger=opened, actor="tester")
        issued = store.create_agent(
            "scout", "ada", lifetime_seconds=3600, scope=checked_scope(["infer"], [], [MODEL])
        )
        yield Operator(url, ledger, store, issued.secret)
        store.close()


@dataclass
class Asked:
    """A request in a thread of its own: what came of it, and when it ended."""

    status: int = 0
    body: bytes = b""
    ended: float = 0.0
    thread: threading.Thread = field(default_factory=threading.Thread)

    @property
    def error(self) -> dict[str, Any]:
        text = self.body.decode()
        if not text.startswith("data: "):
            return dict(json.loads(text)["error"])
        last = text.strip().rpartition("\n\n")[2]
        assert "[DONE]" not in last
        return dict(json.loads(last.removeprefix("data: "))["error"])

    def join(self, seconds: float = 10) -> Asked:
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        return self


def ask(
    gateway: RunningGateway,
    secret: str,
    script: Script,
    *,
    path: str = "/v1/chat/completions",
    **more: Any,
) -> Asked:
    asked = Asked()
    body = {"model": MODEL, "stream": True} | more
    if path == "/v1/chat/completions":
        body["messages"] = [{"role": "user", "content": str(script)}]
    if path != "/v1/responses":
        body["max_tokens"] = 64

    def run() -> None:
        with httpx.stream(
            "POST",
            gateway.url + path,
            json=body,
            headers={"Authorization": f"Bearer {secret}"},
            timeout=30,
        ) as answer:
            asked.status = answer.status_code
            asked.body = b"".join(answer.iter_raw())
        asked.ended = time.monotonic()

    asked.thread = threading.Thread(target=run, daemon=True)
    asked.thread.start()
    return asked


HANGING = Script(tokens=8, hang_after=3)
SILENT = Script(head_delay=20)

ORDERS: dict[str, Callable[[Operator], object]] = {
    "agent": lambda operator: operator.store.kill("agent", "scout", "loops"),
    "key": lambda operator: operator.store.kill("key", operator.ids("scout")[0], "loops"),
    "user": lambda operator: operator.store.kill("user", "ada", "loops"),
    "team": lambda operator: operator.store.kill("team", "research", "loops"),
    "model": lambda operator: operator.store.kill("model", MODEL, "loops"),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_stream_is_stopped_and_the_replica_is_free(
    gateway: RunningGateway, upstream: ScriptedUpstream, operator: Operator, order: str
) -> None:
    asked = ask(gateway, operator.scout, HANGING)
    other = ask(gateway, EVE, Script(tokens=30, delay=0.1), model=OTHERS)
    until(lambda: sum(seen.produced for seen in upstream.requests) >= 4)
    began = time.monotonic()
    ORDERS[order](operator)
    asked.join()
    assert asked.ended - began < BOUND
    assert asked.status == 200
    assert asked.error["code"] == "stopped"
    assert "was stopped by the operator at " in asked.error["message"]
    assert asked.error["message"].endswith("UTC: loops")
    until(lambda: upstream.active <= 1)
    assert other.join().body.endswith(b"data: [DONE]\n\n")
    mine = next(each for each in gateway.events(2) if each["principal"] == "scout")
    assert (mine["owner"], mine["error_code"]) == ("ada", "stopped")
    assert mine["completion_tokens"] == 3
    row = next(each for each in gateway.rows(2) if each["principal"] == "scout")
    assert (row["error_code"], row["completion_tokens"]) == ("stopped", 3)


SHAPES = {
    "/v1/completions": ("prompt", b'data: {"error": {"message": "This agent'),
    "/v1/responses": ("input", b'event: error\ndata: {"message": "This agent'),
    "/v1/messages": ("messages", b'event: error\ndata: {"type": "error", "error": {"type": "perm'),
}


@pytest.mark.parametrize("path", SHAPES)
def test_each_api_is_told_in_its_own_shape(
    gateway: RunningGateway, upstream: ScriptedUpstream, operator: Operator, path: str
) -> None:
    field, shape = SHAPES[path]
    said: object = str(HANGING)
    if field == "messages":
        said = [{"role": "user", "content": said}]
    asked = ask(gateway, operator.scout, HANGING, path=path, **{field: said})
    until(lambda: sum(seen.produced for seen in upstream.requests) >= 3)
    operator.store.kill("agent", "scout")
    last = asked.join(BOUND).body.strip().rpartition(b"\n\n")[2]
    assert last.startswith(shape), last
    until(lambda: upstream.active == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_before_the_first_byte_it_is_a_plain_403(
    gateway: RunningGateway, upstream: ScriptedUpstream, operator: Operator, *, stream: bool
) -> None:
    asked = ask(gateway, operator.scout, SILENT, stream=stream)
    until(lambda: upstream.active == 1)
    operator.store.kill("agent", "scout")
    asked.join(BOUND)
    assert (asked.status, asked.error["code"]) == (403, "stopped")
    until(lambda: upstream.active == 0)


def test_a_client_that_reads_nothing_holds_no_replica(
    gateway: RunningGateway, upstream: ScriptedUpstream, operator: Operator
) -> None:
    script = Script(tokens=100_000)
    said = [{"role": "user", "content": str(script)}]
    body = json.dumps({"model": MODEL, "stream": True, "messages": said}).encode()
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect((host, int(port)))
        client.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
            f"{operator.scout}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        assert client.recv(64).startswith(b"HTTP/1.1 200")
        until(lambda: _still(upstream))  # every buffer between them is full
        assert upstream.active == 1
        operator.store.kill("agent", "scout")
        until(lambda: upstream.active == 0, BOUND)


def _still(upstream: ScriptedUpstream) -> bool:
    before = upstream.requests[-1].produced
    time.sleep(0.3)
    return 0 < before == upstream.requests[-1].produced


ENDINGS: dict[str, Callable[[Operator], object]] = {
    "revoked": lambda operator: operator.store.revoke_token(operator.ids("scout")[0]),
    "ended": lambda operator: operator.store.end_agent("scout"),
    "owner left": lambda operator: operator.store.remove_member("research", "ada"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_ends_a_key_cuts_off_its_stream(
    gateway: RunningGateway, upstream: ScriptedUpstream, operator: Operator, ending: str
) -> None:
    asked = ask(gateway, operator.scout, HANGING)
    until(lambda: sum(seen.produced for seen in upstream.requests) == 3)
    try:
        ENDINGS[ending](operator)
        asked.join(BOUND)
    finally:
        operator.store.add_member("research", "ada")
    assert asked.error["code"] == "key_ended"


def test_nothing_new_begins_until_it_is_lifted(gateway: RunningGateway, operator: Operator) -> None:
    def status(secret: str, model: str = MODEL) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
        answer = gateway.post(body, headers={"Authorization": f"Bearer {secret}"})
        return int(answer.status_code)

    def listed(secret: str) -> list[str]:
        headers = {"Authorization": f"Bearer {secret}"}
        answer = httpx.get(f"{gateway.url}/v1/models", headers=headers)
        return [each["id"] for each in answer.json()["data"]]

    assert status(operator.scout) == status(ADA) == 200
    operator.store.kill("agent", "scout")
    until(lambda: status(operator.scout) == 403, BOUND)
    assert status(ADA) == 200
    operator.store.lift("agent", "scout")
    until(lambda: status(operator.scout) == 200, BOUND)
    operator.store.kill("model", MODEL)
    until(lambda: MODEL not in listed(ADA), BOUND)
    assert status(ADA) == status(operator.scout) == 403
    headers = {"Authorization": f"Bearer {ADA}"}
    assert httpx.get(f"{gateway.url}/v1/models/{MODEL}", headers=headers).status_code == 403
    # Who may not use it is told nothing of the switch.
    assert status(EVE) == 404
    assert (status(EVE, OTHERS), listed(EVE)) == (200, [OTHERS])
    operator.store.lift("model", MODEL)
    until(lambda: MODEL in listed(ADA), BOUND)
    assert status(ADA) == 200


def test_an_agent_is_held_to_its_models(gateway: RunningGateway, operator: Operator) -> None:
    body = {"model": OTHERS, "messages": [{"role": "user", "content": "x"}]}
    headers = {"Authorization": f"Bearer {operator.scout}"}
    assert gateway.post(body, headers=headers).status_code == 404
    listed = httpx.get(f"{gateway.url}/v1/models", headers=headers).json()["data"]
    assert [each["id"] for each in listed] == [MODEL]


def test_the_command_is_quick_and_stops_every_gateway(
    gateway: RunningGateway,
    upstream: ScriptedUpstream,
    operator: Operator,
    tmp_path: Path,
) -> None:
    """From the start of holdfast-trust on the control host to the end of the last stream."""
    trust = {"database": operator.url}
    with run_gateway(tmp_path / "second", upstream.url, trust=trust) as second:
        asked = [ask(each, operator.scout, HANGING) for each in (gateway, gateway, second)]
        until(lambda: sum(seen.produced for seen in upstream.requests) == 9)
        began = time.monotonic()
        said = operator.command("kill", "agent", "scout", "--reason", "loops", "--json")
        ended = max(each.join().ended for each in asked)
        assert json.loads(said.stdout)["changed"]
        assert [each.error["code"] for each in asked] == ["stopped"] * 3
        assert ended - began < BOUND
        events = [entry["event"] for entry in read_ledger(operator.ledger)]
        assert {"action": "kill.throw", "kind": "agent", "name": "scout"}.items() <= events[
            -1
        ].items()
        assert second.events(1)[0]["error_code"] == "stopped"


def test_on_postgresql_it_is_as_quick(
    tmp_path: Path, upstream: ScriptedUpstream, postgresql: Callable[[], str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    trust = {"database": postgresql()}
    seeded = trust | {"seed": f"{first}/seed.yml"}
    with (
        run_gateway(first, upstream.url, trust=seeded) as one,
        run_gateway(second, upstream.url, trust=trust) as two,
        operating(one, tmp_path / "identity") as operator,
    ):
        asked = [ask(each, operator.scout, HANGING) for each in (one, two)]
        until(lambda: sum(seen.produced for seen in upstream.requests) == 6)
        began = time.monotonic()
        operator.command("kill", "user", "ada")
        ended = max(each.join().ended for each in asked)
        assert [each.error["code"] for each in asked] == ["stopped"] * 2
        assert ended - began < BOUND


def test_it_holds_after_a_restart(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    with (
        run_gateway(tmp_path / "gateway", upstream.url) as first,
        operating(first, tmp_path / "identity") as operator,
    ):
        operator.store.kill("agent", "scout")
        operator.store.kill("team", "research")
    with run_gateway(tmp_path / "gateway", upstream.url) as second:
        headers = {"Authorization": f"Bearer {operator.scout}"}
        assert second.post(body, headers=headers).status_code == 403
        until(lambda: second.post(body).status_code == 403, BOUND)
        answer = second.post(body).json()["error"]
        assert answer["message"].startswith("The team 'research' was stopped by the operator")


def test_both_attempts_at_a_late_answer_are_ended(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    with (
        run_gateway(tmp_path / "one", upstream.url, limits={"ttft_seconds": 0.3}) as gateway,
        operating(gateway, tmp_path / "identity") as operator,
    ):
        asked = ask(gateway, operator.scout, SILENT)
        until(lambda: upstream.active == 2)
        operator.store.kill("agent", "scout")
        assert asked.join(BOUND).error["code"] == "stopped"
        until(lambda: upstream.active == 0)
        assert [each["attempts"] for each in gateway.events(1)] == [2]


def test_who_waits_for_a_turn_is_stopped_too(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    labels = {"jurisdiction": "de", "classification": "internal"}
    model = {"id": MODEL, "upstream": upstream.url, "teams": ["research"], "labels": labels}
    with (
        run_gateway(tmp_path / "gateway", upstream.url, models=[model | {"slots": 1}]) as gateway,
        operating(gateway, tmp_path / "identity") as operator,
    ):
        first = ask(gateway, ADA, HANGING)
        until(lambda: upstream.active == 1)
        waiting = ask(gateway, operator.scout, Script())
        time.sleep(0.4)
        assert len(upstream.requests) == 1
        operator.store.kill("agent", "scout")
        waiting.join(BOUND)
        assert (waiting.status, waiting.error["code"]) == (403, "stopped")
        assert not first.ended
        operator.store.kill("user", "ada")
        first.join(BOUND)
        assert len(upstream.requests) == 1
