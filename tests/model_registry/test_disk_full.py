"""A small tmpfs as the registry's disk: refused before the start, or told in the middle."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest
from registry_parts import ADA, SEED, Registry, run_registry
from upload_parts import NAME, PATH, Uploader, weights

from holdfast_model_registry.check import Scrub, check
from holdfast_model_registry.storage import Locations, open_storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0, reason="mounts a small file system: needs root"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture
def registry(small_disk: Path) -> Iterator[Registry]:
    ada = {**SEED["users"][0], "teams": {"research": "admin"}}
    seed = {**SEED, "users": [ada]}
    with run_registry(small_disk / "run", "--jurisdiction", "de", seed=seed) as running:
        with httpx.Client(trust_env=False, headers={"Authorization": f"Bearer {ADA}"}) as client:
            document = {"name": "killed", "organization": "research"}
            made = client.post(f"{running.url}/api/repos/create", json=document)
            assert made.status_code == 200, made.text
        yield running


def leave(disk: Path, size: int) -> Path:
    """Fill the disk but for `size` bytes."""
    ballast = disk / "ballast"
    status = os.statvfs(disk)
    with ballast.open("wb") as file:
        file.write(bytes(status.f_bavail * status.f_frsize - size))
    return ballast


def incoming(registry: Registry) -> list[str]:
    return [path.name for path in (registry.data / "blobs" / "incoming").iterdir()]


@needs_mounts
def test_what_will_not_fit_is_refused_before_it_is_sent(
    registry: Registry, small_disk: Path
) -> None:
    leave(small_disk, 500_000)
    uploader = Uploader(registry.url, weights(1))
    listed = [{"oid": uploader.digest, "size": len(uploader.content)}]
    answer = uploader.client.post(
        f"{registry.url}/{NAME}.git/info/lfs/objects/batch",
        json={"operation": "upload", "objects": listed},
    )
    uploader.client.close()
    assert answer.status_code == 507
    assert "586.0 KiB are needed" in answer.headers["X-Error-Message"]


@needs_mounts
@pytest.mark.parametrize("left", [0, 100_000, 400_000])
def test_a_disk_that_fills_in_the_middle_is_told_and_gone_on_from(
    registry: Registry, small_disk: Path, left: int
) -> None:
    uploader = Uploader(registry.url, weights(2))
    with uploader.client:
        uploader.batch()
        # somebody else fills the disk after the check
        ballast = leave(small_disk, left)
        address = uploader.told["batch"]["actions"]["upload"]["href"]
        answer = uploader.client.put(address, content=uploader.content)
        # Without room for its own records it cannot even say so on the ledger: 503, try again.
        assert answer.status_code in ({503, 507} if left < 200_000 else {507})
        if answer.status_code == 507:
            assert "disk is full" in answer.headers["X-Error-Message"]
        assert incoming(registry) == []
        ballast.unlink()
        uploader.send()
        uploader.commit()
    assert registry.request(f"/{NAME}/resolve/main/{PATH}", ADA)[2] == uploader.content
    storage = open_storage(Locations(registry.data))
    assert check(storage, scrub=Scrub()).findings == []
    storage.close()


@needs_mounts
def test_a_commit_on_a_full_disk_is_not_half_there(registry: Registry, small_disk: Path) -> None:
    uploader = Uploader(registry.url, weights(3))
    with uploader.client:
        uploader.batch()
        uploader.send()
        ballast = leave(small_disk, 0)
        with pytest.raises(AssertionError):
            uploader.commit()
        assert registry.request(f"/{NAME}/resolve/main/{PATH}", ADA)[0] in {404, 503}
        ballast.unlink()
        uploader.commit()
    assert registry.request(f"/{NAME}/resolve/main/{PATH}", ADA)[2] == uploader.content
