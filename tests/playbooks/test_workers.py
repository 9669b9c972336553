"""How replicas join and leave a balancer's list; the balancer and the replicas are played."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROLES = Path(__file__).parents[2] / "playbooks/ansible_collections/holdfast/platform/roles"


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the script as a module, with its lock here and waits cut short."""
    path = ROLES / "load_balancer/files/workers.py"
    spec = importlib.util.spec_from_file_location("workers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "LEAVE_SECONDS", 0.5)
    monkeypatch.setattr(module, "credentials", lambda: None)
    return module


@contextmanager
def served(answer: Callable[[str], str]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(self.path).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def balancer(path: Path, healthy: Callable[[str], bool] = lambda _: True) -> Iterator[int]:
    """Play smg: what is in the list is listed."""

    def answer(_: str) -> str:
        urls = [one["url"] for one in json.loads(path.read_text())["workers"]]
        return json.dumps({"workers": [{"url": url, "is_healthy": healthy(url)} for url in urls]})

    with served(answer) as port:
        yield port


def run(
    workers: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["workers.py", *words])
    workers.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def write(path: Path, *urls: str) -> Path:
    path.write_text(json.dumps({"version": 1, "workers": [{"url": url} for url in urls]}) + "\n")
    return path


def test_the_list_is_written_as_the_role_writes_it(workers: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "cpu.json", "https://a:1")
    assert workers.rewrite(path, ["https://c:1", "https://b:1"], add=True)
    template = (ROLES / "load_balancer/templates/workers.json.j2").read_text()
    assert template.startswith('{"version": 1, "workers": [')
    assert path.read_text() == (
        '{"version": 1, "workers": [{"url": "https://a:1"}, {"url": "https://b:1"}, '
        '{"url": "https://c:1"}]}\n'
    )
    assert not workers.rewrite(path, ["https://b:1"], add=True)
    assert workers.rewrite(path, ["https://b:1", "https://x:1"], add=False)
    assert [one["url"] for one in json.loads(path.read_text())["workers"]] == [
        "https://a:1",
        "https://c:1",
    ]
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_many_at_once_lose_nobody(workers: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "cpu.json")
    urls = [f"https://h{number}:1" for number in range(20)]
    threads = [
        threading.Thread(target=workers.rewrite, args=(path, [url]), kwargs={"add": True})
        for url in urls
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one["url"] for one in json.loads(path.read_text())["workers"]} == set(urls)


def test_who_joins_is_waited_for(
    workers: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path / "cpu.json", "http://a:1")
    looks: list[str] = []

    def healthy(url: str) -> bool:
        looks.append(url)
        return url == "http://a:1" or looks.count(url) > 3

    with balancer(path, healthy) as port:
        told = run(workers, monkeypatch, capsys, str(path), str(port), "add", "5", "http://b:1")
        assert told["changed"]
        assert looks.count("http://b:1") > 3
        again = run(workers, monkeypatch, capsys, str(path), str(port), "add", "5", "http://b:1")
        assert not again["changed"]


def test_who_is_not_taken_up_is_an_error(
    workers: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path / "cpu.json")
    with (
        balancer(path, lambda _: False) as port,
        pytest.raises(SystemExit, match="does not take up http://b:1"),
    ):
        run(workers, monkeypatch, capsys, str(path), str(port), "add", "0.1", "http://b:1")


def test_who_leaves_ends_what_it_has_first(
    workers: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts = iter(["1.0", "0.0", "2.0", "1.0", "0.0", "0.0", "0.0"])

    def metrics(_: str) -> str:
        return (
            'vllm:num_requests_running{engine="0",model_name="m"} 0.0\n'
            f'vllm:num_requests_waiting{{engine="0",model_name="m"}} {next(counts)}\n'
        )

    with served(metrics) as replica:
        url = f"http://127.0.0.1:{replica}"
        path = write(tmp_path / "cpu.json", "http://a:1", url)
        with balancer(path) as port:
            told = run(workers, monkeypatch, capsys, str(path), str(port), "remove", "9", url)
    assert told == {"changed": True, "waited": told["waited"], "busy": []}
    # one zero between two requests was not the end
    assert next(counts) == "0.0"
    assert next(counts, "none left") == "none left"


def test_who_does_not_end_is_named_when_the_time_is_over(
    workers: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with served(lambda _: 'vllm:num_requests_running{engine="0"} 1.0\n') as replica:
        url = f"http://127.0.0.1:{replica}"
        path = write(tmp_path / "cpu.json", url)
        with balancer(path) as port:
            told = run(workers, monkeypatch, capsys, str(path), str(port), "remove", "0.2", url)
            assert told["busy"] == [url]
            # it left already: nothing is waited for, so that an interrupted apply goes on
            again = run(workers, monkeypatch, capsys, str(path), str(port), "remove", "9", url)
    assert not again["changed"]


def test_a_replica_that_is_gone_has_nothing_left(
    workers: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = "http://127.0.0.1:9"
    path = write(tmp_path / "cpu.json", url)
    with balancer(path) as port:
        told = run(workers, monkeypatch, capsys, str(path), str(port), "remove", "9", url)
    assert told["busy"] == []


def test_what_is_retired_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("retire", ROLES / "rollout/files/retire.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ran: list[list[str]] = []
    monkeypatch.setattr(module.subprocess, "run", lambda command, **_: ran.append(command))
    monkeypatch.setattr(module, "SETTINGS", tmp_path)
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    for name in ("one-0-aa", "one-1-aa"):
        for suffix in (".env", ".yml", ".json", ".watch"):
            (tmp_path / f"{name}{suffix}").touch()
        (tmp_path / "cache" / name).mkdir(parents=True)
    assert module.retire("one-0-aa")
    assert not module.retire("one-0-aa")
    assert {path.name for path in tmp_path.glob("*.*")} == {
        f"one-1-aa{suffix}" for suffix in (".env", ".yml", ".json", ".watch")
    }
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["one-1-aa"]
    # what would start it again goes before the unit itself
    stopped = [command[-1] for command in ran if "disable" in command][:3]
    assert stopped == [
        "holdfast-vllm-watch@one-0-aa.timer",
        "holdfast-approval@one-0-aa.timer",
        "holdfast-vllm@one-0-aa.service",
    ]
