"""Commits that end early, race between processes, or are large: the registry as a whole."""

from __future__ import annotations

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from registry_parts import ADA, SEED, run_registry

from postgresql_server import postgresql_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry_parts import Registry

pytestmark = pytest.mark.contract

REPOSITORY = "research/written"
SEEDED = {
    **SEED,
    "users": [
        {
            "name": "ada",
            "teams": {"research": "admin"},
            "tokens": [{"name": "laptop", "secret": ADA}],
        }
    ],
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    if request.param == "postgresql":
        with postgresql_server() as make:
            yield from _started(tmp_path_factory, "--database", make(), "--trust-database", make())
    else:
        yield from _started(tmp_path_factory)


def _started(factory: pytest.TempPathFactory, *options: str) -> Iterator[Registry]:
    options = ("--workers", "2", "--jurisdiction", "de", *options)
    with run_registry(factory.mktemp("registry"), *options, seed=SEEDED) as running:
        HfApi(endpoint=running.url, token=ADA).create_repo(REPOSITORY)
        yield running


@pytest.fixture
def api(registry: Registry) -> HfApi:
    return HfApi(endpoint=registry.url, token=ADA)


def processes_of(pid: int) -> list[int]:
    """Return a process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in processes_of(int(child)))]


def most_memory(registry: Registry) -> int:
    """Return the most MiB that any of its processes ever held."""
    status = [Path(f"/proc/{pid}/status").read_text() for pid in processes_of(registry.process.pid)]
    return max(int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) for text in status) >> 10


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_a_commit_that_ends_early_is_none(registry: Registry, api: HfApi, framing: str) -> None:
    before = api.list_repo_commits(REPOSITORY)
    lines = [
        {"key": "header", "value": {"summary": "half"}},
        {"key": "file", "value": {"path": "half", "content": "aGFsZg==", "encoding": "base64"}},
    ]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    if "chunked" in framing:
        body = f"{len(body):x}\r\n".encode() + body + b"\r\n"
    host, port = registry.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = (
            f"POST /api/models/{REPOSITORY}/commit/main HTTP/1.1\r\nHost: {host}:{port}\r\n"
            f"Authorization: Bearer {ADA}\r\n{framing}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        time.sleep(0.3)  # it has read all that there is
    time.sleep(0.3)
    assert api.list_repo_commits(REPOSITORY) == before
    assert api.list_repo_files(REPOSITORY) == [".gitattributes"]


def test_writers_race_between_processes(registry: Registry, api: HfApi) -> None:
    before = len(api.list_repo_commits(REPOSITORY))

    def write(number: int) -> str:
        return api.upload_file(
            path_or_fileobj=str(number).encode(),
            path_in_repo=f"race/{number}",
            repo_id=REPOSITORY,
            commit_message=f"number {number}",
        ).oid

    # More than there are connections to the database.
    with ThreadPoolExecutor(32) as pool:
        made = list(pool.map(write, range(40)))
    history = [commit.commit_id for commit in api.list_repo_commits(REPOSITORY)]
    assert len(history) == before + 40
    assert set(made) <= set(history)
    written = [path for path in api.list_repo_files(REPOSITORY) if path.startswith("race/")]
    assert len(written) == 40
    events = [event for event in registry.ledger() if event.get("commit") in made]
    announced = [event for event in events if event.get("status") == 0]
    assert {event["commit"] for event in announced} == set(made)


def test_a_hundred_megabytes_of_regular_files(registry: Registry, api: HfApi) -> None:
    content = b"a" * (9 << 20)
    api.create_commit(
        REPOSITORY,
        [CommitOperationAdd(f"large-{n}.txt", b"%d" % n + content) for n in range(12)],
        commit_message="a hundred megabytes",
    )
    assert len([path for path in api.list_repo_files(REPOSITORY) if "large-" in path]) == 12
    assert most_memory(registry) < 400
