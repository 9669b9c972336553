"""A model folder, a bundle made of it, and a registry running as people run it."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_model_registry.folder import read_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

ADA = "hft_ada-of-research-000001"
BOB = "hft_bob-of-elsewhere-00001"
SERVING = "hft_serving-host-number-01"
SEED: dict[str, Any] = {
    "teams": ["research", "elsewhere", "serving"],
    "users": [
        {"name": "ada", "teams": ["research"], "tokens": [{"name": "laptop", "secret": ADA}]},
        {"name": "bob", "teams": ["elsewhere"], "tokens": [{"name": "laptop", "secret": BOB}]},
    ],
    "services": [
        {"name": "serving-1", "teams": ["serving"], "tokens": [{"secret": SERVING}]},
    ],
}
MODEL = "research/tiny"
LABELS = {"jurisdiction": "de", "classification": "internal"}
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: [en]
tags: [holdfast]
---
# Tiny
"""


def make_model(folder: Path, *, weights: int = 3_000_000) -> Path:
    """Write a model of some files: text, nested, non-ASCII names, empty, and large."""
    (folder / "tokenizer" / "deep").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )
    (folder / "tokenizer" / "vocab.txt").write_text("a\nb\n")
    (folder / "tokenizer" / "deep" / "größe 100% #1.txt").write_text("ü")
    (folder / "empty.txt").write_bytes(b"")
    count = weights // 4
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, count * 4]}}
    ).encode()
    data = hashlib.shake_128(b"weights").digest(count * 4)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    return folder


def files_of(folder: Path) -> dict[str, str]:
    """Return path -> SHA-256 of every file; what a client keeps for itself left out."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    }


def make_bundle(
    folder: Path, model: Path, name: str = MODEL, version: str = ""
) -> tuple[Path, Path]:
    """Write a manifest and blobs as `holdfast bundle build` does; return their paths."""
    revision, sources = read_folder(RepositoryId.parse(name), model)
    blobs = folder / "blobs"
    artifacts = []
    for file in revision.files:
        blob = blobs / "sha256" / file.sha256[:2] / file.sha256
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources[file.sha256], blob)
        artifact = {
            "kind": "model",
            "name": name,
            "version": version or revision.commit,
            "filename": file.path,
            "digest": f"sha256:{file.sha256}",
            "size": file.size,
            "origin": "local",
            "licence": "apache-2.0",
        }
        artifacts.append(artifact | ({"git_oid": file.git_oid} if file.git_oid else {}))
    manifest = folder / "manifest.json"
    other = {"kind": "wheel", "name": "x", "environments": ["platform"]}
    manifest.write_text(json.dumps({"format": 1, "artifacts": [other, *artifacts]}))
    return manifest, blobs


def command(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the registry's command to its end."""
    return subprocess.run(
        [program(), *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def program() -> str:
    """Return the path of the command beside this Python."""
    return str(Path(sys.executable).parent / "holdfast-model-registry")


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Registry:
    """A registry that runs, and its folder."""

    url: str
    data: Path
    process: subprocess.Popen[bytes]

    def request(
        self, path: str, token: str | None = ADA, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers with lower-case names, and body."""
        return request(self.url + path, token, method, **headers)

    def ledger(self) -> list[dict[str, Any]]:
        """Return the events so far."""
        from holdfast_trust.ledger import read

        return [record["event"] for record in read(self.data / "ledger")]

    def stop(self) -> int:
        """End it the polite way; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def request(
    url: str, token: str | None = ADA, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers with lower-case names, and body; an error status is an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        named["Authorization"] = f"Bearer {token}"
    asked = urllib.request.Request(url, method=method, headers=named)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(asked, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        lowered = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, lowered, answer.read()


@contextmanager
def run_registry(
    folder: Path, *options: str, seed: dict[str, Any] | None = None
) -> Iterator[Registry]:
    """Run `holdfast-model-registry serve` with a folder's data and seed, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    seed_file = folder / "seed.yml"
    seed_file.write_text(yaml.safe_dump(SEED if seed is None else seed))
    port = free_port()
    arguments = ["--data", str(folder / "data"), "--listen", f"127.0.0.1:{port}"]
    arguments += ["--seed", str(seed_file), *options]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([program(), "serve", *arguments], stderr=log, stdout=log)
    registry = Registry(f"http://127.0.0.1:{port}", folder / "data", process)
    try:
        wait_until_healthy(registry, folder / "log")
        yield registry
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_healthy(registry: Registry, log: Path) -> None:
    """Return once it answers; fail with its log if it ends before."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert registry.process.poll() is None, log.read_text()
        try:
            if registry.request("/healthz", None)[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"not healthy after 60 s: {log.read_text()}")
