"""The repository in a bundle, read by the real apt-get in a root of its own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pysequoia
import pytest

from holdfast_installer.bundle import apt_repository
from holdfast_installer.bundle.digests import blob_path
from holdfast_installer.bundle.manifest import load
from holdfast_installer.bundle.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from bundle_parts import World

    from holdfast_installer.bundle.lockfile import Lock


class Mirror:
    """A site's mirror, laid out as the mirror role does, and a bare host's apt that reads it."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.folder = folder
        manifest = load(bundle)
        index = folder / "apt/dists/holdfast/main/binary-amd64"
        index.mkdir(parents=True)
        (folder / "apt/pool").mkdir()
        files = {
            each.name: blob_path(bundle / "blobs", each.digest) for each in manifest.of_kind("file")
        }
        (index / "Packages").write_bytes(files["apt/Packages"].read_bytes())
        self.release = folder / "apt/dists/holdfast/InRelease"
        self.release.write_bytes(files["apt/InRelease"].read_bytes())
        self.packages = index / "Packages"
        self.key = folder / "archive.asc"
        self.key.write_bytes(files["apt/holdfast-archive.asc"].read_bytes())
        for each in manifest.of_kind("deb"):
            target = folder / "apt/pool" / each.filename
            target.write_bytes(blob_path(bundle / "blobs", each.digest).read_bytes())
        for part in ("state/lists/partial", "cache/archives/partial", "etc"):
            (folder / part).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(
            f"deb [signed-by={self.key}] file:{folder}/apt holdfast main\n"
        )
        (folder / "apt.conf").write_text(
            f'Dir "{folder}"; Dir::Etc "{folder}/etc"; Dir::State "{folder}/state";\n'
            f'Dir::State::status "{folder}/status"; Dir::Cache "{folder}/cache";\n'
            f'Dir::Etc::sourcelist "{folder}/sources.list"; APT::Architecture "amd64";\n'
            'APT::Sandbox::User "root"; Dir::Bin::methods "/usr/lib/apt/methods";\n'
            'APT::Install-Recommends "true";\n'
        )

    def apt_get(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["apt-get", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={
                "APT_CONFIG": str(self.folder / "apt.conf"),
                "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            },
        )

    def update(self) -> subprocess.CompletedProcess[str]:
        return self.apt_get("update", "--error-on=any")


@pytest.fixture
def mirror(bundle: Path, tmp_path: Path) -> Mirror:
    return Mirror(bundle, tmp_path / "mirror")


def test_apt_trusts_the_index_and_finds_the_whole_closure(mirror: Mirror) -> None:
    updated = mirror.update()
    assert updated.returncode == 0, updated.stderr
    planned = mirror.apt_get("install", "--simulate", "-y", "hello")
    assert planned.returncode == 0, planned.stderr
    assert "Inst hello (1:2.0-1 Holdfast:holdfast [amd64])" in planned.stdout
    assert "Inst libhello (3.0+b1" in planned.stdout
    fetched = mirror.apt_get("download", "hello", "libhello")
    assert fetched.returncode == 0, fetched.stderr


def test_a_flipped_byte_in_the_index_is_refused(mirror: Mirror) -> None:
    content = mirror.packages.read_bytes()
    mirror.packages.write_bytes(content.replace(b"3.0+b1", b"3.0+b2", 1))
    updated = mirror.update()
    assert updated.returncode != 0
    assert "Hash Sum mismatch" in updated.stderr or "unexpected size" in updated.stderr


def test_a_changed_release_file_is_refused(mirror: Mirror) -> None:
    content = mirror.release.read_bytes()
    mirror.release.write_bytes(content.replace(b"Label: Holdfast", b"Label: Holdfist"))
    updated = mirror.update()
    assert updated.returncode != 0
    assert "BADSIG" in updated.stderr or "invalid" in updated.stderr


def test_an_index_signed_with_a_foreign_key_is_refused(mirror: Mirror) -> None:
    stranger = pysequoia.Tsk.generate("stranger", validity_seconds=None)
    mirror.key.write_text(str(stranger.extract_certificate()))
    updated = mirror.update()
    assert updated.returncode != 0
    assert "NO_PUBKEY" in updated.stderr or "not signed" in updated.stderr


def test_a_flipped_byte_in_a_package_is_refused(mirror: Mirror) -> None:
    assert mirror.update().returncode == 0
    [package] = (mirror.folder / "apt/pool").glob("libhello_*")
    content = bytearray(package.read_bytes())
    content[-1] ^= 1
    package.write_bytes(content)
    # `file:` hands the package over in place: apt checks it on the way to dpkg, so copy it
    sources = mirror.folder / "sources.list"
    sources.write_text(sources.read_text().replace("file:", "copy:"))
    assert mirror.update().returncode == 0
    fetched = mirror.apt_get("install", "--download-only", "-y", "libhello")
    assert fetched.returncode != 0
    assert "Hash Sum mismatch" in fetched.stderr


def test_the_same_packages_give_the_same_bytes_and_no_secret_is_kept(
    locked: tuple[World, Lock], tmp_path: Path
) -> None:
    debs = [
        (each, f"Package: {each.name}\nVersion: {each.version}")
        for each in locked[1].artifacts
        if each.kind == "deb"
    ]
    store = Store(tmp_path / "cache")
    first = apt_repository.make(debs, architecture="amd64", store=store)
    assert apt_repository.make(reversed(debs), architecture="amd64", store=store) == first
    fewer = apt_repository.make(debs[:1], architecture="amd64", store=store)
    assert fewer.key != first.key
    kept = b"".join(path.read_bytes() for path in store.folder.rglob("*.json"))
    assert b"PRIVATE" not in kept
