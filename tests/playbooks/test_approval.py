"""What a serving host makes of the registry's answer, and of none."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast_model_registry.review.states import content_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).parents[2] / (
    "playbooks/ansible_collections/holdfast/platform/roles/vllm/files/approval.py"
)
FILES = {"config.json": "a" * 64, "deep/größe.safetensors": "b" * 64}


@dataclass
class Answers:
    """A registry that answers as told, and notes what it was asked."""

    url: str = ""
    status: int = 200
    document: Any = None
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def answers() -> Iterator[Answers]:
    told = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append((self.path, self.headers["Authorization"]))
            body = json.dumps(told.document).encode()
            self.send_response(told.status)
            self.send_header("X-Error-Message", "said so")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("approval", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "token").write_text("the-node's-token\n")
    (tmp_path / "boot").write_text("this boot\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(module, "NOTES", tmp_path)
    monkeypatch.setattr(module, "BOOT_ID", tmp_path / "boot")
    monkeypatch.setattr(module, "PAUSE", 0.01)
    return module


@pytest.fixture
def model(script: Any, answers: Answers) -> Any:
    files = {path: {"digest": f"sha256:{sha256}", "size": 1} for path, sha256 in FILES.items()}
    spec = {"hub": answers.url, "model": "org/name", "commit": "c" * 40, "files": files}
    return script.Model(spec)


def approved() -> dict[str, str]:
    return {"state": "approved", "approved_digest": content_digest(FILES), "reason": ""}


def test_a_yes_lets_it_start(script: Any, model: Any, answers: Answers) -> None:
    assert "has not said" in script.by_note(model)
    answers.document = approved()
    assert script.waited(model) == ""
    assert script.by_note(model) == ""
    assert answers.asked == [
        (f"/api/holdfast/models/org/name/review/{'c' * 40}", "Bearer the-node's-token")
    ]


@pytest.mark.parametrize("state", ["quarantined", "scanned", "rejected", "unheard-of"])
def test_anything_but_a_yes_does_not(script: Any, model: Any, answers: Answers, state: str) -> None:
    answers.document = {**approved(), "state": state, "reason": "leaked"}
    for look in (script.waited, script.watched, script.by_note):
        why = look(model)
        assert f"it is {state}, not approved (leaked)" in why
        assert "holdfast model approve org/name@cccccccccccc" in why


def test_what_was_approved_must_be_what_was_planned(
    script: Any, model: Any, answers: Answers
) -> None:
    answers.document = {**approved(), "approved_digest": content_digest({"config.json": "0" * 64})}
    assert "not what was planned" in script.waited(model)
    assert "not what was planned" in script.by_note(model)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_registry_that_does_not_know_the_host_or_the_model(
    script: Any, model: Any, answers: Answers, status: int
) -> None:
    answers.status = status
    assert f"answers {status}: said so" in script.waited(model)


def test_a_first_start_waits_for_the_registry(script: Any, model: Any, answers: Answers) -> None:
    answers.status = 503
    answers.document = approved()
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(script.waited(model)))
    thread.start()
    deadline = time.monotonic() + 60
    while len(answers.asked) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert thread.is_alive()
    answers.status = 200
    thread.join(60)
    assert found == [""]


def test_the_last_word_holds_for_a_while(
    script: Any, model: Any, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.document = approved()
    assert script.watched(model) == ""
    answers.status = 500
    assert script.waited(model) == ""
    assert script.watched(model) == ""
    monkeypatch.setattr(script, "LONGEST", 0)
    assert "did not say lately" in script.by_note(model)
    monkeypatch.setattr(script, "LONGEST", 3600)
    script.BOOT_ID.write_text("another boot\n")
    assert "did not say lately" in script.by_note(model)


def test_another_plan_needs_another_answer(script: Any, model: Any, answers: Answers) -> None:
    answers.document = approved()
    assert script.waited(model) == ""
    model.digest = "sha256:other"
    assert "the plan changed" in script.by_note(model)


def test_the_command_says_why_and_fails(
    script: Any, answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"hub": answers.url, "model": "org/name", "commit": "c" * 40, "files": {}}
    (tmp_path / "unit.json").write_text(json.dumps(spec))
    answers.document = {**approved(), "state": "quarantined"}
    for what in ("--ask", "--stamp", "--watch"):
        monkeypatch.setattr("sys.argv", ["approval.py", what, str(tmp_path / "unit.json")])
        with pytest.raises(SystemExit, match="org/name@cccccccccccc is not served"):
            script.main()
