"""The background scan: goes on after any end, and leaves what people decided alone."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from registry_parts import ADA, SEED, run_registry
from review_parts import SAFE, open_registry

from holdfast_model_registry.formats import recognition
from holdfast_model_registry.review.tables import reviews
from holdfast_model_registry.scanning import child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast_model_registry.formats import Observation

LARGE = b"word " * 1000


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("true",))


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "INLINE_SIZE", len(LARGE) - 1)


def torch_file() -> bytes:
    """Return what torch would write: a zip that holds a pickle."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harmful()))
    return content.getvalue()


@pytest.fixture
def slow_scan(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let deep looks wait for as long as the list is empty."""
    gate: list[str] = []
    look = child.look

    def slow(path: str, content: Path) -> Observation:
        while not gate:
            time.sleep(0.01)
        return look(path, content)

    monkeypatch.setattr(child, "look", slow)
    yield gate
    gate.append("open")


def test_what_waited_when_it_ended_is_scanned_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def dies(path: str, content: Path) -> Observation:
            raise OSError(f"killed at {path} {content}")

        patch.setattr(child, "look", dies)
        with open_registry(tmp_path) as registry:
            registry.create()
            commit = registry.pushed({"w.bin": torch_file()})
            time.sleep(0.3)
            found = registry.review(commit)
            assert (found["state"], found["scan"]) == ("quarantined", "waiting")
            assert registry.act("rita", "approve", commit).status_code == 409
    with open_registry(tmp_path) as registry:
        found = registry.settled(commit)
        assert found["state"] == "quarantined"
        assert any("posix.system" in finding["detail"] for finding in found["findings"])


def test_killed_in_the_middle_nothing_is_lost(tmp_path: Path) -> None:
    """Kill -9 the server just after the commit: the scan is done after the restart."""
    seed = {**SEED, "users": [{**SEED["users"][0], "teams": {"research": "write"}}]}
    program = (
        "import sys\nfrom huggingface_hub import HfApi, CommitOperationAdd\n"
        "api = HfApi(endpoint=sys.argv[1], token=sys.argv[2])\n"
        "api.create_repo('research/made')\n"
        "add = CommitOperationAdd('w.bin', open(sys.argv[3], 'rb').read())\n"
        "api.create_commit('research/made', [add], commit_message='x')\n"
    )
    weights = tmp_path / "w"
    weights.write_bytes(torch_file())
    folder = tmp_path / "run"
    with run_registry(folder, "--jurisdiction", "de", seed=seed) as running:
        environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(
            [sys.executable, "-c", program, running.url, ADA, str(weights)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for pid in (running.process.pid, *children_of(running.process.pid)):
            os.kill(pid, signal.SIGKILL)
        running.process.wait()
    with run_registry(folder, "--jurisdiction", "de", seed=seed) as running:
        deadline = time.monotonic() + 30
        while True:
            status, _, body = running.request("/api/holdfast/models/research/made/review/main")
            assert status == 200
            if b'"scan":"done"' in body:
                break
            assert time.monotonic() < deadline, body
            time.sleep(0.1)
        assert b"posix.system" in body
        assert b'"state":"quarantined"' in body


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def test_what_people_decide_meanwhile_stands(tmp_path: Path, slow_scan: list[str]) -> None:
    with open_registry(tmp_path) as registry:
        registry.create()
        commit = registry.pushed({"corpus.txt": LARGE})
        assert registry.review(commit)["scan"] == "waiting"
        registry.act("rita", "quarantine", commit, "not this one")
        slow_scan.append("go on")
        found = registry.settled(commit)
        assert (found["state"], found["reason"]) == ("quarantined", "not this one")


def test_a_revision_of_many_files_is_scanned_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_model_registry.scanning.scanner._FILES_A_TURN", 1)
    with open_registry(tmp_path) as registry:
        registry.create()
        commit = registry.pushed({f"{n}.txt": LARGE + str(n).encode() for n in range(3)})
        assert registry.settled(commit)["state"] == "scanned"


def test_a_scan_that_failed_is_done_again_when_somebody_approves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "SECONDS", 0.01)
    with open_registry(tmp_path) as registry:
        registry.create()
        commit = registry.pushed({"corpus.txt": LARGE})
        found = registry.settled(commit)
        assert (found["state"], found["findings"][0]["danger"]) == ("quarantined", True)
        monkeypatch.setattr(child, "SECONDS", 60)
        again = registry.act("rita", "approve", commit)
        assert (again.status_code, "done again" in again.json()["error"]) == (409, True)
        assert registry.settled(commit)["state"] == "scanned"
        assert registry.act("rita", "approve", commit).json()["state"] == "approved"


def test_large_text_is_free_once_it_was_read(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        registry.create()
        commit = registry.pushed({"corpus.txt": LARGE})
        assert registry.settled(commit)["state"] == "scanned"
        again = registry.pushed({"copy.txt": LARGE})
        assert registry.review(again)["state"] == "scanned"  # its content is known


def test_a_commit_without_a_review_is_quarantined_and_taken_up(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        registry.create()
        commit = registry.pushed({"model.safetensors": SAFE})
        with registry.service.scanner.reviewing.engine.begin() as connection:
            connection.execute(reviews.delete().where(reviews.c.commit_oid == commit))
        assert registry.fetch("ben", "model.safetensors").status_code == 403
        deadline = time.monotonic() + 20
        while registry.fetch("ben", "model.safetensors").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert registry.review(commit)["uploader"] == "ada"


def test_a_deleted_repository_takes_its_reviews_along(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        registry.create(by="vera")
        registry.pushed({"model.safetensors": SAFE})
        engine = registry.service.scanner.reviewing.engine
        gone = {"name": "made", "organization": "research", "type": "model"}
        answer = registry.as_("boss", "DELETE", "/api/repos/delete", json=gone)
        assert answer.status_code == 200, answer.text
        with engine.connect() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(reviews)).scalar() == 0


@pytest.mark.parametrize(
    ("content", "words"), [(b"\x80\x04" + b"X" * 100, "ended early"), (torch_file(), "posix")]
)
def test_the_child_says_what_it_sees(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "content"
    path.write_bytes(content)
    seen = child.look("w.bin", path)
    assert (seen.format, seen.complete) == ("pickle", True)
    assert words in " ".join(seen.advice)


def test_a_child_that_ends_early_is_danger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert child.look("w.bin", tmp_path / "absent").dangerous
    monkeypatch.setattr(child, "SECONDS", 0.01)
    path = tmp_path / "content"
    path.write_bytes(torch_file())
    seen = child.look("w.bin", path)
    assert seen.dangerous
    assert "not done after" in seen.advice[0]
