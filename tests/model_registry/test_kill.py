"""kill -9 at every durable step of an upload: nothing acknowledged is lost, nothing is half there.

This is a process that dies, not a power cut: what the kernel had not written is written later.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from registry_parts import ADA, SEED, Registry, free_port, wait_until_healthy
from upload_parts import NAME, PATH, Uploader, weights

from holdfast_model_registry.check import Scrub, check
from holdfast_model_registry.storage import Locations, open_storage

SCRIPT = Path(__file__).with_name("dying_registry.py")


@dataclass
class Victim:
    """A registry that can be armed, and started again after it died."""

    folder: Path
    parts: bool

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.armed = self.folder / "armed"
        ada = {**SEED["users"][0], "teams": {"research": "admin"}}
        (self.folder / "seed.yml").write_text(yaml.safe_dump({**SEED, "users": [ada]}))

    def start(self) -> Registry:
        port = free_port()
        options = ["--data", "data", "--listen", f"127.0.0.1:{port}", "--seed", "seed.yml"]
        environment = {**os.environ, "DYING_ARMED": str(self.armed)}
        environment |= {"DYING_PARTS": "1"} if self.parts else {}
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(SCRIPT), "serve", *options, "--jurisdiction", "de"],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
        registry = Registry(f"http://127.0.0.1:{port}", self.folder / "data", process)
        wait_until_healthy(registry, self.folder / "log")
        return registry

    @property
    def steps_file(self) -> Path:
        return self.armed.with_suffix(".steps")

    def steps(self) -> list[str]:
        return self.steps_file.read_text().splitlines()


@pytest.fixture(params=[False, True], ids=["whole", "parts"])
def victim(request: pytest.FixtureRequest, tmp_path: Path) -> Victim:
    return Victim(tmp_path / "victim", request.param)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_every_step_nothing_acknowledged_is_lost_and_nothing_half_there(
    victim: Victim,
) -> None:
    registry = victim.start()
    with httpx.Client(trust_env=False, headers={"Authorization": f"Bearer {ADA}"}) as client:
        document = {"name": "killed", "organization": "research"}
        assert client.post(f"{registry.url}/api/repos/create", json=document).status_code == 200
    before = b""
    lived = False
    number = 0
    while not lived:
        number += 2 if victim.parts else 1  # of one part like the next, every second step will do
        victim.steps_file.unlink(missing_ok=True)
        victim.armed.write_text(str(number))
        died = Uploader(registry.url, weights(number))
        lived = died.upload()
        victim.armed.unlink()
        if not lived:
            registry.process.wait(30)
            registry = victim.start()
        before = look(victim, registry, died, before)
    assert registry.stop() == 0
    steps = victim.steps()
    assert number > len(steps) > 15
    assert {"before replace", "after fsync", "before commit"} <= set(steps)


def look(victim: Victim, registry: Registry, died: Uploader, before: bytes) -> bytes:
    """Hold what is there after a death to what the client was told; return main's content."""
    there = content_of(registry)
    assert there in {before, died.content}, "half a revision"
    again = Uploader(registry.url, died.content)
    with again.client:
        again.batch()
        if "commit" in died.told:
            assert there == died.content, "an acknowledged commit is lost"
        if "uploaded" in died.told:
            assert "actions" not in again.told["batch"], "an acknowledged upload is lost"
    storage = open_storage(Locations(victim.folder / "data"))
    try:
        assert check(storage, scrub=Scrub()).findings == []
    finally:
        storage.close()
    # And the same client gets through when it tries again.
    retry = Uploader(registry.url, died.content)
    assert retry.upload()
    assert content_of(registry) == died.content
    return died.content


def content_of(registry: Registry) -> bytes:
    """Return what main has; nothing before the first commit."""
    status, _, body = registry.request(f"/{NAME}/resolve/main/{PATH}", ADA)
    assert status in {200, 404}, body
    return body if status == 200 else b""
