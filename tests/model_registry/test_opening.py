"""Opening repositories to teams: by admins over HTTP, by operators with a command."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from registry_parts import Registry, command, make_model, run_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS = {name: f"hft_{name}-has-a-secret-token" for name in ("ada", "ben", "eve")}
NAME = "research/tiny"
PATH = f"/api/holdfast/models/{NAME}/access"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    tmp_path = tmp_path_factory.mktemp("opening")
    make_model(tmp_path / "tiny", weights=4000)
    teams = {"ada": {"research": "admin"}, "ben": {"research": "write"}, "eve": {"press": "write"}}
    seed = {
        "users": [
            {"name": name, "teams": held, "tokens": [{"secret": TOKENS[name]}]}
            for name, held in teams.items()
        ],
        "models": [
            {
                "id": NAME,
                "path": str(tmp_path / "tiny"),
                "labels": {"jurisdiction": "de", "classification": "internal"},
            }
        ],
    }
    with run_registry(tmp_path / "run", seed=seed) as running:
        yield running


def put(registry: Registry, who: str, document: Any) -> tuple[int, dict[str, Any]]:
    asked = urllib.request.Request(
        registry.url + PATH,
        data=document if isinstance(document, bytes) else json.dumps(document).encode(),
        method="PUT",
        headers={"Authorization": f"Bearer {TOKENS[who]}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def reads(registry: Registry, who: str) -> bool:
    return registry.request(f"/api/models/{NAME}", TOKENS[who])[0] == 200


def test_admins_open_and_close_and_label_stricter(registry: Registry) -> None:
    assert not reads(registry, "eve")
    assert registry.request(PATH, TOKENS["eve"])[0] == 404
    assert put(registry, "eve", {"teams": ["press"]})[0] == 404
    assert registry.request(PATH, TOKENS["ben"])[0] == 403
    assert put(registry, "ben", {"teams": ["press"]})[0] == 403
    status, opened = put(registry, "ada", {"teams": ["press"]})
    assert (status, opened["teams"], opened["owner"]) == (200, ["press"], "research")
    assert reads(registry, "eve")
    assert put(registry, "eve", {"teams": []})[0] == 403
    status, labelled = put(registry, "ada", {"classification": "confidential"})
    assert labelled["labels"] == {"jurisdiction": "de", "classification": "confidential"}
    status, refused = put(registry, "ada", {"classification": "internal"})
    assert status == 403
    assert "only operators" in refused["error"]
    assert put(registry, "ada", {"teams": []})[1]["teams"] == []
    assert not reads(registry, "eve")
    assert json.loads(registry.request(PATH, TOKENS["ada"])[2])["teams"] == []
    changes = [
        (event["status"], event["teams"])
        for event in registry.ledger()
        if event.get("operation") == "access" and "teams" in event
    ]
    assert changes[:2] == [(0, "press"), (200, "press")]


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"teams": "press"}, 400),
        ({"teams": [7]}, 400),
        ({"teams": ["nowhere"]}, 400),
        ({"teams": ["a\0b"]}, 400),
        ({"teams": ["press"] * 101}, 400),
        ({"classification": "cosmic"}, 400),
        ({"classification": 7}, 400),
        ({"labels": {}}, 400),
        (b"[]", 400),
        (b"{", 400),
        ({}, 200),
    ],
)
def test_odd_wishes_change_nothing(registry: Registry, document: Any, status: int) -> None:
    assert put(registry, "ada", document)[0] == status
    assert not reads(registry, "eve")


def test_operators_do_it_with_a_command(registry: Registry) -> None:
    def access(*options: str) -> dict[str, Any]:
        done = command("model", "access", NAME, "--data", registry.data, "--json", *options)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    assert access()["changed"] is False
    opened = access("--team", "press", "--classification", "secret")
    assert (opened["changed"], opened["teams"]) == (True, ["press"])
    assert reads(registry, "eve")
    assert not access("--team", "press")["changed"]
    lowered = access("--no-team", "--classification", "internal")
    assert lowered["labels"]["classification"] == "internal"
    assert not reads(registry, "eve")
    events = [event for event in registry.ledger() if event["action"] == "model.access"]
    assert [(event["model"], event["teams"]) for event in events] == [(NAME, ["press"]), (NAME, [])]
    shown = command("model", "access", NAME, "--data", registry.data).stdout
    assert "owned by research, private" in shown
    assert "opened to: no other team" in shown
    for wrong in (["research/absent"], ["no name"], [NAME, "--team", "a", "--no-team"]):
        done = command("model", "access", *wrong, "--data", registry.data)
        assert done.returncode in {1, 2}
        assert "Traceback" not in done.stderr
