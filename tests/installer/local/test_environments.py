from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bundle_parts import make_wheel

from holdfast_installer.bundle.digests import blob_path, digest_of_file
from holdfast_installer.bundle.manifest import Artifact, Environment, Manifest
from holdfast_installer.bundle.verify import VerifiedBundle
from holdfast_installer.errors import HoldfastError
from holdfast_installer.local import environments

if TYPE_CHECKING:
    from collections.abc import Callable

UV = Path(sys.executable).with_name("uv")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def keep(folder: Path, source: Path) -> tuple[str, int]:
    digest = digest_of_file(source)
    blob = blob_path(folder / "blobs", digest)
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, blob)
    return digest, source.stat().st_size


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., VerifiedBundle]:
    def make(python: str = VERSION, *, foreign_hash: bool = False) -> VerifiedBundle:
        wheel = make_wheel(tmp_path, "holdfast-made-up", payload=b"ANSWER = 42")
        folder = tmp_path / "bundle"
        digest, size = keep(folder, wheel)
        asked = hashlib.sha256(b"other").hexdigest() if foreign_hash else digest.partition(":")[2]
        requirements = tmp_path / "made.txt"
        requirements.write_text(f"holdfast-made-up==1.0 --hash=sha256:{asked}\n")
        listed, length = keep(folder, requirements)
        manifest = Manifest(
            release="bookworm",
            architecture="amd64",
            environments={"made": Environment(requirements=listed, python=python)},
            artifacts=(
                Artifact(
                    kind="wheel",
                    name="holdfast-made-up",
                    version="1.0",
                    filename=wheel.name,
                    digest=digest,
                    size=size,
                    origin="here",
                    environments=("made",),
                ),
                Artifact(
                    kind="file",
                    name="environments/made.txt",
                    filename="environments/made.txt",
                    digest=listed,
                    size=length,
                    origin="here",
                ),
            ),
        )
        return VerifiedBundle(folder, manifest, manifest.digest(), ("operator",))

    return make


def test_an_environment_is_built_once_with_its_bytecode(
    make_bundle: Callable[..., VerifiedBundle], tmp_path: Path
) -> None:
    root = tmp_path / "environments"
    root.mkdir()
    folder = environments.build(make_bundle(), "made", root, UV)
    python = folder / "bin/python"
    # Before anything was imported: services start faster, and nobody writes there later.
    assert list(folder.glob("lib/*/site-packages/__pycache__/holdfast_made_up.*.pyc"))
    subprocess.run([python, "-c", "import holdfast_made_up"], check=True)
    assert [entry.name for entry in root.iterdir()] == [folder.name]
    before = python.lstat().st_mtime_ns
    assert environments.build(make_bundle(), "made", root, UV) == folder
    assert python.lstat().st_mtime_ns == before


def test_one_that_was_interrupted_is_built_again(
    make_bundle: Callable[..., VerifiedBundle], tmp_path: Path
) -> None:
    root = tmp_path / "environments"
    root.mkdir()
    folder = environments.build(make_bundle(), "made", root, UV)
    (folder / ".complete").unlink()
    shutil.rmtree(folder / "lib")
    environments.build(make_bundle(), "made", root, UV)
    subprocess.run([folder / "bin/python", "-c", "import holdfast_made_up"], check=True)


def test_a_wheel_other_than_the_pinned_one_is_refused(
    make_bundle: Callable[..., VerifiedBundle], tmp_path: Path
) -> None:
    root = tmp_path / "environments"
    root.mkdir()
    bundle = make_bundle(foreign_hash=True)
    with pytest.raises(HoldfastError, match=r"could not be built") as caught:
        environments.build(bundle, "made", root, UV)
    assert "hash" in caught.value.cause.lower()
    assert not list(root.glob("*/.complete"))


def test_a_python_that_is_not_there_is_named(
    make_bundle: Callable[..., VerifiedBundle], tmp_path: Path
) -> None:
    with pytest.raises(HoldfastError, match=r"no Python 3\.99"):
        environments.build(make_bundle("3.99"), "made", tmp_path, UV)
