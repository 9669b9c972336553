from __future__ import annotations

import json
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from registry_parts import (
    ADA,
    BOB,
    LABELS,
    MODEL,
    SEED,
    SERVING,
    Registry,
    command,
    free_port,
    make_model,
    run_registry,
)

from holdfast_trust.ledger import verify
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def seed_with_model(path: str = "../model") -> dict[str, Any]:
    model = {"id": MODEL, "path": path, "teams": ["research"], "labels": LABELS}
    return {**SEED, "models": [model]}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("serve")
    make_model(folder / "model", weights=40_000)
    with run_registry(folder / "run", seed=seed_with_model()) as running:
        yield running


def raw(registry: Registry, target: bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    """Send bytes that no HTTP library would, and return the whole answer."""
    host, port = registry.url.removeprefix("http://").split(":")
    lines = [
        method + b" " + target + b" HTTP/1.1",
        b"Host: x",
        b"Connection: close",
        b"Authorization: Bearer " + ADA.encode(),
        *headers,
    ]
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


@pytest.mark.parametrize(
    "target",
    [
        *(b"/research/tiny/resolve/main/../../../../../etc/passwd", b"/../../etc/passwd"),
        *(b"/research/tiny/resolve/main/%2e%2e/%2e%2e/registry.db", b"//etc/passwd", b"/.%00./x"),
        *(b"/research/tiny/resolve/main/%ff%fe", b"/research/tiny/resolve/%00/config.json"),
        *(
            b"/research/./tiny/resolve/main/config.json",
            b"/%",
            b"/%zz/%1",
            b"*",
            b"/" + b"a/" * 4000,
        ),
        *(
            b"/research/tiny/resolve/main/" + b"%c3%bc" * 3000,
            b"http://evil/api/models/research/tiny%00",
        ),
        *(b"/api/models/research/tiny/tree/main/../../..", b"/research/tiny/resolve/main/\xc3\xbc"),
    ],
)
def test_hostile_targets_are_refused_in_plain_words(registry: Registry, target: bytes) -> None:
    answer = raw(registry, target)
    status = int(answer.split(b" ", 2)[1]) if answer else 400  # closed: refused by the server
    assert 400 <= status < 500, answer[:500]
    assert b"root:" not in answer
    assert b"SQLite" not in answer
    assert b"Traceback" not in answer
    assert registry.request("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Range: bytes=0-99999999999999999999999999", 200),
        (b"Range: bytes=" + b"0-1," * 1000, 200),
        (b"Range: bytes=18446744073709551616-", 200),
        (b"Range: bytes=9999999999-", 416),
        (b"Range: \xff\xfe", 200),
        (b"Authorization: Bearer \xff", 401),
        (b"Authorization: Bearer " + b"a" * 8000, 401),
    ],
)
def test_hostile_headers(registry: Registry, header: bytes, status: int) -> None:
    host, port = registry.url.removeprefix("http://").split(":")
    own = b"" if header.startswith(b"Auth") else b"Authorization: Bearer " + ADA.encode() + b"\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"HEAD /research/tiny/resolve/main/config.json HTTP/1.1\r\nHost: x\r\n".replace(
                b"HEAD", b"GET"
            )
            + own
            + header
            + b"\r\nConnection: close\r\n\r\n"
        )
        answer = connection.makefile("rb").readline()
    found = int(answer.split(b" ")[1])
    assert found in {status, 400, 431}, answer


def test_serving_hosts_read_everything(registry: Registry) -> None:
    assert registry.request(f"/api/models/{MODEL}", SERVING)[0] == 200


def test_a_revoked_token_ends_within_a_second(tmp_path: Path) -> None:
    make_model(tmp_path / "model", weights=400)
    with run_registry(tmp_path / "run", seed=seed_with_model()) as running:
        assert running.request(f"/api/models/{MODEL}")[0] == 200
        store = TrustStore(f"sqlite:///{running.data}/trust.db")
        token = next(each for each in store.tokens("ada"))
        store.revoke_token(str(token["id"]))
        time.sleep(1)
        assert running.request(f"/api/models/{MODEL}")[0] == 401
        store.close()


def test_ends_politely_and_starts_again_after_a_kill(tmp_path: Path) -> None:
    make_model(tmp_path / "model", weights=400)
    with run_registry(tmp_path / "run", seed=seed_with_model()) as running:
        assert running.request(f"/api/models/{MODEL}")[0] == 200
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and _answers(running):
            time.sleep(0.1)
        assert not _answers(running), "a worker outlived its parent"
    with run_registry(tmp_path / "run", seed=seed_with_model()) as running:
        assert running.request(f"/api/models/{MODEL}")[0] == 200
        assert running.stop() == 0
    assert verify(tmp_path / "run" / "data" / "ledger").ok


def _answers(running: Registry) -> bool:
    try:
        return running.request("/healthz", None)[0] == 200
    except OSError:
        return False


def test_a_folder_that_changed_is_a_new_commit(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", weights=400)
    commits = []
    for content in ("one", "two", "two"):
        (model / "note.txt").write_text(content)
        with run_registry(tmp_path / "run", seed=seed_with_model()) as running:
            commits.append(json.loads(running.request(f"/api/models/{MODEL}")[2])["sha"])
            body = running.request(f"/{MODEL}/resolve/main/note.txt")[2]
            assert body.decode() == content
            old = running.request(f"/{MODEL}/resolve/{commits[0]}/note.txt")[2]
            assert old.decode() == "one", "what was imported is a copy"
    assert commits[0] != commits[1] == commits[2]


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        ({"userz": []}, "userz"),
        ({"users": [{"name": "ada", "tokens": [{"secret": "short-secret"}]}]}, "at least 16"),
        ({"models": [{"id": "nonamespace", "path": "m", "labels": LABELS}]}, "namespace/name"),
        ({"models": [{"id": MODEL, "path": "absent", "labels": LABELS}]}, "no such folder"),
        ({"models": [{"id": MODEL, "path": "absent"}]}, "labels"),
    ],
)
def test_a_bad_seed_is_named_and_no_secret_shown(
    tmp_path: Path, seed: dict[str, Any], words: str
) -> None:
    path = tmp_path / "seed.yml"
    path.write_text(yaml.safe_dump(seed))
    listen = f"127.0.0.1:{free_port()}"
    done = command("serve", "--data", tmp_path / "data", "--listen", listen, "--seed", path)
    assert done.returncode == 1
    assert words in done.stderr
    assert "short-secret" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("port: 1", "port"),
        ("listen: somewhere", "ADDRESS:PORT"),
        ("workers: 0", "workers"),
        ("- a", "keys and values"),
        ("a: [", "settings"),
        ("accelerate: apache", "accelerate"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, config: str, words: str) -> None:
    path = tmp_path / "registry.yml"
    path.write_text(config)
    done = command("serve", "--data", tmp_path / "data", "--config", path)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_from_a_file_and_options_over_it(tmp_path: Path) -> None:
    path = tmp_path / "registry.yml"
    path.write_text(yaml.safe_dump({"listen": "127.0.0.1:1", "workers": 1}))
    with run_registry(tmp_path / "run", "--config", str(path)) as running:
        assert running.request("/api/whoami-v2", BOB)[0] == 200


def test_a_taken_port_and_a_database_that_is_not_there(tmp_path: Path, registry: Registry) -> None:
    taken = registry.url.removeprefix("http://")
    done = command("serve", "--data", tmp_path / "data", "--listen", taken)
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    listen = f"127.0.0.1:{free_port()}"
    absent = f"postgresql+psycopg:///x?host={tmp_path}"
    done = command("serve", "--data", tmp_path / "data", "--listen", listen, "--database", absent)
    assert done.returncode == 1
    assert "database cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    listen = f"127.0.0.1:{free_port()}"
    done = command("serve", "--data", tmp_path / "file" / "data", "--listen", listen)
    assert done.returncode == 1
    assert "cannot be made" in done.stderr
    assert "Traceback" not in done.stderr
