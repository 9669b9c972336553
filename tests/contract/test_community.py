"""Discussions, pull requests, likes, listings and the file system through the stock client."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_download,
)
from huggingface_hub.community import (
    DiscussionComment,
    DiscussionCommit,
    DiscussionStatusChange,
    DiscussionTitleChange,
)
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from registry_parts import Registry, run_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.contract

TOKENS = {name: f"hft_{name}-talks-with-others" for name in ("ada", "con", "ben", "eve")}
ROLES = {"ada": "admin", "con": "contribute", "ben": "contribute", "eve": "read"}
SEED: dict[str, Any] = {
    "teams": ["research"],
    "users": [
        {"name": name, "teams": {"research": ROLES[name]}, "tokens": [{"secret": secret}]}
        for name, secret in TOKENS.items()
    ],
}
CARD = "---\nlicense: apache-2.0\nlanguage: [en]\n---\n# A model\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("community")
    with run_registry(folder, "--jurisdiction", "de", seed=SEED) as running:
        yield running


@pytest.fixture
def repo(registry: Registry, request: pytest.FixtureRequest) -> str:
    name = f"research/{request.node.name.removeprefix('test_')[:60]}"
    api(registry, "ada").create_repo(name, private=True)
    api(registry, "ada").upload_file(
        path_or_fileobj=CARD.encode(), path_in_repo="README.md", repo_id=name
    )
    return name


def api(registry: Registry, who: str) -> HfApi:
    return HfApi(endpoint=registry.url, token=TOKENS[who])


def refused(status: int, call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(HfHubHTTPError) as caught:
        call(*arguments, **options)
    assert caught.value.response.status_code == status
    return str(caught.value)


def text_of(registry: Registry, repo: str, path: str, tmp_path: Path) -> str:
    return Path(
        hf_hub_download(
            repo, path, endpoint=registry.url, token=TOKENS["eve"], local_dir=tmp_path / "out"
        )
    ).read_text()


def test_a_discussion(registry: Registry, repo: str) -> None:
    con, ada = api(registry, "con"), api(registry, "ada")
    opened = con.create_discussion(repo, title=" A question !  ", description="why?")
    assert (opened.num, opened.title, opened.author) == (1, "A question !", "con")
    assert (opened.status, opened.is_pull_request, opened.git_reference) == ("open", False, None)
    assert opened.url == f"{registry.url}/{repo}/discussions/1"
    said = ada.comment_discussion(repo, 1, comment="**because**\n\nof [this](http://x.invalid)")
    assert isinstance(said, DiscussionComment)
    edited = ada.edit_discussion_comment(repo, 1, said.id, new_content="because")
    assert (edited.id, edited.edited, edited.content) == (said.id, True, "because")
    assert edited.number_of_edits == 1
    assert edited.last_edited_by == "ada"
    assert edited.rendered == "<p>because</p>"
    renamed = con.rename_discussion(repo, 1, new_title="Answered")
    assert isinstance(renamed, DiscussionTitleChange)
    assert (renamed.old_title, renamed.new_title) == ("A question !", "Answered")
    closed = con.change_discussion_status(repo, 1, new_status="closed", comment="thanks")
    assert isinstance(closed, DiscussionStatusChange)
    assert closed.new_status == "closed"
    with pytest.warns(UserWarning, match="irreversible"):
        hidden = ada.hide_discussion_comment(repo, 1, said.id)
    assert hidden.hidden
    found = api(registry, "eve").get_discussion_details(repo, 1)
    assert [event.type for event in found.events] == [
        *("comment", "comment", "title-change", "comment", "status-change"),
    ]
    assert found.diff is None
    assert found.target_branch is None
    assert found.conflicting_files is None


def test_who_may_say_what(registry: Registry, repo: str) -> None:
    con, ben, eve = (api(registry, name) for name in ("con", "ben", "eve"))
    con.create_discussion(repo, title="Mine", description="x")
    assert "may not contribute" in refused(403, eve.create_discussion, repo, title="Mine too")
    refused(403, eve.comment_discussion, repo, 1, comment="x")
    assert "Only con" in refused(403, ben.change_discussion_status, repo, 1, new_status="closed")
    refused(404, con.get_discussion_details, repo, 99)
    with pytest.raises(RepositoryNotFoundError):
        con.create_discussion("elsewhere/absent", title="Mine")
    with pytest.raises(BadRequestError):
        con.create_discussion(repo, title="ab")


def test_lists_of_discussions(registry: Registry, repo: str) -> None:
    con, ada = api(registry, "con"), api(registry, "ada")
    for number in range(52):
        con.create_discussion(repo, title=f"Question {number}", description="x")
    ada.create_pull_request(repo, title="Mine", description="x")
    con.change_discussion_status(repo, 5, new_status="closed")

    def numbers(**filters: Any) -> list[int]:
        return [each.num for each in con.get_repo_discussions(repo, **filters)]

    assert numbers() == list(range(53, 0, -1)), "two pages"
    assert numbers(discussion_type="pull_request") == [53]
    assert numbers(discussion_status="closed") == [5]
    assert numbers(author="ada") == [53]
    done = hf(registry, "con", "discussions", "list", repo, "--status", "draft", "--format", "json")
    assert [each["num"] for each in json.loads(done)] == [53]


def test_an_upload_as_a_pull_request_is_merged(
    registry: Registry, repo: str, tmp_path: Path
) -> None:
    con, ada = api(registry, "con"), api(registry, "ada")
    new = CARD.replace("# A model", "# A better model")
    message = "You may not write"
    assert message in refused(
        403, con.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id=repo
    )
    done = con.create_commit(
        repo,
        [
            CommitOperationAdd("README.md", new.encode()),
            CommitOperationAdd("data/notes.txt", b"notes\n"),
        ],
        commit_message="Better words",
        commit_description="as asked",
        create_pr=True,
    )
    assert (done.pr_num, done.pr_revision) == (1, "refs/pr/1")
    assert done.pr_url == f"{registry.url}/{repo}/discussions/1"
    con.upload_file(
        path_or_fileobj=b"more\n", path_in_repo="more.txt", repo_id=repo, revision="refs/pr/1"
    )
    found = ada.get_discussion_details(repo, 1)
    assert (found.title, found.author, found.status) == ("Better words", "con", "open")
    assert found.target_branch == "refs/heads/main"
    assert found.conflicting_files == []
    pushed = [event for event in found.events if isinstance(event, DiscussionCommit)]
    assert pushed[0].oid == done.oid
    assert len(pushed) == 2
    assert found.diff is not None
    assert "-# A model\n+# A better model\n" in found.diff
    refs = con.list_repo_refs(repo, include_pull_requests=True)
    assert refs.pull_requests is not None
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]
    assert sorted(con.list_repo_files(repo)) == [".gitattributes", "README.md"]
    assert "more.txt" in con.list_repo_files(repo, revision="refs/pr/1")
    assert len(con.list_repo_commits(repo, revision="refs/pr/1")) == 4

    assert "may not write" in refused(403, con.merge_pull_request, repo, 1)
    ada.merge_pull_request(repo, 1, comment="Thank you")
    merged = con.get_discussion_details(repo, 1)
    assert merged.status == "merged"
    assert merged.merge_commit_oid == con.model_info(repo).sha
    last = con.list_repo_commits(repo)[0]
    assert last.title == "Better words (#1)"
    assert text_of(registry, repo, "README.md", tmp_path) == new
    assert "already" in refused(400, con.change_discussion_status, repo, 1, new_status="closed")
    assert "merged" in refused(
        403,
        con.upload_file,
        path_or_fileobj=b"x",
        path_in_repo="x",
        repo_id=repo,
        revision="refs/pr/1",
    )
    events = [event for event in registry.ledger() if event.get("operation") == "merge"]
    assert events[-1]["status"] == 200


def test_a_folder_as_a_pull_request(registry: Registry, repo: str, tmp_path: Path) -> None:
    """The newest client opens a draft first, then commits to it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "vocab.txt").write_text("a\nb\n")
    con, ada = api(registry, "con"), api(registry, "ada")
    done = con.upload_folder(folder_path=folder, repo_id=repo, create_pr=True)
    assert done.pr_num == 1
    if ada.get_discussion_details(repo, 1).status == "draft":
        assert "publish it" in refused(400, ada.merge_pull_request, repo, 1)
        con.change_discussion_status(repo, 1, new_status="open")
    hf(registry, "ada", "discussions", "merge", repo, "1", "--yes")
    assert "vocab.txt" in con.list_repo_files(repo)


def test_conflicts_are_named(registry: Registry, repo: str, tmp_path: Path) -> None:
    con, ada = api(registry, "con"), api(registry, "ada")
    theirs = {"path_or_fileobj": b"theirs", "path_in_repo": "notes.txt", "repo_id": repo}
    con.upload_file(**theirs, create_pr=True)
    ada.upload_file(path_or_fileobj=b"ours", path_in_repo="notes.txt", repo_id=repo)
    assert con.get_discussion_details(repo, 1).conflicting_files == ["notes.txt"]
    assert "since: notes.txt" in refused(409, ada.merge_pull_request, repo, 1)
    assert text_of(registry, repo, "notes.txt", tmp_path) == "ours"
    con.create_commit(
        repo,
        [CommitOperationDelete("notes.txt"), CommitOperationAdd("other.txt", b"theirs")],
        commit_message="Elsewhere",
        revision="refs/pr/1",
    )
    ada.merge_pull_request(repo, 1)
    assert text_of(registry, repo, "other.txt", tmp_path) == "theirs"


def test_pull_requests_of_others_and_to_branches(registry: Registry, repo: str) -> None:
    con, ben, ada = (api(registry, name) for name in ("con", "ben", "ada"))
    con.create_pull_request(repo, title="Mine", description="x")
    add = [CommitOperationAdd("x.txt", b"x")]
    assert "open your own" in refused(
        403, ben.create_commit, repo, add, commit_message="x", revision="refs/pr/1"
    )
    with pytest.raises(RevisionNotFoundError):
        con.create_commit(repo, add, commit_message="x", revision="refs/pr/9")
    head = con.model_info(repo).sha
    for revision in ("missing", head):
        with pytest.raises(RevisionNotFoundError):
            con.create_commit(repo, add, commit_message="x", revision=revision, create_pr=True)
    ada.create_branch(repo, branch="side")
    done = con.create_commit(repo, add, commit_message="x", revision="side", create_pr=True)
    assert done.pr_num == 2, "what failed left nothing"
    ada.merge_pull_request(repo, 2)
    assert "x.txt" in con.list_repo_files(repo, revision="side")
    assert "x.txt" not in con.list_repo_files(repo)


def test_likes(registry: Registry, repo: str) -> None:
    ada, eve = api(registry, "ada"), api(registry, "eve")
    for name in ("ada", "eve"):
        status, _, _ = registry.request(f"/api/models/{repo}/like", TOKENS[name], "POST")
        assert status == 200
    assert [user.username for user in ada.list_repo_likers(repo)] == ["ada", "eve"]
    assert ada.model_info(repo).likes == 2
    assert repo in ada.list_liked_repos("eve").models
    assert repo in eve.list_liked_repos().models
    for _ in range(2):
        eve.unlike(repo)
    assert eve.list_liked_repos().models == []
    assert [model.id for model in ada.list_models(sort="likes", limit=1)] == [repo]
    with pytest.raises(RepositoryNotFoundError):
        eve.unlike("research/absent")


def test_listings(registry: Registry) -> None:
    ada, eve = api(registry, "ada"), api(registry, "eve")
    names = [f"ada/listed-{number}" for number in range(5)]
    for number, name in enumerate(names):
        ada.create_repo(name, private=True)
        card = CARD.replace("[en]", f"[en]\npipeline_tag: fill-mask\ntags: [listed, t{number % 2}]")
        ada.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=name)

    def listed(**question: Any) -> list[str]:
        return [model.id for model in ada.list_models(**question)]

    assert listed(filter="listed") == names
    assert listed(filter=["listed", "t1"], author="ada") == [names[1], names[3]]
    assert listed(search="STED-3") == [names[3]]
    assert listed(author="ada", sort="created_at") == names[::-1]
    assert listed(author="ada", sort="last_modified", limit=2) == names[:2:-1]
    assert listed(pipeline_tag="fill-mask", gated=False, author="ada") == names
    assert listed(author="ada", gated=True) == []
    assert listed(author="ada", num_parameters="min:1B") == []
    assert listed(author="ada", inference="warm") == []
    assert [model.id for model in eve.list_models(author="ada")] == [], "not eve's to see"
    [shown] = ada.list_models(filter="listed", limit=1, expand=["likes", "trendingScore", "sha"])
    assert (shown.likes, shown.trending_score) == (0, 0)
    assert shown.sha == ada.model_info(shown.id).sha
    with pytest.raises(BadRequestError):
        list(ada.list_models(expand=["foo"]))  # type: ignore[list-item] # what is not there
    [full] = ada.list_models(filter="listed", limit=1, full=True, cardData=True)
    assert full.card_data is not None
    assert full.card_data.license == "apache-2.0"
    assert full.siblings is not None
    assert "license" in ada.get_model_tags()


def test_data_sets_beside_models(registry: Registry, tmp_path: Path) -> None:
    ada = api(registry, "ada")
    ada.create_repo("ada/data", repo_type="dataset", private=True)
    card = "---\nlicense: mit\nlanguage: de\ntask_categories: [text-generation]\n---\n"
    ada.upload_file(
        path_or_fileobj=card.encode(),
        path_in_repo="README.md",
        repo_id="ada/data",
        repo_type="dataset",
    )
    found = ada.list_datasets(language="de", task_categories="text-generation", author="ada")
    assert [each.id for each in found] == ["ada/data"]
    assert "language:de" in (ada.dataset_info("ada/data").tags or [])
    pull = ada.create_discussion("ada/data", "A question", repo_type="dataset")
    assert pull.url == f"{registry.url}/datasets/ada/data/discussions/1"
    path = hf_hub_download(
        "ada/data",
        "README.md",
        repo_type="dataset",
        endpoint=registry.url,
        token=TOKENS["ada"],
        cache_dir=tmp_path,
    )
    assert Path(path).read_text() == card
    with pytest.raises(RepositoryNotFoundError):
        ada.model_info("ada/data")


def test_a_registry_of_models_only(tmp_path: Path) -> None:
    with run_registry(tmp_path, "--kinds", "model", "--jurisdiction", "de", seed=SEED) as running:
        ada = api(running, "ada")
        refused(400, ada.create_repo, "ada/data", repo_type="dataset")
        refused(404, lambda: list(ada.list_datasets()))
        ada.create_repo("ada/model")


def test_the_file_system(registry: Registry, repo: str) -> None:
    files = HfFileSystem(endpoint=registry.url, token=TOKENS["ada"], skip_instance_cache=True)
    assert {each.rpartition("/")[2] for each in files.ls(repo, detail=False)} == {
        *(".gitattributes", "README.md"),
    }
    with files.open(f"{repo}/deep/er/notes.txt", "w") as file:
        file.write("one\ntwo\n")
    with files.open(f"{repo}/deep/er/notes.txt", "r") as file:
        assert file.read() == "one\ntwo\n"
    files.pipe_file(f"{repo}/deep/other.txt", b"other")
    assert files.glob(f"{repo}/deep/**/*.txt") == [
        *(f"{repo}/deep/er/notes.txt", f"{repo}/deep/other.txt"),
    ]
    files.cp_file(f"{repo}/deep/other.txt", f"{repo}/copy.txt")
    assert files.cat_file(f"{repo}/copy.txt") == b"other"
    files.mv(f"{repo}/copy.txt", f"{repo}/moved.txt")
    assert not files.exists(f"{repo}/copy.txt")
    assert files.info(f"{repo}/moved.txt")["size"] == len(b"other")
    files.rm(f"{repo}/deep", recursive=True)
    files.invalidate_cache()
    assert files.find(repo) == [
        *(f"{repo}/.gitattributes", f"{repo}/README.md", f"{repo}/moved.txt"),
    ]
    assert files.modified(f"{repo}/moved.txt")
    api(registry, "ada").create_branch(repo, branch="side")
    files.rm(f"{repo}@side/moved.txt")
    assert files.exists(f"{repo}/moved.txt")
    assert not files.exists(f"{repo}@side/moved.txt")


def test_copies_in_a_pull_request(registry: Registry, repo: str) -> None:
    con, ada = api(registry, "con"), api(registry, "ada")
    ada.upload_file(
        path_or_fileobj=b'{"a": 1}' * 2_000_000, path_in_repo="large.json", repo_id=repo
    )
    done = con.create_commit(
        repo,
        [CommitOperationCopy("large.json", "copy.json")],
        commit_message="Copy",
        create_pr=True,
    )
    assert done.pr_num is not None
    ada.merge_pull_request(repo, done.pr_num)
    one, other = ada.get_paths_info(repo, ["copy.json", "large.json"])
    assert one.blob_id == other.blob_id


def test_headers_of_a_model_in_several_files(registry: Registry, repo: str) -> None:
    header = b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    weights = struct.pack("<Q", len(header)) + header + b"\0" * 4
    index = {"metadata": {"total_size": 4}, "weight_map": {"w": "model-1.safetensors"}}
    ada = api(registry, "ada")
    ada.create_commit(
        repo,
        [
            CommitOperationAdd("model-1.safetensors", weights),
            CommitOperationAdd("model.safetensors.index.json", json.dumps(index).encode()),
        ],
        commit_message="Weights",
    )
    found = ada.get_sharded_safetensors_metadata(repo)
    assert found == ada.get_safetensors_metadata(repo)
    assert found.parameter_count == {"F32": 1}


def hf(registry: Registry, who: str, *arguments: str) -> str:
    environment = {
        **os.environ,
        "HF_ENDPOINT": registry.url,
        "HF_TOKEN": TOKENS[who],
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    program = Path(sys.executable).parent / "hf"
    done = subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
