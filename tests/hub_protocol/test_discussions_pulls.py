"""Pull requests: what they change, how that is shown, and the merge with its conflicts."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from crowd_parts import Crowded, crowded

from holdfast_hub_protocol import commits
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.admission import DisabledError
from holdfast_hub_protocol.discussions import diff, pulls
from holdfast_hub_protocol.errors import HubError
from holdfast_hub_protocol.operations import AddFile, CopyFile, DeleteFile, Operation

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import World
    from holdfast_hub_protocol.records import Commit, Repository

BASE = "/api/models/org/name/discussions"
INFO = "/api/models/org/name"
MAIN = "refs/heads/main"


@pytest.fixture
def hub(world: World) -> Crowded:
    world.publish(
        "org/name",
        [
            world.store("README.md", b"one\ntwo\nthree\n"),
            world.store("gone.txt", b"bye"),
            world.store("old/place", b"same"),
            world.store("w.bin", b"weights", lfs=True),
        ],
    )
    return crowded(
        world, dan=Verb.DISCOVER, ann=Verb.CONTRIBUTE, ben=Verb.CONTRIBUTE, writer=Verb.WRITE
    )


def repository(hub: Crowded) -> Repository:
    from holdfast_hub_protocol.identifiers import RepositoryId

    found = hub.hub.metadata.repository(RepositoryId.parse("org/name"))
    assert found is not None
    return found


def commit(hub: Crowded, ref: str, *operations: Operation, by: str = "ann") -> Commit:
    caller = hub.crowd.authenticate(by)
    assert caller is not None
    return commits.make_commit(
        hub.hub, caller, repository(hub), ref, operations, title=f"Change {ref}"
    )


def opened(hub: Crowded, by: str = "ann", *, publish: bool = True) -> int:
    body = {"title": "Better words", "description": "please", "pullRequest": True}
    num: int = hub.ask(by, "POST", BASE, **body).json()["num"]
    if publish:
        assert hub.ask(by, "POST", f"{BASE}/{num}/status", status="open").status_code == 200
    return num


def details(hub: Crowded, num: int) -> dict[str, Any]:
    document: dict[str, Any] = hub.ask("ben", "GET", f"{BASE}/{num}?diff=1").json()
    return document


def files(hub: Crowded, revision: str = "main") -> dict[str, bytes]:
    found = hub.hub.metadata.commit(repository(hub), revision)
    assert found is not None
    return {
        entry.path: hub.hub.blobs.path(entry.sha256 or "").read_bytes()
        for entry in hub.hub.metadata.files(found)
    }


def test_a_pull_request_begins_as_a_draft_at_the_head_of_main(hub: Crowded) -> None:
    num = opened(hub, publish=False)
    found = details(hub, num)
    assert (found["status"], found["isPullRequest"]) == ("draft", True)
    assert found["changes"] == {"base": MAIN}
    assert found["filesWithConflicts"] == []
    assert found["diff"] == ""
    refs = hub.ask("ann", "GET", f"{INFO}/refs?include_prs=1").json()
    head = refs["branches"][0]["targetCommit"]
    assert refs["pullRequests"] == [{"name": "1", "ref": "refs/pr/1", "targetCommit": head}]
    assert "pullRequests" not in hub.ask("ann", "GET", f"{INFO}/refs").json()
    assert hub.ask("ann", "GET", f"{INFO}/revision/refs%2Fpr%2F1").json()["sha"] == head
    refused = hub.ask("writer", "POST", f"{BASE}/{num}/merge")
    assert refused.status_code == 400
    assert "is draft, not open; publish it" in refused.headers["x-error-message"]


def test_the_difference_is_as_git_prints_it(hub: Crowded) -> None:
    num = opened(hub)
    new = commit(
        hub,
        f"refs/pr/{num}",
        AddFile("README.md", b"one\n2\nthree"),
        AddFile("data.bin", b"\0\1"),
        DeleteFile("gone.txt"),
        CopyFile("copy.bin", "w.bin"),
    )
    found = details(hub, num)
    lines = found["diff"].splitlines()
    assert lines[0] == "diff --git a/README.md b/README.md"
    assert lines[2:11] == [
        *("--- a/README.md", "+++ b/README.md", "@@ -1,3 +1,3 @@", " one", "-two", "-three"),
        *("+2", "+three", "\\ No newline at end of file"),
    ]
    assert "Binary files /dev/null and b/data.bin differ" in lines
    assert "+oid sha256:" in found["diff"], "a large file is its pointer"
    assert "deleted file mode 100644" in lines
    assert "-bye" in lines
    pushed = [event for event in found["events"] if event["type"] == "commit"]
    assert [(event["data"]["oid"], event["author"]["name"]) for event in pushed] == [
        (new.oid, "ann")
    ]


def test_git_applies_the_difference(hub: Crowded, tmp_path: Path) -> None:
    num = opened(hub)
    commit(
        hub,
        f"refs/pr/{num}",
        AddFile("README.md", b"zero\none\n2\r\nthree\fx\ny"),
        AddFile("new/no newline", b"x"),
        AddFile("new/empty", b""),
        AddFile("new/only newlines", b"\n\n"),
        DeleteFile("gone.txt"),
    )
    folder = tmp_path / "work"
    for path, content in files(hub).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    git = ["git", "-C", str(folder), "apply", "--unsafe-paths", "-"]
    text = details(hub, num)["diff"]
    done = subprocess.run(git, input=text.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode() + text
    after = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert after == files(hub, f"refs/pr/{num}")


def test_who_gets_no_files_gets_no_difference(
    hub: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    num = opened(hub)
    commit(hub, f"refs/pr/{num}", AddFile("README.md", b"secret"))
    shown = hub.ask("dan", "GET", f"{BASE}/{num}?diff=1")
    assert (shown.status_code, "diff" in shown.json()) == (200, False)
    assert "secret" in details(hub, num)["diff"]

    def quarantined(*_: object) -> None:
        raise DisabledError("not scanned yet")

    monkeypatch.setattr(hub.hub.admission, "check_fetch", quarantined)
    assert "diff" not in details(hub, num)


def test_a_merge_is_one_commit_with_all_of_it(hub: Crowded) -> None:
    num = opened(hub)
    first = commit(hub, f"refs/pr/{num}", AddFile("README.md", b"better\n"))
    commit(hub, f"refs/pr/{num}", DeleteFile("gone.txt"), CopyFile("new/place", "old/place"))
    commit(hub, f"refs/pr/{num}", DeleteFile("old/place"), AddFile("old", b"now a file"))
    meanwhile = commit(hub, MAIN, AddFile("other.txt", b"other"), by="writer")
    assert hub.ask("ann", "POST", f"{BASE}/{num}/merge").status_code == 403
    merged = hub.ask("writer", "POST", f"{BASE}/{num}/merge", comment="thanks")
    assert merged.status_code == 200, merged.text
    assert files(hub) == {
        "README.md": b"better\n",
        "new/place": b"same",
        "old": b"now a file",
        "other.txt": b"other",
        "w.bin": b"weights",
    }
    head = hub.hub.metadata.commit(repository(hub), "main")
    assert head is not None
    assert head.parent_oid == meanwhile.oid
    assert head.title == "Better words (#1)"
    assert first.oid in head.message
    assert "Co-authored-by: ann <ann@users.invalid>" in head.message
    found = details(hub, num)
    assert found["status"] == "merged"
    assert found["changes"]["mergeCommitId"] == head.oid
    assert found["events"][-1]["data"] == {"status": "merged"}
    assert found["events"][-2]["data"]["latest"]["raw"] == "thanks"
    assert "better" in found["diff"]
    for path, body in (("merge", {}), ("status", {"status": "open"})):
        assert hub.ask("writer", "POST", f"{BASE}/{num}/{path}", **body).status_code == 400


@pytest.mark.parametrize(
    ("theirs", "ours", "named"),
    [
        (AddFile("README.md", b"theirs"), AddFile("README.md", b"ours"), "README.md"),
        (DeleteFile("gone.txt"), AddFile("gone.txt", b"ours"), "gone.txt"),
        (AddFile("gone.txt", b"theirs"), DeleteFile("gone.txt"), "gone.txt"),
        (AddFile("new", b"theirs"), AddFile("new", b"ours"), "new"),
        (AddFile("new", b"theirs"), AddFile("new/file", b"ours"), "new/file"),
        (AddFile("new/file", b"theirs"), AddFile("new", b"ours"), "new/file"),
    ],
)
def test_what_both_changed_is_in_conflict(
    hub: Crowded, theirs: Operation, ours: Operation, named: str
) -> None:
    num = opened(hub)
    commit(hub, f"refs/pr/{num}", theirs)
    commit(hub, MAIN, ours, by="writer")
    before = files(hub)
    assert details(hub, num)["filesWithConflicts"] == [named]
    refused = hub.ask("writer", "POST", f"{BASE}/{num}/merge")
    assert refused.status_code == 409
    message = refused.headers["x-error-message"]
    assert message.startswith("Pull request 1 cannot be merged")
    assert message.endswith(named)
    assert files(hub) == before
    assert details(hub, num)["status"] == "open"


def test_the_same_change_on_both_sides_is_no_conflict(hub: Crowded) -> None:
    num = opened(hub)
    commit(hub, f"refs/pr/{num}", AddFile("README.md", b"same"), DeleteFile("gone.txt"))
    head = commit(hub, MAIN, AddFile("README.md", b"same"), DeleteFile("gone.txt"), by="writer")
    merged = hub.ask("writer", "POST", f"{BASE}/{num}/merge")
    assert merged.json()["mergeCommitId"] == head.oid, "nothing is left to commit"


def test_a_merge_that_was_cut_short_is_finished_by_the_next(
    hub: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    num = opened(hub)
    commit(hub, f"refs/pr/{num}", AddFile("README.md", b"better"))
    with monkeypatch.context() as patched:
        patched.setattr(pulls.store, "change", _fail)
        with pytest.raises(RuntimeError):
            hub.ask("writer", "POST", f"{BASE}/{num}/merge")
    head = hub.hub.metadata.commit(repository(hub), "main")
    assert head is not None
    assert details(hub, num)["status"] == "open"
    assert hub.ask("writer", "POST", f"{BASE}/{num}/merge").json()["mergeCommitId"] == head.oid
    assert details(hub, num)["status"] == "merged"


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("cut short")


def test_a_branch_that_moves_during_the_merge_is_compared_again(
    hub: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    num = opened(hub)
    commit(hub, f"refs/pr/{num}", AddFile("README.md", b"better"))
    make, moves = commits.make_commit, [b"1", b"2"]

    def late(*arguments: Any, **options: Any) -> Commit:
        if moves:
            content = moves.pop()
            monkeypatch.setattr(commits, "make_commit", make)
            commit(hub, MAIN, AddFile("other.txt", content), by="writer")
            monkeypatch.setattr(commits, "make_commit", late)
        return make(*arguments, **options)

    monkeypatch.setattr(commits, "make_commit", late)
    assert hub.ask("writer", "POST", f"{BASE}/{num}/merge").status_code == 200
    assert files(hub)["other.txt"] == b"1"
    assert files(hub)["README.md"] == b"better"


def test_many_at_once(hub: Crowded) -> None:
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda _: opened(hub, publish=False), range(16)))
    assert sorted(numbers) == list(range(1, 17))
    hub.ask("ann", "POST", f"{BASE}/1/status", status="open")
    commit(hub, "refs/pr/1", AddFile("README.md", b"better"))
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda _: hub.ask("writer", "POST", f"{BASE}/1/merge"), range(4))
        )
    assert {answer.status_code for answer in answers} <= {200, 400}
    merged = {answer.json()["mergeCommitId"] for answer in answers if answer.status_code == 200}
    head = hub.hub.metadata.commit(repository(hub), "main")
    assert head is not None
    assert merged == {head.oid}, "one commit, whoever was first"
    history = hub.hub.metadata.history(repository(hub), head, 10)
    assert len(history) == 2
    said = [event for event in details(hub, 1)["events"] if event["type"] == "status-change"]
    assert [event["data"]["status"] for event in said] == ["open", "merged"]


def test_an_empty_pull_request_is_not_merged(hub: Crowded) -> None:
    num = opened(hub)
    refused = hub.ask("writer", "POST", f"{BASE}/{num}/merge")
    assert (refused.status_code, refused.headers["x-error-message"]) == (
        400,
        "Pull request 1 changes nothing",
    )
    hub.ask("ann", "POST", BASE, title="No pull request", description="")
    refused = hub.ask("writer", "POST", f"{BASE}/2/merge")
    assert refused.headers["x-error-message"] == "Discussion 2 is no pull request"


def test_who_may_commit_to_a_pull_request(hub: Crowded) -> None:
    num = opened(hub)

    def check(name: str, ref: str) -> int:
        caller = hub.crowd.authenticate(name)
        assert caller is not None
        try:
            pulls.check_push(hub.hub, caller, repository(hub), ref)
        except HubError as error:
            return error.status
        return 200

    assert check("ann", "refs/pr/1") == 200
    assert check("writer", "refs/pr/1") == 200
    assert check("ben", "refs/pr/1") == 403
    assert check("ann", "refs/pr/2") == 404
    for odd in ("refs/pr/0", "refs/pr/01", "refs/pr/x", "refs/pr/1/x", "refs/heads/main"):
        assert check("ann", odd) == 404
    hub.ask("ann", "POST", BASE, title="A discussion", description="")
    assert check("ann", "refs/pr/2") == 404
    hub.ask("ann", "POST", f"{BASE}/{num}/status", status="closed")
    assert check("ann", "refs/pr/1") == check("writer", "refs/pr/1") == 403


def test_a_pull_request_for_a_commit_is_gone_if_the_commit_fails(hub: Crowded) -> None:
    caller = hub.crowd.authenticate("ann")
    assert caller is not None
    for _ in range(2):
        with (
            pytest.raises(HubError, match="doesn't exist"),
            pulls.opened_pull(hub.hub, caller, repository(hub), title="Try") as pull,
        ):
            commit(hub, pull.ref, DeleteFile("absent"))
    assert hub.ask("ann", "GET", BASE).json()["count"] == 0
    assert hub.ask("ann", "GET", f"{INFO}/refs?include_prs=1").json()["pullRequests"] == []
    with pulls.opened_pull(hub.hub, caller, repository(hub), title="Try") as pull:
        commit(hub, pull.ref, AddFile("x", b"x"))
    assert (pull.num, pull.status, details(hub, 1)["status"]) == (1, "open", "open")


def test_the_base_of_a_pull_request(hub: Crowded) -> None:
    caller = hub.crowd.authenticate("ann")
    assert caller is not None
    old = hub.hub.metadata.commit(repository(hub), "main")
    assert old is not None
    commit(hub, MAIN, AddFile("other.txt", b"other"), by="writer")
    for base in ("absent", old.oid, "refs/heads/main"):
        with pytest.raises(HubError) as refused:
            pulls.open_pull(hub.hub, caller, repository(hub), title="Try", base=base)
        assert (refused.value.status, refused.value.code) == (404, "RevisionNotFound")
    pull = pulls.open_pull(hub.hub, caller, repository(hub), title="Try", parent=old.oid)
    assert pull.base_oid == old.oid
    commit(hub, pull.ref, AddFile("x", b"x"))
    assert "other.txt" not in details(hub, pull.num)["diff"]
    assert hub.ask("writer", "POST", f"{BASE}/{pull.num}/merge").status_code == 200
    assert {"x", "other.txt"} <= set(files(hub))


def test_a_large_difference_is_bounded(hub: Crowded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff, "MAX_DIFF_SIZE", 2000)
    num = opened(hub)
    commit(
        hub,
        f"refs/pr/{num}",
        *(AddFile(f"many/{index}", f"{index}\n".encode() * 20) for index in range(50)),
        AddFile("long", b"line\n" * (diff.MAX_LINES + 1)),
        AddFile("large", b"x" * (diff.MAX_FILE_SIZE + 1)),
    )
    text = details(hub, num)["diff"]
    assert len(text) < 4000
    assert "Binary files /dev/null and b/long differ" in text
    assert "Binary files /dev/null and b/large differ" in text
    assert text.endswith("more files differ\n")
