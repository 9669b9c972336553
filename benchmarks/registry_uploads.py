"""Uploading: the stock client to us, to a hub that throws away, and the floor under both."""

from __future__ import annotations

import shutil
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

from figures import ratio, seconds
from registry_servers import registry, sink
from registry_workshop import GIB, Watch, by_turns, write_weights

if TYPE_CHECKING:
    from pathlib import Path

    from figures import Figure
    from registry_workshop import Workshop

TURNS = 3
# The client takes the xet path unless it is told not to; then it is LFS, as of old clients.
PATHS: dict[str, dict[str, str]] = {"xet": {}, "lfs": {"HF_HUB_DISABLE_XET": "1"}}


def measure_uploads(workshop: Workshop) -> list[Figure]:
    """Upload 1 GiB by either path; every turn has content that nobody has seen."""
    figures: list[Figure] = []
    source = workshop.fresh("source")
    source.mkdir()
    file = source / "model.safetensors"
    with registry(workshop.fresh("registry")) as ours, sink(workshop.fresh("sink")) as theirs:
        for name, environment in PATHS.items():
            watch = Watch(ours, theirs)
            times = by_turns(
                TURNS,
                partial(_upload_fresh, workshop, ours.url, file, environment),
                partial(_upload, workshop, theirs.url, file, environment),
                partial(_floor, file),
            )
            told = f"`hf upload` of 1 GiB, {GIB / times[0].median / 1e6:.0f} MB/s"
            baseline = "the same client against a hub that throws away"
            figures += [
                seconds(f"upload-{name}", times[0], told),
                *watch.judged(ratio(f"upload-{name}-ratio", *times[:2], baseline, at_most=1.5)),
                ratio(f"upload-{name}-to-floor", times[0], times[2], "`sha256sum` and `cp`"),
            ]
    shutil.rmtree(source)
    return figures


def _upload_fresh(
    workshop: Workshop, endpoint: str, file: Path, environment: dict[str, str]
) -> float:
    file.unlink(missing_ok=True)
    write_weights(file, GIB)
    return _upload(workshop, endpoint, file, environment)


def _upload(workshop: Workshop, endpoint: str, file: Path, environment: dict[str, str]) -> float:
    repository = f"research/{workshop.fresh('upload').name}"
    return workshop.client(endpoint, "upload", repository, file, **environment)


def _floor(file: Path) -> float:
    """Return what hashing and copying the file takes without any hub."""
    copy = file.with_suffix(".copy")
    began = time.monotonic()
    subprocess.run(["sha256sum", file], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cp", file, copy], check=True)
    took = time.monotonic() - began
    copy.unlink()
    return took
