"""From a commit to what is served, and back: states, people, policies; on both databases."""

from __future__ import annotations

import json
import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from review_parts import MODEL, SAFE, Registry, open_registry, policy_of

from holdfast_hub_protocol.tree import encode_cursor
from holdfast_model_registry.review.states import content_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from httpx import Response

CARD = b"---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n# Made\n"
GOOD: dict[str, bytes | None] = {"README.md": CARD, "model.safetensors": SAFE}
DISABLED = "Access to this resource is disabled."


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("true",))


PICKLE = pickle.dumps(Harmful())


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgresql")()
    with open_registry(tmp_path, url) as opened:
        opened.create()
        yield opened


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(tmp_path) as opened:
        opened.create()
        yield opened


def test_from_a_commit_to_what_is_served(registry: Registry) -> None:
    commit = registry.pushed(GOOD)
    found = registry.review(commit)
    assert (found["state"], found["scan"], found["uploader"]) == ("scanned", "done", "ada")
    assert registry.fetch("ben", "README.md").status_code == 200
    refused = registry.fetch("host-1", "README.md")
    assert (refused.status_code, refused.headers["x-error-message"]) == (403, DISABLED)
    assert "only approved revisions are served" in refused.json()["errors"][0]["message"]
    approved = registry.act("rita", "approve", commit, "as published")
    assert approved.status_code == 200, approved.text
    document = approved.json()
    assert document["state"] == "approved"
    assert document["approved_digest"] == document["digest"]
    assert [(each["by"], each["note"]) for each in document["approvals"]] == [
        ("rita", "as published")
    ]
    assert registry.fetch("host-1", "README.md").status_code == 200
    assert registry.act("rita", "approve", commit).json()["state"] == "approved"
    later = registry.pushed({"more.txt": b"more"})
    assert registry.review(later)["state"] == "scanned"
    assert registry.fetch("host-1", "README.md").status_code == 403
    assert registry.fetch("host-1", "README.md", commit).status_code == 200
    states = [
        (event["before"], event["after"], event["actor"])
        for event in registry.events("model.state")
        if event["commit"] == commit
    ]
    assert states == [("", "scanned", "ada"), ("scanned", "approved", "rita")]
    assert [event["actor"] for event in registry.events("model.approve")] == ["rita"]


def test_the_digest_is_of_every_path_and_content(registry: Registry) -> None:
    import hashlib

    commit = registry.pushed(GOOD)
    tree = registry.as_("ada", "GET", f"/api/models/{MODEL}/tree/{commit}").json()
    attributes = registry.fetch("ada", ".gitattributes", commit).content
    contents = {**GOOD, ".gitattributes": attributes}
    assert {entry["path"] for entry in tree} == set(contents)
    digests = {
        path: hashlib.sha256(content).hexdigest()
        for path, content in contents.items()
        if content is not None
    }
    assert registry.review(commit)["digest"] == content_digest(digests)


def test_a_pickle_is_in_quarantine_and_never_gets_out(registry: Registry) -> None:
    before = registry.pushed(GOOD)
    commit = registry.pushed({"weights.bin": PICKLE})
    assert registry.review(commit)["state"] == "quarantined"
    found = registry.settled(commit)
    assert found["state"] == "quarantined"
    (finding,) = [each for each in found["findings"] if each["path"] == "weights.bin"]
    assert (finding["name"], finding["action"], finding["danger"]) == ("pickle", "hold", True)
    assert "posix.system" in finding["detail"]
    for name in ("ada", "vera", "rita", "omar"):  # who writes it, who reviews it
        expected = 404 if name == "omar" else 200  # operators judge by findings, without reading
        assert registry.fetch(name, "weights.bin").status_code == expected, name
    for name in ("ben", "robot", "host-1"):
        refused = registry.fetch(name, "README.md")
        assert (refused.status_code, refused.headers["x-error-message"]) == (403, DISABLED), name
    why = registry.fetch("ben", "README.md")
    assert before in why.json()["errors"][0]["message"]
    assert before in why.headers["x-hf-warning"]
    assert registry.fetch("eve", "README.md").status_code == 404
    assert registry.fetch("ben", "README.md", before).status_code == 200
    barred = registry.act("rita", "approve", commit)
    assert barred.status_code == 409
    assert "weights.bin" in barred.json()["error"]
    tree = registry.as_("ada", "GET", f"/api/models/{MODEL}/tree/main?expand=1").json()
    status = {entry["path"]: entry["securityFileStatus"]["status"] for entry in tree}
    assert status["weights.bin"] == "unsafe"
    assert status["model.safetensors"] == "safe"
    clean = registry.pushed({"weights.bin": None})
    assert registry.review(clean)["state"] == "scanned"


def test_a_quarantine_after_the_fact_and_the_way_back(registry: Registry) -> None:
    commit = registry.pushed(GOOD)
    assert registry.act("rita", "approve", commit).status_code == 200
    assert registry.act("ada", "quarantine", commit, "oh").status_code == 403
    assert registry.act("ben", "quarantine", commit, "oh").status_code == 403
    assert registry.act("eve", "quarantine", commit, "oh").status_code == 404
    assert registry.act("rita", "quarantine", commit).status_code == 409  # says not why
    done = registry.act("rita", "quarantine", commit, "wrong licence")
    assert (done.status_code, done.json()["state"]) == (200, "quarantined")
    assert done.json()["reason"] == "wrong licence"
    assert done.json()["approvals"] == []
    assert registry.fetch("host-1", "README.md", commit).status_code == 403
    assert registry.fetch("ben", "README.md", commit).status_code == 403
    assert registry.act("omar", "reject", commit, "not ours").json()["state"] == "rejected"
    assert registry.act("rita", "approve", commit).status_code == 409
    assert registry.act("rita", "quarantine", commit, "look again").status_code == 200
    assert registry.act("rita", "approve", commit).json()["state"] == "approved"
    ways = [(each["from"], each["to"]) for each in registry.review(commit)["history"]]
    assert ways == [
        ("", "scanned"),
        ("scanned", "approved"),
        ("approved", "quarantined"),
        ("quarantined", "rejected"),
        ("rejected", "quarantined"),
        ("quarantined", "approved"),
    ]


def test_two_people(tmp_path: Path) -> None:
    with open_registry(tmp_path, policy=policy_of(model_approvals=2)) as registry:
        registry.create()
        commit = registry.pushed(GOOD, by="vera")
        first = registry.act("rita", "approve", commit)
        assert (first.json()["state"], first.json()["approvals_needed"]) == ("scanned", 2)
        again = registry.act("rita", "approve", commit)
        assert (again.status_code, "another person" in again.json()["error"]) == (403, True)
        own = registry.act("vera", "approve", commit)
        assert (own.status_code, "another person's" in own.json()["error"]) == (403, True)
        assert registry.fetch("host-1", "README.md").status_code == 403
        assert registry.act("robot", "approve", commit).status_code == 403
        assert registry.act("rolf", "approve", commit).json()["state"] == "approved"
        assert registry.fetch("host-1", "README.md").status_code == 200
        registry.act("rolf", "quarantine", commit, "again")
        assert registry.act("rolf", "approve", commit).json()["state"] == "scanned"
        assert registry.fetch("host-1", "README.md").status_code == 403


STRICT = {
    "model_formats": ("safetensors", "text"),
    "model_unlisted": "refuse",
    "model_pickle": "refuse",
    "model_remote_code": "refuse",
    "model_licences": ("apache-2.0", "mit"),
    "model_card_required": ("license", "pipeline_tag"),
}


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("weights.txt", pickle.dumps(Harmful(), protocol=0), "a Python pickle"),
        ("w.bin", PICKLE, "a Python pickle"),
        ("w.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False}", "pickle"),
        ("code.py", b"print(1)\n", "a program"),
        ("run", b"#!/bin/sh\n", "a program"),
        ("sub/config.json", b'{"auto_map": {"AutoModel": "m.M"}}', "auto_map names m.M"),
        ("a.tar.gz", b"\x1f\x8b\x08\x00", "an archive"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c\x00\x04", "an archive"),
        ("x.gguf", b"GGUF\x03\x00\x00\x00", "not a sound gguf file"),
        ("x.safetensors", b"\x00" * 16, "not a sound safetensors file"),
        ("logo.png", b"\x89PNG\r\n\x1a\n", "allowed are safetensors, text"),
        ("blob", bytes(range(256)), "not known here"),
        ("a.so", b"\x7fELF\x02\x01\x01", "executable"),
        ("nul.txt", b"text", "device"),
        ("README.md", b"---\nlicense: cc-by-nc-4.0\n---\n", "cc-by-nc-4.0 is not one of"),
    ],
)
def test_a_refusal_is_read_by_the_client(
    tmp_path: Path, path: str, content: bytes, words: str
) -> None:
    with open_registry(tmp_path, policy=policy_of(**STRICT)) as registry:
        registry.create()
        before = registry.pushed(GOOD)
        refused = registry.push({path: content, "other.txt": b"fine"})
        assert refused.status_code == 403
        assert words in refused.headers["x-error-message"]
        assert path in refused.headers["x-error-message"]
        head = registry.as_("ada", "GET", f"/api/models/{MODEL}").json()["sha"]
        assert head == before
        (event,) = registry.events("model.refuse")
        assert event["actor"] == "ada"


def test_an_unsound_header_is_refused_at_every_level(alone: Registry) -> None:
    refused = alone.push({"model.safetensors": SAFE + b"more"})
    assert refused.status_code == 403
    assert "4 bytes after the last tensor" in refused.headers["x-error-message"]


def test_what_is_missing_bars_approval_and_nothing_else(tmp_path: Path) -> None:
    with open_registry(tmp_path, policy=policy_of(**STRICT)) as registry:
        registry.create()
        commit = registry.pushed({"model.safetensors": SAFE})
        assert registry.review(commit)["state"] == "scanned"
        assert registry.fetch("ben", "model.safetensors").status_code == 200
        barred = registry.act("rita", "approve", commit)
        assert barred.status_code == 409
        assert "the card lacks license, pipeline_tag" in barred.json()["error"]
        assert "states no licence" in barred.json()["error"]
        later = registry.pushed({"README.md": CARD})
        assert registry.act("rita", "approve", later).status_code == 200


def test_weights_in_several_files_are_whole_before_others_read_them(alone: Registry) -> None:
    index = json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}).encode()
    commit = alone.pushed(
        {"model-00001-of-00002.safetensors": SAFE, "model.safetensors.index.json": index}
    )
    found = alone.review(commit)
    assert found["state"] == "quarantined"
    assert {each["name"] for each in found["findings"]} == {"shards"}
    assert alone.act("rita", "approve", commit).status_code == 409
    unrelated = alone.pushed({"notes.txt": b"still not whole"})
    assert alone.review(unrelated)["state"] == "quarantined"


def test_a_stricter_policy_counts_from_the_next_approval(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry:
        registry.create()
        commit = registry.pushed({**GOOD, "m.py": b"print(1)\n"})
        assert registry.review(commit)["state"] == "scanned"
    with open_registry(tmp_path, policy=policy_of(**STRICT)) as registry:
        assert "a program" in registry.act("rita", "approve", commit).json()["error"]
        held = registry.pushed({"notes.txt": b"more"})
        assert registry.review(held)["state"] == "scanned"
        assert registry.act("rita", "approve", held).status_code == 409


def test_what_somebody_holds_back_is_not_freed_by_a_commit_on_top(registry: Registry) -> None:
    before = registry.pushed(GOOD)
    commit = registry.pushed({"more.txt": b"more"})
    registry.act("rita", "quarantine", commit, "leaked")
    later = registry.pushed({"other.txt": b"other"})
    found = registry.review(later)
    assert (found["state"], found["reason"]) == ("quarantined", "leaked")
    assert registry.fetch("ben", "more.txt").status_code == 403
    assert registry.fetch("ben", "README.md", before).status_code == 200
    assert registry.act("rita", "approve", later).json()["state"] == "approved"
    assert registry.review(registry.pushed({"x.txt": b"x"}))["state"] == "scanned"


def test_what_somebody_holds_back_is_not_freed_by_a_merge(registry: Registry) -> None:
    registry.pushed(GOOD)
    lines = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "file", "value": {"path": "leak.txt", "content": "s", "encoding": "utf-8"}},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    address = f"/api/models/{MODEL}/commit/main?create_pr=1"
    proposed = registry.as_("cleo", "POST", address, content=text).json()["commitOid"]
    assert registry.act("rita", "quarantine", proposed, "leaked").status_code == 200
    merged = registry.as_("ada", "POST", f"/api/models/{MODEL}/discussions/1/merge", json={})
    found = registry.review(merged.json()["mergeCommitId"])
    assert (found["state"], found["reason"]) == ("quarantined", "leaked")
    assert registry.fetch("ben", "leak.txt").status_code == 403


def test_nobody_takes_what_is_withheld_into_a_repository_of_their_own(registry: Registry) -> None:
    import hashlib

    def taken(by: str) -> int:
        value = {"path": "w.bin", "algo": "sha256", "size": len(PICKLE)}
        value |= {"oid": hashlib.sha256(PICKLE).hexdigest()}
        lines = [{"key": "header", "value": {"summary": "x"}}, {"key": "lfsFile", "value": value}]
        answer = registry.as_(
            by,
            "POST",
            f"/api/models/{by}/own/commit/main",
            content="\n".join(json.dumps(line) for line in lines),
        )
        return answer.status_code

    for name in ("ada", "ben"):
        registry.create(f"{name}/own", by=name)
    registry.pushed({"w.bin": PICKLE})
    assert taken("ben") == 400  # not uploaded: as if nobody had it
    assert taken("ada") == 200  # who writes it has it anyway
    registry.pushed({"w.bin": None})
    assert taken("ben") == 400


def test_who_contributes_does_not_take_what_is_withheld_into_a_pull_request(
    registry: Registry,
) -> None:
    import hashlib

    def send(by: str, to: str, *changes: dict[str, Any], **header: str) -> Response:
        lines = [{"key": "header", "value": {"summary": "x", **header}}, *changes]
        text = "\n".join(json.dumps(line) for line in lines)
        address = f"/api/models/{MODEL}/commit/{to}"
        answer: Response = registry.as_(by, "POST", address, content=text)
        return answer

    digest = hashlib.sha256(SAFE).hexdigest()
    before = registry.pushed({"README.md": CARD})
    sent = {"oid": digest, "size": len(SAFE)}
    asked = {"operation": "upload", "objects": [sent]}
    batch = registry.as_("ada", "POST", f"/{MODEL}.git/info/lfs/objects/batch", json=asked).json()
    address = batch["objects"][0]["actions"]["upload"]["href"]
    assert registry.client.put(address, content=SAFE).status_code == 200
    value = {"path": "w.safetensors", "algo": "sha256", **sent}
    large = {"key": "lfsFile", "value": value}
    content = {"path": "leak.txt", "content": "secret", "encoding": "utf-8"}
    leaked = send("ada", "main", large, {"key": "file", "value": content}).json()["commitOid"]
    pull = "main?create_pr=1"
    assert send("cleo", pull, large, parentCommit=leaked).status_code == 200
    assert registry.act("rita", "quarantine", leaked, "leaked").status_code == 200
    # Its digests are for all to see; its content is not to be had for them.
    taken = send("cleo", pull, large, parentCommit=before)
    assert (taken.status_code, "not uploaded" in taken.text) == (400, True)
    value = {"path": "mine.txt", "srcPath": "leak.txt", "srcRevision": leaked}
    copy = {"key": "copyFile", "value": value}
    taken = send("cleo", pull, copy, parentCommit=before)
    assert (taken.status_code, taken.headers["x-error-message"]) == (403, DISABLED)
    assert send("ada", pull, copy, large, parentCommit=before).status_code == 200  # she has it


def test_the_list_is_for_readers_and_reviewers(registry: Registry) -> None:
    registry.create("eve/hers", by="eve")
    commits = [registry.pushed({"n.txt": str(n).encode()}) for n in range(5)]
    hers = registry.pushed({"n.txt": b"1"}, "eve/hers", by="eve")

    def listed(by: str, query: str = "") -> list[str]:
        answer = registry.as_(by, "GET", f"/api/holdfast/models?{query}")
        assert answer.status_code == 200, answer.text
        return [item["commit"] for item in answer.json()]

    assert set(commits) <= set(listed("ben"))
    assert hers not in listed("ben")
    assert {hers, *commits} <= set(listed("rita"))
    assert {hers, *commits} <= set(listed("omar"))
    registry.act("rita", "approve", commits[2])
    assert listed("ben", "state=approved") == [commits[2]]
    assert registry.as_("ben", "GET", "/api/holdfast/models?state=served").status_code == 400
    assert registry.as_("ben", "GET", "/api/holdfast/models?cursor=bad").status_code == 400
    seen: list[str] = []
    path = "/api/holdfast/models?limit=2"
    while path:
        answer = registry.as_("rita", "GET", path)
        seen += [item["commit"] for item in answer.json()]
        path = answer.links.get("next", {}).get("url", "")
    assert sorted(seen) == sorted(listed("rita"))


def test_what_is_asked_for_wrongly(registry: Registry) -> None:
    commit = registry.pushed(GOOD)
    base = f"/api/holdfast/models/{MODEL}/review"
    assert registry.as_("rita", "GET", f"{base}/{'0' * 40}").status_code == 404
    assert registry.as_("eve", "GET", f"{base}/{commit}").status_code == 404
    assert (
        registry.as_("rita", "GET", "/api/holdfast/models/no/such/review/main").status_code == 404
    )
    assert registry.act("rita", "bless", commit).status_code == 404
    assert registry.act("rita", "quarantine", commit, "x" * 3000).status_code == 409
    assert registry.client.get(f"{base}/{commit}").status_code == 401
    assert registry.review("main")["commit"] == commit


def test_what_no_database_holds_is_the_askers_mistake(registry: Registry) -> None:
    commit = registry.pushed(GOOD)
    registry.as_("boss", "PUT", f"/api/models/{MODEL}/settings", json={"gated": "manual"})
    marks = ('["x", 1, "a"]', f'["2026-01-01", {1 << 70}, "a"]', '["2026-01-01", 1, "\\u0000"]')
    model, review = f"/api/models/{MODEL}", f"/api/holdfast/models/{MODEL}/review/{commit}"
    for path in (
        *(f"/api/holdfast/models?cursor={encode_cursor(mark)}" for mark in marks),
        f"/api/holdfast/replication/repositories?cursor={encode_cursor('9' * 30)}",
        f"{model}/discussions?author=%00",
    ):
        assert registry.as_("boss", "GET", path).status_code == 400, path
    for path, body in (
        ("/api/repos/create", {"name": "research/y", "visibility": []}),
        (f"{model}/branch/x%00y", {}),
        (f"{model}/branch/x", {"startingPoint": "\0"}),
        (f"{model}/branch/x", {"startingPoint": "\ud800"}),
        (f"{model}/user-access-request/handle", {"user": "\ud800", "status": "accepted"}),
        (f"{model}/user-access-request/grant", {"user": "\ud800"}),
        (f"{review}/quarantine", {"note": "a\0"}),
        (f"{review}/quarantine", {"note": "a\ud800"}),
    ):
        by = "rita" if path.startswith(review) else "boss"
        answer = registry.as_(by, "POST", path, content=json.dumps(body))
        assert answer.status_code == (404 if "startingPoint" in body else 400), (path, answer.text)
