"""Small made-up packages, wheels and models, in local folders that apt and pip really read."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pysequoia

from holdfast_installer.bundle import web
from holdfast_installer.bundle.lock import lock
from holdfast_installer.bundle.lockfile import EnvironmentSource, Lock, ModelSource, Sources
from holdfast_installer.bundle.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CHANGED = ("PIP_CERT", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX")


@dataclass(frozen=True)
class Deb:
    name: str
    version: str = "1.0-1"
    depends: str = ""
    fields: str = ""
    payload: bytes = b"content"
    licence: str = "License: MIT"


def make_deb(deb: Deb, pool: Path, scratch: Path) -> Path:
    tree = scratch / deb.name
    documents = tree / "usr/share/doc" / deb.name
    documents.mkdir(parents=True)
    (tree / "DEBIAN").mkdir()
    (documents / "copyright").write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
        f"Files: *\n{deb.licence}\n"
    )
    (tree / "usr/share" / f"{deb.name}.data").write_bytes(deb.payload)
    control = f"Package: {deb.name}\nVersion: {deb.version}\nArchitecture: amd64\n"
    control += "Maintainer: Nobody <nobody@holdfast.invalid>\nDescription: made up\n"
    control += f"Depends: {deb.depends}\n" if deb.depends else ""
    control += deb.fields
    (tree / "DEBIAN/control").write_text(control)
    without_epoch = deb.version.split(":")[-1]
    path = pool / f"{deb.name}_{without_epoch}_amd64.deb"
    subprocess.run(
        ["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, path],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return path


def make_archive(
    folder: Path, debs: list[Deb], *, origin: str = "Debian", suite: str = "bookworm"
) -> Path:
    """Write a signed apt archive; return its public key file."""
    index = folder / f"dists/{suite}/main/binary-amd64"
    index.mkdir(parents=True)
    pool = folder / "pool"
    pool.mkdir()
    scratch = folder / "scratch"
    stanzas = []
    for deb in debs:
        path = make_deb(deb, pool, scratch)
        content = path.read_bytes()
        control = subprocess.run(
            ["dpkg-deb", "--field", path], check=True, capture_output=True, text=True
        ).stdout.strip()
        stanzas.append(
            f"{control}\nFilename: pool/{path.name}\nSize: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
        )
    packages = "\n".join(stanzas).encode()
    (index / "Packages").write_bytes(packages)
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    release = (
        f"Origin: {origin}\nSuite: {suite}\nCodename: {suite}\nDate: {date}\n"
        f"Architectures: amd64\nComponents: main\nSHA256:\n"
        f" {hashlib.sha256(packages).hexdigest()} {len(packages)} main/binary-amd64/Packages\n"
    ).encode()
    key = pysequoia.Tsk.generate("made up", validity_seconds=None)
    signed = pysequoia.sign(key.signer(), release, mode=pysequoia.SignatureMode.CLEAR)
    (folder / f"dists/{suite}/InRelease").write_bytes(signed)
    public = folder / "key.asc"
    public.write_text(str(key.extract_certificate()))
    return public


def make_wheel(  # noqa: PLR0913 - a builder: each is a field of a wheel
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    requires: tuple[str, ...] = (),
    tag: str = "py3-none-any",
    payload: bytes = b"",
    licence: str = "MIT",
    extras: tuple[str, ...] = (),
) -> Path:
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
    metadata += f"License-Expression: {licence}\n"
    metadata += "".join(f"Provides-Extra: {extra}\n" for extra in extras)
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires)
    files = {
        f"{module}.py": b"value = 1\n" + payload,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), content)
    return wheel


def make_simple_index(folder: Path, wheels: list[Path]) -> str:
    """Write a PEP 503 index of wheels; return its address."""
    for wheel in wheels:
        project = folder / wheel.name.split("-")[0].replace("_", "-").lower()
        project.mkdir(parents=True, exist_ok=True)
        with (project / "index.html").open("a") as page:
            page.write(f'<a href="{wheel.as_uri()}">{wheel.name}</a>\n')
    return folder.as_uri()


def make_model(folder: Path) -> Path:
    (folder / "nested").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Made up\n")
    (folder / "config.json").write_text('{"model_type": "llama"}\n')
    (folder / "nested/notes.txt").write_text("inside\n")
    (folder / "model.safetensors").write_bytes(os.urandom(50_000))
    return folder


@dataclass(frozen=True)
class World:
    """A connected side of its own: an apt archive, a wheel folder, a model, cache and state."""

    folder: Path

    @property
    def wheels(self) -> Path:
        return self.folder / "wheels"

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def copy(self, folder: Path) -> World:
        """Return the same world elsewhere: texts that name its folder name the new one."""
        shutil.copytree(self.folder, folder)
        texts = ["apt.conf", "etc/apt/sources.list", "etc/apt/sources.list.d/foreign.sources"]
        for path in [*(folder / text for text in texts), *(folder / "cache").rglob("*.json")]:
            path.write_text(path.read_text().replace(str(self.folder), str(folder)))
        shutil.rmtree(folder / "cache/apt", ignore_errors=True)
        return World(folder)

    def environment(self) -> dict[str, str]:
        """Return the variables that point apt, pip and holdfast at this world and at no other."""
        return {
            "APT_CONFIG": str(self.folder / "apt.conf"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": (self.folder / "index").as_uri(),
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_NO_CACHE_DIR": "1",
            "HOLDFAST_CACHE": str(self.cache),
            "HOLDFAST_STATE": str(self.folder / "state"),
        }

    def sources(self, **changes: object) -> Sources:
        environment = EnvironmentSource(
            requirements=("app",), exclude={"heavy": "needs a GPU nobody has"}
        )
        sources = Sources(
            debian=("hello",),
            environments={"app": environment},
            models=(ModelSource(id="made/up", source=str(self.folder / "model")),),
        )
        return sources.model_copy(update=changes)


DEBS = [
    Deb("base-files", fields="Essential: yes\nPriority: required\n"),
    Deb("apt", "2.6.1"),
    Deb("hello", "1:2.0-1", depends="libhello (= 3.0+b1)", fields="Recommends: noise\n"),
    Deb("libhello", "3.0+b1", licence="License: GPL-2+ or Artistic"),
    Deb("noise"),
    Deb("unrelated"),
]


def make_world(folder: Path) -> World:
    world = World(folder)
    key = make_archive(world.archive, DEBS)
    foreign = folder / "foreign"
    foreign_key = make_archive(foreign, [Deb("libhello", "9.9-1")], origin="Somebody")
    lists = folder / "etc/apt/sources.list.d"
    lists.mkdir(parents=True)
    (folder / "etc/apt/sources.list").write_text(
        f"deb [signed-by={key}] file:{world.archive} bookworm main contrib\n"
        f"# deb file:/nowhere bookworm main\n"
        f"deb file:/nowhere trixie main\n"
    )
    (lists / "foreign.sources").write_text(
        f"# somebody else\nTypes: deb deb-src\nURIs: file:{foreign}\nSuites: bookworm\n"
        f"Components: main\nSigned-By: {foreign_key}\n"
    )
    (folder / "apt.conf").write_text(f'Dir::Etc "{folder}/etc/apt";\n')
    make_wheel(world.wheels, "app", requires=("lib>=1", "heavy", 'windows; sys_platform=="win32"'))
    make_wheel(world.wheels, "lib", "1.5", requires=("extra[fast]",), payload=b"#" * 40_000)
    make_wheel(world.wheels, "lib", "0.5")
    make_wheel(world.wheels, "extra", requires=('quick; extra == "fast"',), extras=("fast",))
    make_wheel(world.wheels, "quick", licence="BSD-3-Clause")
    make_wheel(world.wheels, "heavy", requires=("heavy-kernels",))
    make_wheel(world.wheels, "heavy-kernels")
    (folder / "index").mkdir()
    make_model(folder / "model")
    return world


def enter(world: World, patch: pytest.MonkeyPatch) -> None:
    """Point apt, pip and holdfast at a world."""
    for name in CHANGED:
        patch.delenv(name, raising=False)
    for name, value in world.environment().items():
        patch.setenv(name, value)
    web.pip_settings.cache_clear()
    web._opener.cache_clear()


def make_lock(world: World, previous: Lock | None = None, **changes: object) -> Lock:
    return lock(
        world.sources(**changes), previous=previous, store=Store(world.cache), tell=lambda _: None
    )
