"""`bundle build`: from a lock to a signed directory that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_installer.bundle import apt_repository, debs, fetch, sbom, signature, wheels
from holdfast_installer.bundle.digests import blob_path, digest_of_bytes, digest_of_file
from holdfast_installer.bundle.durable import (
    disk_full_told,
    only_one,
    publish,
    require_free,
    write_atomically,
)
from holdfast_installer.bundle.lockfile import PYTHON, Lock
from holdfast_installer.bundle.manifest import (
    BLOBS,
    MANIFEST,
    SBOM,
    SIGNATURES,
    Artifact,
    Environment,
    Manifest,
)
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast_installer.bundle.store import Store

_OVERHEAD = 64 * 1024 * 1024  # bytes for indexes, folders and block rounding
Moved = Callable[[int], None]


@dataclass(frozen=True)
class Watch:
    """Who is told of bytes as they are fetched and as they are checked."""

    fetched: Moved
    checked: Moved


_UNSEEN = Watch(fetched=lambda _: None, checked=lambda _: None)


@dataclass(frozen=True)
class Plan:
    """What a build will fetch and write, known before it starts; sizes in bytes."""

    missing: tuple[Artifact, ...]
    download: int
    total: int


@dataclass(frozen=True)
class Built:
    """The outcome: where, under which digest, and whether anything had to change."""

    directory: Path
    digest: str
    changed: bool


def plan(lock: Lock, store: Store) -> Plan:
    """Return what is to be fetched and how large the bundle will be."""
    missing = tuple(fetch.missing(lock, store))
    return Plan(missing, sum(each.size for each in missing), sum(lock.sizes().values()))


def build(lock: Lock, directory: Path, *, store: Store, key: Path, watch: Watch = _UNSEEN) -> Built:
    """Fetch what is missing, then put the bundle into `directory`, signed with `key`.

    A killed build leaves the cache and its staging folder; the same command goes on from there.
    An older bundle in `directory` stays whole until the new one takes its place.
    """
    directory = directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with only_one(directory.parent / f".{directory.name}.lock", doing=f"building {directory.name}"):
        _refuse_other_content(directory)
        fetch.fetch(lock, store, fetch.missing(lock, store), watch.fetched)
        manifest, generated = describe(lock, store)
        raw = manifest.canonical()
        digest = digest_of_bytes(raw)
        if _complete(directory, manifest, raw, watch.checked):
            _add_signature(directory, raw, key)
            return Built(directory, digest, changed=False)
        staging = directory.parent / f".{directory.name}.building"
        _require_space(staging, manifest, store)
        with disk_full_told(staging):
            _collect(staging, manifest, generated, store, watch.checked)
            write_atomically(staging / SBOM, sbom.render(manifest))
            shutil.rmtree(staging / SIGNATURES, ignore_errors=True)
            _add_signature(staging, raw, key)
            write_atomically(staging / MANIFEST, raw)  # last: a folder without it is no bundle
            publish(staging, directory)
    return Built(directory, digest, changed=True)


def describe(lock: Lock, store: Store) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest of a lock whose blobs are in the cache, and the files made for it."""
    packages = [each for each in lock.artifacts if each.kind == "deb"]
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="debs") as pool:
        known = list(
            pool.map(lambda each: debs.facts(_need(store, each), each.digest, store), packages)
        )
    licensed = [
        each.model_copy(update={"licence": facts["licence"]})
        for each, facts in zip(packages, known, strict=True)
    ]
    repository = apt_repository.make(
        zip(packages, [facts["control"] for facts in known], strict=True),
        architecture=lock.sources.architecture,
        store=store,
    )
    generated = repository.files()
    environments = {}
    for name, locked in lock.environments.items():
        pins = [
            (each.name, each.version, each.digest)
            for each in lock.artifacts
            if name in each.environments
        ]
        text = wheels.requirements_text(pins).encode()
        generated[f"environments/{name}.txt"] = text
        environments[name] = Environment(
            requirements=digest_of_bytes(text), python=PYTHON, excluded=locked.excluded
        )
    made = [
        Artifact(
            kind="file",
            name=name,
            filename=name,
            digest=digest_of_bytes(content),
            size=len(content),
            origin="made by bundle build",
        )
        for name, content in generated.items()
    ]
    others = [each for each in lock.artifacts if each.kind != "deb"]
    order = sorted(
        [*licensed, *others, *made],
        key=lambda each: (each.kind, each.name, each.version, each.filename),
    )
    manifest = Manifest(
        release=lock.sources.release,
        architecture=lock.sources.architecture,
        environments=environments,
        artifacts=tuple(order),
    )
    return manifest, {digest_of_bytes(content): content for content in generated.values()}


def _need(store: Store, artifact: Artifact) -> Path:
    found = store.find(artifact.digest, artifact.size)
    if found is None:
        raise HoldfastError(f"{artifact.filename} is not in the cache", where=artifact.digest)
    return found


def _refuse_other_content(directory: Path) -> None:
    """Refuse a folder that holds something else: publishing would remove it."""
    if not directory.is_dir():
        return
    found = {path.name for path in directory.iterdir()}
    others = sorted(found - {MANIFEST, SBOM, SIGNATURES, BLOBS})
    if others or (found and MANIFEST not in found):
        raise HoldfastError(
            "This folder holds something that is not a bundle",
            where=str(directory),
            cause=f"a bundle has no {', '.join(others[:5])}" if others else f"it has no {MANIFEST}",
            next_command="choose an empty or new folder with -o",
        )


def _complete(directory: Path, manifest: Manifest, raw: bytes, checked: Moved) -> bool:
    """Say whether the folder already is this very bundle, every byte read."""
    try:
        if (directory / MANIFEST).read_bytes() != raw:
            return False
        if (directory / SBOM).read_bytes() != sbom.render(manifest):
            return False
    except OSError:
        return False
    expected = {blob_path(Path(BLOBS), each) for each in manifest.sizes()}
    found = {
        path.relative_to(directory) for path in (directory / BLOBS).rglob("*") if not path.is_dir()
    }
    return found == expected and all(
        _in_parallel(
            lambda item: _is(blob_path(directory / BLOBS, item[0]), item[0], item[1], checked),
            sorted(manifest.sizes().items(), key=lambda item: -item[1]),
        )
    )


def _is(path: Path, digest: str, size: int, checked: Moved) -> bool:
    """Say whether a file is the blob `digest`."""
    if not path.is_file() or path.stat().st_size != size or digest_of_file(path) != digest:
        return False
    checked(size)
    return True


def _require_space(staging: Path, manifest: Manifest, store: Store) -> None:
    """Refuse before the first byte when the bundle will not fit; linked blobs need no space."""
    if _same_file_system(store.blobs, staging):
        needed = _OVERHEAD
    else:
        there = sum(path.stat().st_size for path in (staging / BLOBS).rglob("*") if path.is_file())
        needed = sum(manifest.sizes().values()) - there + _OVERHEAD
    require_free(staging, needed, purpose="the bundle")


def _same_file_system(cache: Path, staging: Path) -> bool:
    try:
        return cache.stat().st_dev == staging.parent.stat().st_dev
    except OSError:
        return False


def _collect(
    staging: Path, manifest: Manifest, generated: dict[str, bytes], store: Store, checked: Moved
) -> None:
    """Bring every blob into the staging folder, checked on its way in, and nothing else."""
    blobs = staging / BLOBS
    expected = {blob_path(blobs, digest) for digest in manifest.sizes()}
    for path in blobs.rglob("*"):
        if not path.is_dir() and path not in expected:
            path.unlink()

    def place(item: tuple[str, int]) -> bool:
        digest, size = item
        final = blob_path(blobs, digest)
        if _is(final, digest, size, checked):
            return True
        final.unlink(missing_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        if digest in generated:
            write_atomically(final, generated[digest], mode=0o444)
            checked(size)
            return True
        source = store.find(digest, size)
        if source is None or not _take(source, final, digest):
            store.drop(digest)
            return False
        checked(size)
        return True

    order = sorted(manifest.sizes().items(), key=lambda item: -item[1])
    placed = _in_parallel(place, order)
    damaged = [digest for (digest, _), whole in zip(order, placed, strict=True) if not whole]
    if damaged:
        names = {each.digest: each.filename for each in manifest.artifacts}
        raise HoldfastError(
            f"{len(damaged)} files in the cache had changed and were dropped",
            where=", ".join(names[digest] for digest in damaged[:5]),
            cause="the content no longer fits the digest it is stored under",
            next_command="run the same command again: they are fetched anew "
            "(own wheels and model folders: holdfast bundle lock first)",
        )


def _take(source: Path, final: Path, digest: str) -> bool:
    """Link or copy a cached blob to its place if its content is what its name says."""
    part = final.with_name(f".{final.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:  # another file system, or somebody else's cache
        shutil.copyfile(source, part)
        part.chmod(0o444)
        with part.open("rb") as content:
            os.fsync(content.fileno())
    if digest_of_file(part) != digest:
        part.unlink()
        return False
    part.rename(final)
    return True


def _add_signature(directory: Path, raw: bytes, key: Path) -> None:
    """Sign with `key` unless its signature is there and holds; signatures of others are kept."""
    file = directory / SIGNATURES / signature.file_name(key)
    if not (file.is_file() and signature.fits(raw, file)):
        write_atomically(file, signature.sign(raw, key))


def _in_parallel(
    work: Callable[[tuple[str, int]], bool], items: list[tuple[str, int]]
) -> list[bool]:
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="blobs") as pool:
        return list(pool.map(work, items))
