"""A real supervisor, kept busy with small services that die as real ones do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast_installer.errors import HoldfastError
from holdfast_installer.local import supervision
from holdfast_installer.local.layout import Layout
from holdfast_installer.local.processes import kill_session, started_at
from holdfast_installer.local.services import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast_installer.local.supervisor import Observed

# Serves 200; writes its own number and that of a child, which outlives it as vLLM's engine does.
PROGRAM = """
import http.server, pathlib, subprocess, sys, signal
port, note, deaf = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3] == "deaf"
if deaf:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
note.write_text(str(child.pid))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    made = Layout(tmp_path / "state")
    made.prepare()
    yield made
    supervision.stop(made)


def service(layout: Layout, name: str, *, deaf: bool = False, mark: str = "") -> Service:
    folder = layout.scratch / name
    folder.mkdir(exist_ok=True)
    # From the kernel: the usual ones are also somebody else's choice, in the test beside this one.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    note = folder / "child"
    return Service(
        name=name,
        command=(sys.executable, "-c", PROGRAM, str(port), str(note), "deaf" if deaf else ""),
        environment={"PATH": os.environ["PATH"], "MARK": mark},
        probe=f"http://127.0.0.1:{port}/",
        stop_seconds=1 if deaf else 10,
    )


def observed(layout: Layout, name: str) -> Observed:
    report = supervision.report(layout)
    assert report is not None
    return next(one for one in report.services if one.name == name)


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def child_of(layout: Layout, name: str) -> int:
    return int((layout.scratch / name / "child").read_text())


def test_a_service_that_is_killed_comes_back_and_leaves_nothing_behind(layout: Layout) -> None:
    one = service(layout, "one")
    supervision.ensure(layout, [one])
    supervision.wait_ready(layout, one, 20)
    first, orphan = observed(layout, "one").pid, child_of(layout, "one")
    os.kill(first, signal.SIGKILL)
    until(lambda: observed(layout, "one").restarts == 1 and observed(layout, "one").pid > 0)
    supervision.wait_ready(layout, one, 20)
    assert observed(layout, "one").pid != first
    assert observed(layout, "one").last_exit == -signal.SIGKILL
    assert gone(orphan)


def test_only_what_changed_is_started_anew(layout: Layout) -> None:
    one, other = service(layout, "one"), service(layout, "other")
    supervision.ensure(layout, [one, other])
    for each in (one, other):
        supervision.wait_ready(layout, each, 20)
    before = {name: observed(layout, name).pid for name in ("one", "other")}
    changed = other.model_copy(update={"environment": other.environment | {"MARK": "new"}})
    supervision.ensure(layout, [one, changed])
    until(lambda: observed(layout, "other").pid not in {0, before["other"]})
    supervision.wait_ready(layout, changed, 20)
    assert observed(layout, "one").pid == before["one"]


def test_stopping_ends_even_what_does_not_listen(layout: Layout) -> None:
    one = service(layout, "one", deaf=True)
    supervision.ensure(layout, [one])
    supervision.wait_ready(layout, one, 20)
    pid, child = observed(layout, "one").pid, child_of(layout, "one")
    assert supervision.stop(layout)
    until(lambda: gone(pid) and gone(child))
    assert not supervision.running(layout)
    assert not supervision.stop(layout)


def test_a_killed_supervisor_takes_its_services_along_and_the_next_one_mends_it(
    layout: Layout,
) -> None:
    one = service(layout, "one", deaf=True)
    supervision.ensure(layout, [one])
    supervision.wait_ready(layout, one, 20)
    report = supervision.report(layout)
    assert report is not None
    left = observed(layout, "one").pid
    os.kill(report.pid, signal.SIGKILL)
    until(lambda: not supervision.running(layout))
    assert not gone(left)  # deaf to SIGTERM, which the kernel sent it
    supervision.ensure(layout, [one])
    until(lambda: gone(left))
    supervision.wait_ready(layout, one, 20)


def test_a_service_that_keeps_dying_is_told_with_its_log(layout: Layout) -> None:
    broken = Service(
        name="broken",
        command=(sys.executable, "-c", "raise SystemExit('no such model here')"),
        environment={},
        probe="http://127.0.0.1:9/",
    )
    (layout.scratch / "broken").mkdir()
    supervision.ensure(layout, [broken])
    with pytest.raises(HoldfastError, match=r"broken does not come up") as caught:
        supervision.wait_ready(layout, broken, 60)
    assert "no such model here" in caught.value.cause
    assert caught.value.where.endswith("broken.log")


def test_a_number_that_was_given_to_somebody_else_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        assert kill_session(other.pid, started_at(other.pid) + 1) == 0
        assert other.poll() is None
        assert kill_session(other.pid, started_at(other.pid)) == 1
    assert started_at(2**22 + 1) == 0


def test_session_0_is_everybody_from_outside_a_namespace_and_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    assert kill_session(0, 0) == 0
    assert killed == []
