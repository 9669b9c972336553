from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from registry_parts import (
    ADA,
    BOB,
    MODEL,
    command,
    files_of,
    make_bundle,
    make_model,
    program,
    request,
    run_registry,
)

from holdfast_trust.ledger import read, verify

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "fedcba9876543210fedcba9876543210fedcba98"
LABELLED = ("--jurisdiction", "de", "--classification", "internal")


def bring_in(
    data: Path, manifest: Path, blobs: Path, *more: str
) -> tuple[int, dict[str, Any], str]:
    done = command(
        "import", "--data", data, "--manifest", manifest, "--blobs", blobs, "--json", *more
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", weights=40_000)


@pytest.fixture
def bundle(tmp_path: Path, model: Path) -> tuple[Path, Path]:
    return make_bundle(tmp_path / "bundle", model, version=COMMIT)


def test_import_is_idempotent_and_says_what_it_did(
    tmp_path: Path, bundle: tuple[Path, Path], model: Path
) -> None:
    data = tmp_path / "data"
    status, said, errors = bring_in(data, *bundle, "--team", "research", *LABELLED)
    assert (status, errors) == (0, "")
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    repository = {
        "id": MODEL,
        "commit": COMMIT,
        "ref": "main",
        "files": len(files_of(model)),
        "bytes": size,
        "teams": ["research"],
        "labels": {"jurisdiction": "de", "classification": "internal"},
        "changed": True,
    }
    assert said == {"changed": True, "repositories": [repository]}
    for more in ((), ("--team", "research", *LABELLED)):
        status, said, _ = bring_in(data, *bundle, *more)
        assert status == 0
        assert said == {"changed": False, "repositories": [repository | {"changed": False}]}
    status, said, _ = bring_in(data, *bundle, "--team", "elsewhere", "--team", "research")
    assert said["changed"]
    assert said["repositories"][0]["teams"] == ["elsewhere", "research"]
    events = [record["event"] for record in read(data / "ledger")]
    assert [event["action"] for event in events] == ["model.import", "model.import"]
    assert events[0]["commit"] == COMMIT
    assert verify(data / "ledger").ok


def test_taking_every_team_away_is_asked_for_by_name(
    tmp_path: Path, bundle: tuple[Path, Path]
) -> None:
    data = tmp_path / "data"
    bring_in(data, *bundle, "--team", "research", *LABELLED)
    status, said, _ = bring_in(data, *bundle, "--no-team")
    assert (status, said["changed"], said["repositories"][0]["teams"]) == (0, True, [])
    assert not bring_in(data, *bundle, "--no-team")[1]["changed"]
    assert bring_in(data, *bundle, "--team", "research", "--no-team")[0] == 2


def test_only_the_models_that_are_named(tmp_path: Path, bundle: tuple[Path, Path]) -> None:
    data = tmp_path / "data"
    status, said, _ = bring_in(data, *bundle, "--model", MODEL)
    assert (status, len(said["repositories"])) == (0, 1)
    for name in ("research/absent", "not a name"):
        status, said, errors = bring_in(data, *bundle, "--model", name)
        assert (status, said) == (1, {})
        assert name in errors


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("flip", "not what the manifest says"),
        ("cut", "not what the manifest says"),
        ("lose", "missing"),
        ("oid", "not what the manifest says"),
        ("traverse", "'..'"),
        ("name", "not a repository name"),
        ("version", "version"),
        ("format", "format"),
        ("json", "cannot be read"),
    ],
)
def test_a_bad_bundle_shows_nothing_of_it(
    tmp_path: Path, bundle: tuple[Path, Path], model: Path, damage: str, words: str
) -> None:
    manifest, blobs = bundle
    document = json.loads(manifest.read_text())
    artifact = document["artifacts"][-1]
    digest = files_of(model)["tokenizer/vocab.txt"]
    blob = blobs / "sha256" / digest[:2] / digest
    match damage:
        case "flip":
            blob.write_bytes(b"A" + blob.read_bytes()[1:])
        case "cut":
            blob.write_bytes(blob.read_bytes()[:-1])
        case "lose":
            blob.unlink()
        case "oid":
            next(a for a in document["artifacts"] if a.get("git_oid"))["git_oid"] = "0" * 40
        case "traverse":
            artifact["filename"] = "../../etc/cron.d/x"
        case "name":
            artifact["name"] = "a/..b"
        case "version":
            artifact["version"] = "main"
        case "format":
            document["format"] = 2
    manifest.write_text("{" if damage == "json" else json.dumps(document))
    data = tmp_path / "data"
    status, said, errors = bring_in(data, manifest, blobs, "--team", "research", *LABELLED)
    assert (status, said) == (1, {})
    assert words in errors
    assert "Traceback" not in errors
    with run_registry(tmp_path / "run", "--data", str(data)) as running:
        assert running.request(f"/api/models/{MODEL}")[0] == 404
        assert json.loads(running.request("/api/models")[2]) == []
    if damage in {"flip", "cut", "lose"}:
        assert not list((data / "blobs").rglob(digest))


@pytest.mark.parametrize(
    ("options", "own", "other"),
    [
        (("--team", "research", *LABELLED), 200, 404),
        ((*LABELLED,), 200, 404),
        (("--team", "elsewhere", *LABELLED), 200, 200),
        (("--team", "elsewhere", "--jurisdiction", "de"), 404, 404),
        (("--team", "elsewhere", "--classification", "internal"), 404, 404),
    ],
)
def test_readers_are_the_owning_team_and_those_given_and_labels_are_needed(
    tmp_path: Path, bundle: tuple[Path, Path], options: tuple[str, ...], own: int, other: int
) -> None:
    with run_registry(tmp_path / "run") as running:
        assert bring_in(running.data, *bundle, *options)[0] == 0
        assert running.request(f"/api/models/{MODEL}", ADA)[0] == own
        assert running.request(f"/api/models/{MODEL}", BOB)[0] == other


def test_import_says_when_nobody_can_read(tmp_path: Path, bundle: tuple[Path, Path]) -> None:
    manifest, blobs = bundle
    done = command("import", "--data", tmp_path / "data", "--manifest", manifest, "--blobs", blobs)
    assert "opened to no team" in done.stderr
    assert "no classification: nobody may read it" in done.stderr
    assert "--jurisdiction" in done.stderr


def test_two_imports_at_once_and_readers_meanwhile(tmp_path: Path, model: Path) -> None:
    bundles = [
        make_bundle(tmp_path / f"bundle{n}", model, name=f"research/m{n % 2}", version=f"{n:040x}")
        for n in range(4)
    ]
    with run_registry(tmp_path / "run") as running:
        data = str(running.data)
        given = [program(), "import", "--data", data, "--team", "research", "--json", *LABELLED]
        children = [
            subprocess.Popen(
                [*given, "--manifest", str(manifest), "--blobs", str(blobs)],
                stdout=subprocess.PIPE,
            )
            for manifest, blobs in bundles
        ]
        while any(child.poll() is None for child in children):
            assert running.request("/api/models")[0] == 200
            time.sleep(0.02)
        for child in children:
            child.communicate()
            assert child.returncode == 0
        names = {item["id"] for item in json.loads(running.request("/api/models")[2])}
        assert names == {"research/m0", "research/m1"}
        assert running.stop() == 0
        assert verify(running.data / "ledger").ok


def test_killed_at_any_moment_the_same_command_finishes_the_job(
    tmp_path: Path,
) -> None:
    model = make_model(tmp_path / "model", weights=4_000_000)
    manifest, blobs = make_bundle(tmp_path / "bundle", model, version=COMMIT)
    data = tmp_path / "data"
    arguments = [program(), "import", "--data", str(data), "--manifest", str(manifest)]
    arguments += ["--blobs", str(blobs), "--team", "research", *LABELLED]
    chance = random.Random(7)
    for _ in range(6):
        child = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        time.sleep(chance.uniform(0.3, 2.5))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    status, _, errors = bring_in(data, manifest, blobs, "--team", "research", *LABELLED)
    assert status == 0, errors
    with run_registry(tmp_path / "run", "--data", str(data)) as running:
        for path, digest in files_of(model).items():
            if path.isascii():
                body = request(f"{running.url}/{MODEL}/resolve/main/{path}")[2]
                assert hashlib.sha256(body).hexdigest() == digest
    assert verify(data / "ledger").ok
