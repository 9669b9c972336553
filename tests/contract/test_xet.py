"""The content-addressed storage as the client's own Rust library uses it.

The library keeps its settings and what it remembers for its process, so each use is one of its
own, with a home of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from huggingface_hub import HfApi
from registry_parts import Registry, run_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.contract

ADA = "hft_ada-of-research-000001"
EVE = "hft_eve-who-only-reads-001"
SEED: dict[str, Any] = {
    "teams": ["research"],
    "users": [
        {
            "name": "ada",
            "teams": {"research": "admin"},
            "tokens": [{"name": "laptop", "secret": ADA}],
        },
        {
            "name": "eve",
            "teams": {"research": "read"},
            "tokens": [{"name": "laptop", "secret": EVE}],
        },
    ],
}
MIB = 1 << 20
LARGE = 70 * MIB + 12_345  # more than one xorb

UPLOAD = """
import sys
from huggingface_hub import HfApi
url, token, repository, folder = sys.argv[1:]
api = HfApi(endpoint=url, token=token)
print(api.upload_folder(repo_id=repository, folder_path=folder, commit_message="upload").oid)
"""
DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
url, token, repository, file, cache = sys.argv[1:]
print(hf_hub_download(repository, file, endpoint=url, token=token, cache_dir=cache))
"""


@dataclass
class Client:
    """One user's machine: what the library remembers there, and the process that runs."""

    home: Path

    def start(self, code: str, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "HF_XET_CLIENT_RETRY_BASE_DELAY": "100ms",
            **settings,
        }
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, *arguments: str, **settings: str) -> str:
        process = self.start(code, *arguments, **settings)
        output, complaints = process.communicate(timeout=100)
        assert process.returncode == 0, complaints
        return output.strip()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with run_registry(folder, *_options(folder), seed=SEED) as running:
        yield running


def _options(folder: Path, **settings: object) -> list[str]:
    config = folder / "registry.yml"
    config.write_text(yaml.safe_dump({"jurisdiction": "de", **settings}))
    return ["--config", str(config)]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "home")


@pytest.fixture
def repository(registry: Registry, request: pytest.FixtureRequest) -> str:
    name = f"research/{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    HfApi(endpoint=registry.url, token=ADA).create_repo(name)
    return name


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.bin").write_bytes(content)
    return folder


def sent(registry: Registry, repository: str) -> int:
    """Return how many bytes of content clients sent to a repository in xorbs."""
    return sum(
        event.get("size", 0)
        for event in registry.ledger()
        if event.get("operation") == "xet-xorb" and event.get("model") == repository
    )


def stored(registry: Registry, repository: str, file: str, revision: str = "main") -> str:
    """Return the SHA-256 of a file as anybody gets it over plain HTTP."""
    status, _, content = registry.request(f"/{repository}/resolve/{revision}/{file}", ADA)
    assert status == 200
    return hashlib.sha256(content).hexdigest()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def staged(registry: Registry) -> list[Path]:
    return list((registry.data / "blobs" / "xet").rglob("*.data"))


@pytest.mark.parametrize("version", ["1", "2"])
def test_files_of_any_kind_by_either_version(
    registry: Registry, client: Client, repository: str, tmp_path: Path, version: str
) -> None:
    numbers = random.Random(1)
    contents = {
        "large": numbers.randbytes(LARGE),
        "zeros": bytes(3 * MIB),
        "text": b"the same line again and again\n" * 50_000,
        "floats": b"".join(numbers.randbytes(2) + b"\x80\x3f" for _ in range(250_000)),
        "small": numbers.randbytes(11),
    }
    folder = write(tmp_path / "files", **contents)
    client.run(
        UPLOAD,
        *(registry.url, ADA, repository, str(folder)),
        HF_XET_CLIENT_SHARD_API_VERSION=version,
    )
    for name, content in contents.items():
        assert stored(registry, repository, f"{name}.bin") == digest(content)
    assert staged(registry) == [], "what is in a file is not kept twice"


def test_a_second_upload_sends_what_is_new(
    registry: Registry, client: Client, repository: str, tmp_path: Path
) -> None:
    content = random.Random(2).randbytes(20 * MIB)
    folder = write(tmp_path / "files", w=content)
    client.run(UPLOAD, registry.url, ADA, repository, str(folder))
    assert sent(registry, repository) == len(content)
    changed = content[: 10 * MIB] + b"a new line" + content[10 * MIB :]
    write(folder, w=changed)
    client.run(UPLOAD, registry.url, ADA, repository, str(folder))
    assert stored(registry, repository, "w.bin") == digest(changed)
    assert sent(registry, repository) - len(content) < MIB
    # Another repository is another matter: what one has says nothing about the other.
    other = f"{repository}-2"
    HfApi(endpoint=registry.url, token=ADA).create_repo(other)
    client.run(UPLOAD, registry.url, ADA, other, str(folder))
    assert stored(registry, other, "w.bin") == digest(changed)
    assert sent(registry, other) == len(changed)


def test_who_lost_its_files_gets_them_again(
    registry: Registry, client: Client, repository: str, tmp_path: Path
) -> None:
    content = random.Random(3).randbytes(5 * MIB)
    folder = write(tmp_path / "files", w=content)
    client.run(UPLOAD, registry.url, ADA, repository, str(folder))
    # As after a restored backup: the client counts on chunks that are not here.
    blob = registry.data / "blobs" / "sha256" / digest(content)[:2] / digest(content)
    blob.unlink()
    write(folder, w=content + b"more", x=content[:MIB])
    process = client.start(UPLOAD, registry.url, ADA, repository, str(folder))
    _, complaints = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "run the upload again" in complaints
    client.run(UPLOAD, registry.url, ADA, repository, str(folder))
    assert stored(registry, repository, "w.bin") == digest(content + b"more")


def test_who_may_only_read_is_refused_at_once(
    registry: Registry, client: Client, repository: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "files", w=random.Random(4).randbytes(MIB))
    process = client.start(UPLOAD, registry.url, EVE, repository, str(folder))
    _, complaints = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "403" in complaints
    assert sent(registry, repository) == 0


def test_an_upload_goes_on_where_it_was_interrupted(
    registry: Registry, client: Client, repository: str, tmp_path: Path
) -> None:
    content = b"".join(random.Random(seed).randbytes(LARGE) for seed in range(10, 13))
    folder = write(tmp_path / "files", w=content)
    # The library notes every 20 seconds what it has sent; here after each xorb.
    often = {"HF_XET_DATA_SESSION_XORB_METADATA_FLUSH_MAX_COUNT": "1"}
    process = client.start(UPLOAD, registry.url, ADA, repository, str(folder), **often)
    while not (before := sent(registry, repository)) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.1)
    process.kill()
    process.communicate()
    before = sent(registry, repository)
    assert 0 < before < len(content)
    client.run(UPLOAD, registry.url, ADA, repository, str(folder), **often)
    assert stored(registry, repository, "w.bin") == digest(content)
    assert sent(registry, repository) < len(content) + before


def test_a_server_killed_during_an_upload(tmp_path: Path, client: Client) -> None:
    content = random.Random(5).randbytes(2 * LARGE)
    folder = write(tmp_path / "files", w=content)
    run = tmp_path / "registry"
    run.mkdir()
    for moment in (0.2, 0.6, None):
        with run_registry(run, *_options(run), seed=SEED) as running:
            HfApi(endpoint=running.url, token=ADA).create_repo("research/killed", exist_ok=True)
            if moment is None:
                client.run(UPLOAD, running.url, ADA, "research/killed", str(folder))
                assert stored(running, "research/killed", "w.bin") == digest(content)
                assert staged(running) == []
                continue
            process = client.start(UPLOAD, running.url, ADA, "research/killed", str(folder))
            _wait_for_a_xorb(running, process)
            time.sleep(moment)
            _kill(running)
            process.kill()
            process.communicate()
        blobs = running.data / "blobs" / "sha256"
        for blob in blobs.glob("*/*"):
            assert digest(blob.read_bytes()) == blob.name, "a blob is whole or not there"


def _wait_for_a_xorb(running: Registry, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    xorbs = running.data / "blobs" / "xet"
    while time.monotonic() < deadline and process.poll() is None:
        if any(xorbs.rglob("new-*")) or any(xorbs.rglob("*.data")):
            return
        time.sleep(0.01)


def _kill(running: Registry) -> None:
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    workers = [int(pid) for pid in children.read_text().split()]
    for pid in (running.process.pid, *workers):
        os.kill(pid, signal.SIGKILL)
    running.process.wait()


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, str]]:
    """A registry for which 1 MB is very large, and a file of more than one xorb there."""
    folder = tmp_path_factory.mktemp("reading")
    content = random.Random(6).randbytes(LARGE)
    files = write(folder / "files", w=content, small=b"x" * 1000)
    with run_registry(folder, *_options(folder, xet_reads_over="1MB"), seed=SEED) as running:
        api = HfApi(endpoint=running.url, token=ADA)
        api.create_repo("research/large")
        Client(folder / "home").run(UPLOAD, running.url, ADA, "research/large", str(files))
        yield running, digest(content)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"HF_XET_CLIENT_RECONSTRUCTION_API_VERSION": "1"},
        {"HF_XET_CLIENT_ENABLE_MULTIRANGE_FETCHING": "true"},
        {"HF_HUB_DISABLE_XET": "1"},
    ],
    ids=["2", "1", "many ranges", "plain"],
)
def test_a_very_large_file_is_read(
    reading: tuple[Registry, str], client: Client, tmp_path: Path, settings: dict[str, str]
) -> None:
    running, expected = reading
    before = len(running.ledger())
    path = client.run(
        DOWNLOAD,
        *(running.url, ADA, "research/large", "w.bin", str(tmp_path / "cache")),
        **settings,
    )
    assert digest(Path(path).read_bytes()) == expected
    operations = [event.get("operation") for event in running.ledger()[before:]]
    by_xet = {"xet-read-token", "xet-file", "xet-read"}
    assert by_xet & set(operations) == (set() if "HF_HUB_DISABLE_XET" in settings else by_xet)


def test_a_snapshot_with_a_very_large_file(
    reading: tuple[Registry, str], client: Client, tmp_path: Path
) -> None:
    running, expected = reading
    code = DOWNLOAD.replace("hf_hub_download(repository, file,", "snapshot_download(repository,")
    code = code.replace("hf_hub_download", "snapshot_download")
    # Twice: the second time the client knows the files from the tree alone.
    for _ in range(2):
        folder = client.run(code, running.url, ADA, "research/large", "", str(tmp_path / "cache"))
        assert digest((Path(folder) / "w.bin").read_bytes()) == expected
        assert (Path(folder) / "small.bin").read_bytes() == b"x" * 1000


def test_small_files_are_never_offered(reading: tuple[Registry, str]) -> None:
    running, _ = reading
    for method in ("HEAD", "GET"):
        _, headers, _ = running.request("/research/large/resolve/main/small.bin", ADA, method)
        assert not [name for name in headers if "xet" in name]
    _, _, tree = running.request("/api/models/research/large/tree/main", ADA)
    assert [item["path"] for item in json.loads(tree) if "xetHash" in item] == ["w.bin"]
