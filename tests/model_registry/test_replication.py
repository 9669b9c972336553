"""Copies from one registry to another: over loopback between real servers, and by a folder."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from provenance_parts import card, command, make_shelf
from registry_parts import ADA, LABELS, SEED, make_model, program, run_registry

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_model_registry.readers import put_access
from holdfast_trust.ledger import read
from postgresql_server import postgresql_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry_parts import Registry

MIRROR = "hft_mirror-of-elsewhere-01"
TINY = "research/tiny"
SECRET = "research/secret"
FRENCH = "research/french"


def prepare(folder: Path, *, weights: int = 40_000) -> dict[str, Any]:
    """Make models of several labels and what a source's seed says of them."""
    labelled = {
        TINY: LABELS,
        SECRET: LABELS | {"classification": "secret"},
        FRENCH: LABELS | {"jurisdiction": "fr"},
    }
    models = []
    for name, labels in labelled.items():
        path = name.partition("/")[2]
        make_model(folder / path, weights=weights)
        models.append({"id": name, "path": path, "teams": ["research"], "labels": labels})
    mirror = {"name": "mirror", "teams": [], "tokens": [{"secret": MIRROR}]}
    services = [*SEED["services"], mirror]
    (folder / "token").write_text(f"{MIRROR}\n")
    replicas = [{"service": "mirror", "jurisdiction": "de"}]
    config = {"data": str(folder / "data"), "replicas": replicas, "jurisdiction": "de"}
    (folder / "registry.yml").write_text(yaml.safe_dump(config))
    return SEED | {"models": models, "services": services}


@dataclass
class Pair:
    """A source that serves, and the arguments that copy from it."""

    source: Registry
    folder: Path
    target: Path

    def options(self, origin: str = "") -> list[str]:
        return [
            *("replicate", "--data", str(self.target), "--from", origin or self.source.url),
            *("--token-file", str(self.folder / "token"), "--jurisdiction", "de"),
            *("--source-key", str(self.folder / "key.pub"), "--json"),
        ]

    def copy(self, *more: str, origin: str = "") -> tuple[int, dict[str, Any]]:
        done = command(*self.options(origin), *more)
        said: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"said": done.stderr}
        return done.returncode, said


@contextmanager
def make_pair(folder: Path, *, weights: int = 40_000) -> Iterator[Pair]:
    folder.mkdir(exist_ok=True)
    seed = prepare(folder, weights=weights)
    with run_registry(folder, "--config", str(folder / "registry.yml"), seed=seed) as source:
        key = command("key", "--data", folder / "data")
        (folder / "key.pub").write_text(key.stdout)
        yield Pair(source, folder, folder / "copy")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with make_pair(tmp_path_factory.mktemp("pair") / "source") as pair:
        yield pair


@pytest.fixture
def pair(shared: Pair, tmp_path: Path) -> Pair:
    """A source that others use too, and a target of one's own."""
    return Pair(shared.source, shared.folder, tmp_path / "copy")


def sha_of(registry: Registry, token: str = ADA, name: str = TINY) -> str:
    return str(json.loads(registry.request(f"/api/models/{name}", token)[2])["sha"])


def test_what_labels_permit_comes_whole_with_its_commit_ids(pair: Pair, tmp_path: Path) -> None:
    status, said = pair.copy("--team", "research")
    assert status == 0
    (copied,) = said["repositories"]
    assert (copied["id"], copied["commits"], copied["refused"]) == (TINY, 1, "")
    assert copied["refs"] == {"refs/heads/main": sha_of(pair.source)}
    with run_registry(tmp_path / "run", "--data", str(pair.target), seed=SEED) as target:
        assert sha_of(target) == sha_of(pair.source)
        for path in ("model.safetensors", "config.json", "empty.txt"):
            here, there = (
                registry.request(f"/{TINY}/resolve/main/{path}")
                for registry in (target, pair.source)
            )
            assert (here[0], here[2]) == (200, there[2])
            assert here[1]["etag"] == there[1]["etag"]
    events = [record["event"] for record in read(pair.target / "ledger")]
    (event,) = [event for event in events if event["action"] == "model.replicate"]
    assert (event["model"], event["origin"]) == (TINY, pair.source.url)
    status, said = pair.copy()
    assert (status, said["changed"]) == (0, False)


def test_approvals_do_not_travel(pair: Pair) -> None:
    assert pair.copy()[0] == 0
    done = command("model", "verify", TINY, "--data", pair.target, "--json")
    links = {link["name"]: link for link in json.loads(done.stdout)["links"]}
    assert links["approval"]["verdict"] == "fail"
    assert links["approval"]["detail"] == "scanned"
    assert links["digests"]["verdict"] == "pass"
    assert links["manifest"]["verdict"] == "pass"
    assert links["origin"]["detail"].startswith(f"copied from {pair.source.url}")


def test_what_labels_forbid_does_not_exist_for_the_replica(pair: Pair) -> None:
    for name in (SECRET, FRENCH):
        for path in (f"/api/models/{name}", f"/api/holdfast/models/{name}/state"):
            assert pair.source.request(path, MIRROR)[0] == 404
            assert pair.source.request(path, ADA)[0] == 200
        status, said = pair.copy("--repo", name)
        assert status == 1
        assert "Repository not found" in said["said"]


def test_the_target_holds_to_its_own_place(pair: Pair) -> None:
    status, said = pair.copy("--jurisdiction", "fr")
    assert status == 3
    assert "its jurisdiction is de, which does not permit fr" in said["repositories"][0]["refused"]
    status, said = pair.copy("--at-most", "public")
    assert status == 3
    assert "its classification is internal, above public" in said["repositories"][0]["refused"]
    assert command("replicate", "--data", pair.target, "--from", "x").returncode == 2


def test_a_source_with_another_key_is_not_believed(pair: Pair, tmp_path: Path) -> None:
    other = command("key", "--data", tmp_path / "other").stdout
    (tmp_path / "other.pub").write_text(other)
    status, said = pair.copy("--source-key", str(tmp_path / "other.pub"))
    assert status == 3
    assert (
        "cannot be believed: not signed by a known registry" in said["repositories"][0]["refused"]
    )


def test_a_token_that_is_none_and_plain_http_elsewhere_are_refused(
    pair: Pair, tmp_path: Path
) -> None:
    (tmp_path / "bad").write_text("hft_no-such-token-at-all")
    status, said = pair.copy("--token-file", str(tmp_path / "bad"))
    assert status == 1
    assert "Invalid credentials" in said["said"]
    status, said = pair.copy(origin="http://hub.example.org")
    assert status == 1
    assert "must be asked over https" in said["said"]


def new_commit(pair: Pair, text: str) -> str:
    """Have the source's model changed by its operator; return the commit."""
    folder = pair.folder / "tiny"
    (folder / "extra.txt").write_text(text)
    seed = pair.folder / "seed.yml"
    from holdfast_model_registry.admission.policy import read_policy
    from holdfast_model_registry.service import prepare as prepare_registry
    from holdfast_model_registry.storage import Locations

    imported = prepare_registry(Locations(pair.folder / "data"), seed, read_policy(None))
    return next(each.commit for each in imported if each.id == TINY)


def test_only_what_is_new_comes_and_a_divergence_is_left_alone(tmp_path: Path) -> None:
    with make_pair(tmp_path / "source") as pair:
        assert pair.copy()[0] == 0
        second = new_commit(pair, "more")
        status, said = pair.copy()
        (copied,) = said["repositories"]
        assert status == 0
        assert (copied["blobs"], copied["bytes"]) == (1, 4)
        assert copied["refs"] == {"refs/heads/main": second}
        # Something is committed at the copy: its main has a commit that the source has not.
        elsewhere = make_model(tmp_path / "other", weights=4_000)
        models = [{"id": TINY, "path": str(elsewhere), "teams": ["research"], "labels": LABELS}]
        (tmp_path / "seed.yml").write_text(yaml.safe_dump(SEED | {"models": models}))
        from holdfast_model_registry.service import prepare as prepare_registry
        from holdfast_model_registry.storage import Locations

        (own,) = prepare_registry(Locations(pair.target), tmp_path / "seed.yml")
        new_commit(pair, "even more")
        status, said = pair.copy()
        (copied,) = said["repositories"]
        assert status == 3
        assert "refs/heads/main has commits of its own here" in copied["refused"]
        done = command("model", "verify", TINY, "--data", pair.target, "--json")
        assert json.loads(done.stdout)["commit"] == own.commit


def labels_at(folder: Path) -> dict[str, str]:
    done = command("model", "verify", TINY, "--data", folder, "--json")
    return dict(json.loads(done.stdout)["labels"])


def test_a_label_that_became_stricter_follows_and_then_bars(tmp_path: Path) -> None:
    with make_pair(tmp_path / "source") as pair:
        assert pair.copy()[0] == 0
        assert labels_at(pair.target) == LABELS
        seed = yaml.safe_load((pair.folder / "seed.yml").read_text())
        seed["models"][0]["labels"]["classification"] = "confidential"
        (pair.folder / "seed.yml").write_text(yaml.safe_dump(seed))
        new_commit(pair, "relabelled")
        # The replica may hold `internal` at most: for it the model is gone at once.
        assert pair.source.request(f"/api/models/{TINY}", MIRROR)[0] == 404
        status, said = pair.copy()
        assert (status, said["repositories"]) == (0, [])
        carried = tmp_path / "carried"
        assert export(pair, carried, "--repo", TINY, "--at-most", "confidential")[0] == 0
        assert pair.copy("--at-most", "confidential", origin=str(carried))[0] == 0
        assert labels_at(pair.target) == LABELS | {"classification": "confidential"}


class _Slow(BaseHTTPRequestHandler):
    """Passes everything on, slowly, and cuts each second answer short."""

    upstream = ""
    cut = 0
    ranges: list[str]

    def do_GET(self) -> None:
        asked = urllib.request.Request(self.upstream + self.path)
        for name in ("Authorization", "Range"):
            if value := self.headers.get(name):
                asked.add_header(name, value)
        if value := self.headers.get("Range"):
            type(self).ranges.append(value)
        with urllib.request.urlopen(asked) as answer:
            content = answer.read()
            self.send_response(answer.status)
            for name in ("Content-Range", "Link", "Content-Type"):
                if value := answer.headers.get(name):
                    self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if len(content) > 1_000_000 and type(self).cut > 0:
            type(self).cut -= 1
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        for first in range(0, len(content), 1 << 18):
            self.wfile.write(content[first : first + (1 << 18)])
            if len(content) > 1_000_000:
                time.sleep(0.05)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def slow_proxy(upstream: str, cut: int = 0) -> Iterator[tuple[str, type[_Slow]]]:
    handler = type("Slow", (_Slow,), {"upstream": upstream, "cut": cut, "ranges": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_line_that_is_cut_is_gone_on_with_where_it_ended(tmp_path: Path) -> None:
    with (
        make_pair(tmp_path / "source", weights=3_000_000) as pair,
        slow_proxy(pair.source.url, cut=2) as (address, handler),
    ):
        status, said = pair.copy(origin=address)
        assert (status, said["changed"]) == (0, True)
        size = (pair.folder / "tiny/model.safetensors").stat().st_size
        first = size // 2
        second = first + (size - first) // 2
        assert handler.ranges == [f"bytes={first}-", f"bytes={second}-"]
        done = command("model", "verify", TINY, "--data", pair.target, "--json")
        assert '"digests"' in done.stdout
        links = {link["name"]: link["verdict"] for link in json.loads(done.stdout)["links"]}
        assert links["digests"] == "pass"


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_it_shows_nothing_and_goes_on_later(
    tmp_path: Path, kill: signal.Signals
) -> None:
    with (
        make_pair(tmp_path / "source", weights=6_000_000) as pair,
        slow_proxy(pair.source.url) as (address, handler),
    ):
        copying = subprocess.Popen(
            [program(), *pair.options(address)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        partials = pair.target / "replication"
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size > 1 << 20 for path in partials.glob("*")):
            assert time.monotonic() < deadline
            assert copying.poll() is None
            time.sleep(0.02)
        copying.send_signal(kill)
        copying.communicate(timeout=30)
        assert copying.returncode != 0
        done = command("model", "verify", TINY, "--data", pair.target, "--json")
        assert done.returncode == 1  # nothing of it can be seen
        (partial,) = [path for path in partials.glob("*") if path.stat().st_size > 1 << 20]
        had = partial.stat().st_size
        handler.ranges.clear()
        status, said = pair.copy(origin=address)
        assert (status, said["repositories"][0]["commits"]) == (0, 1)
        assert handler.ranges == [f"bytes={had}-"]
        assert list(partials.iterdir()) == []


def test_a_partial_file_that_was_altered_is_found_out(pair: Pair) -> None:
    from holdfast_model_registry.folder import read_folder

    revision, _ = read_folder(RepositoryId.parse(TINY), pair.folder / "tiny")
    weights = max(revision.files, key=lambda file: file.size)
    partial = pair.target / "replication" / weights.sha256
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 1000)
    status, said = pair.copy()
    assert status == 3
    assert "model.safetensors is not what was signed" in said["repositories"][0]["refused"]
    assert not partial.exists()
    assert pair.copy()[0] == 0


def export(pair: Pair, folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    done = command(
        *("replicate", "--data", pair.folder / "data", "--to", folder, "--jurisdiction", "de"),
        *("--json", *more),
    )
    return done.returncode, json.loads(done.stdout)


def test_a_folder_carries_what_labels_permit_and_nothing_else(pair: Pair, tmp_path: Path) -> None:
    carried = tmp_path / "carried"
    status, said = export(pair, carried)
    assert status == 3
    by_id = {each["id"]: each for each in said["repositories"]}
    assert by_id[TINY]["refused"] == ""
    assert "above internal" in by_id[SECRET]["refused"]
    assert "does not permit de" in by_id[FRENCH]["refused"]
    states = [path.parts[-2] for path in carried.rglob("state.json")]
    assert states == ["tiny"]
    status, again = export(pair, carried, "--repo", TINY)
    assert (status, again["changed"]) == (0, False)
    status, said = pair.copy(origin=str(carried))
    assert (status, said["repositories"][0]["commits"]) == (0, 1)
    done = command("model", "verify", TINY, "--data", pair.target, "--json")
    assert json.loads(done.stdout)["commit"] == sha_of(pair.source)
    assert pair.copy(origin=str(carried))[1]["changed"] is False


@pytest.mark.parametrize("damage", ["blob", "manifest", "state", "missing"])
def test_a_folder_that_was_altered_on_the_way_is_not_taken(
    pair: Pair, tmp_path: Path, damage: str
) -> None:
    carried = tmp_path / "carried"
    assert export(pair, carried, "--repo", TINY)[0] == 0
    (state,) = carried.rglob("state.json")
    manifest = next(path for path in state.parent.glob("*.json") if path != state)
    blob = max((carried / "blobs").rglob("*"), key=lambda path: path.stat().st_size)
    match damage:
        case "blob":
            blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
        case "manifest":
            manifest.write_text(manifest.read_text().replace("A", "B", 1))
        case "state":
            state.write_text("{}")
        case "missing":
            blob.unlink()
    status, said = pair.copy(origin=str(carried))
    assert status == (1 if damage == "missing" else 3), said
    done = command("model", "verify", TINY, "--data", pair.target, "--json")
    assert done.returncode == 1  # nothing of it is there


def test_data_sets_travel_too_and_bring_their_lineage(pair: Pair, tmp_path: Path) -> None:
    with make_shelf(f"sqlite:///{pair.folder}/data/registry.db", pair.folder / "data") as shelf:
        front = {"README.md": card(datasets=["research/upstream"]), "a.parquet": b"rows"}
        _, commit = shelf.publish("research/corpus", front, LABELS, kind="dataset")
        table = schema.repositories
        with shelf.metadata.engine.begin() as connection:
            gate = table.update().where(table.c.kind == "dataset").values(gated="manual")
            connection.execute(gate)
    name = "datasets/research/corpus"
    status, said = pair.copy("--repo", name)
    (copied,) = said["repositories"]
    assert (status, copied["kind"], copied["commits"]) == (0, "dataset", 1)
    with make_shelf(f"sqlite:///{pair.target}/registry.db", pair.target) as copy:
        there = copy.metadata.repository(RepositoryId.parse("research/corpus", "dataset"))
        assert there is not None
        assert there.gated == "manual"
    done = command(
        "model", "verify", "research/corpus", "--dataset", "--data", pair.target, "--json"
    )
    chain = json.loads(done.stdout)
    assert (done.returncode, chain["commit"]) == (0, commit), chain["links"]
    assert [each["named"] for each in chain["lineage"]] == ["research/upstream"]
    carried = tmp_path / "carried"
    assert export(pair, carried, "--repo", name)[0] == 0
    assert (carried / "repositories/datasets/research/corpus/state.json").is_file()
    with make_shelf(f"sqlite:///{pair.folder}/data/registry.db", pair.folder / "data") as shelf:
        key, _ = shelf.publish("research/corpus", front, kind="dataset")
        with shelf.metadata.engine.begin() as connection:
            put_access(connection, key, teams=None, labels={"classification": "secret"})
    assert pair.copy("--repo", name)[0] == 1  # what others count in this source is as before


def test_a_site_keeps_its_copy_in_postgresql(pair: Pair) -> None:
    with postgresql_server() as make:
        database = ("--database", make())
        assert pair.copy(*database)[0] == 0
        assert pair.copy(*database)[1]["changed"] is False
        done = command("model", "verify", TINY, "--data", pair.target, *database, "--json")
    chain = json.loads(done.stdout)
    assert chain["commit"] == sha_of(pair.source)
    assert [each["name"] for each in chain["links"] if each["verdict"] == "fail"] == ["approval"]
