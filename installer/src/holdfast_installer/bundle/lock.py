"""`bundle lock`: decide everything a bundle will hold, keeping the pins that still answer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_installer.bundle import models, projects, web, wheels
from holdfast_installer.bundle.apt_root import BASE, AptRoot
from holdfast_installer.bundle.digests import digest_of_file
from holdfast_installer.bundle.durable import only_one
from holdfast_installer.bundle.lockfile import (
    PYTHON,
    EnvironmentSource,
    Lock,
    LockedEnvironment,
    Sources,
    inputs_digest,
)
from holdfast_installer.bundle.manifest import Artifact
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast_installer.bundle.store import Store

COLLECTIONS = frozenset({"holdfast-playbooks"})  # wheels that Ansible, not Python, imports
Tell = Callable[[str], None]


@dataclass(frozen=True)
class _Part:
    """What resolving one environment gave: its artifacts and its pins."""

    artifacts: tuple[Artifact, ...]
    environment: LockedEnvironment


@dataclass(frozen=True)
class _Workshop:
    """What every step needs: the question, the pins there were, the cache, and a voice."""

    sources: Sources
    previous: Lock | None
    store: Store
    tell: Tell


@dataclass(frozen=True)
class _Own:
    """A wheel built from this workspace, already in the cache."""

    wheel: Path
    digest: str
    size: int


def lock(sources: Sources, *, previous: Lock | None, store: Store, tell: Tell) -> Lock:
    """Resolve `sources`; `previous` pins are kept where their inputs are unchanged.

    The workspace's own wheels and model folders are taken as they are now in any case, and put
    into the cache. `tell` is given a line for each step.
    """
    wheels.check_interpreter()
    store.folder.mkdir(parents=True, exist_ok=True)
    shop = _Workshop(sources, previous, store, tell)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="debian") as pool:
        # apt and pip wait for different servers: resolve them side by side
        debian = pool.submit(_lock_debian, shop)
        environments = _lock_environments(shop)
        inputs, packages = debian.result()
    collected: dict[tuple[str, str, str], Artifact] = {}
    for part in environments.values():
        for artifact in part.artifacts:
            key = (artifact.kind, artifact.filename, artifact.digest)
            known = collected.get(key, artifact)
            both = tuple(sorted({*known.environments, *artifact.environments}))
            collected[key] = known.model_copy(update={"environments": both})
    artifacts = [*packages, *collected.values()]
    for source in sources.models:
        tell(f"model {source.id}: {source.source}")
        artifacts += models.lock_model(source, store)
    order = sorted(artifacts, key=lambda each: (each.kind, each.name, each.version, each.filename))
    return Lock(
        sources=sources,
        debian=inputs,
        environments={name: part.environment for name, part in environments.items()},
        artifacts=tuple(order),
    )


def _lock_debian(shop: _Workshop) -> tuple[str, list[Artifact]]:
    sources = shop.sources
    inputs = inputs_digest(
        sources.release, sources.architecture, sorted(sources.debian), list(BASE)
    )
    if shop.previous and shop.previous.debian == inputs:
        shop.tell("Debian packages: pins kept")
        return inputs, [each for each in shop.previous.artifacts if each.kind == "deb"]
    root = AptRoot(
        shop.store.folder / "apt" / f"{sources.release}-{sources.architecture}",
        release=sources.release,
        architecture=sources.architecture,
    )
    shop.tell("Debian packages: reading the indexes")
    with only_one(root.folder / "lock", doing="reading the package indexes", wait=True):
        root.update()
        packages = root.closure(sources.debian)
    shop.tell(f"Debian packages: {len(packages)} in the closure")
    for package in packages:
        shop.store.remember("addresses", package.digest, package.address)
    return inputs, [
        Artifact(
            kind="deb",
            name=package.name,
            version=package.version,
            architecture=package.architecture,
            filename=package.filename,
            digest=package.digest,
            size=package.size,
            origin=f"debian {sources.release} main",
        )
        for package in packages
    ]


def _lock_environments(shop: _Workshop) -> dict[str, _Part]:
    asked = {name for each in shop.sources.environments.values() for name in each.projects}
    with tempfile.TemporaryDirectory(dir=shop.store.folder, prefix="lock-") as scratch:
        folder = Path(scratch)
        shop.tell(f"own wheels: building {len(asked)}")
        own = {
            name: _Own(wheel, *shop.store.enter_copy(wheel))
            for name, wheel in projects.build(asked, folder).items()
        }
        names = sorted(shop.sources.environments)
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="pip") as pool:
            parts = pool.map(lambda name: _lock_environment(shop, name, own, folder), names)
            return dict(zip(names, parts, strict=True))


def _lock_environment(shop: _Workshop, name: str, own: dict[str, _Own], folder: Path) -> _Part:
    source = shop.sources.environments[name]
    mine = {project: own[project] for project in source.projects}
    needs = {project: projects.requirements_of(each.wheel) for project, each in mine.items()}
    inputs = inputs_digest(source.model_dump(mode="json"), needs, PYTHON)
    kept = shop.previous.environments.get(name) if shop.previous else None
    if shop.previous and kept and kept.inputs == inputs:
        shop.tell(f"environment {name}: pins kept")
        pinned = [each for each in shop.previous.artifacts if name in each.environments]
        artifacts = tuple(_renewed(each, name, mine.get(each.name)) for each in pinned)
        excluded = kept.excluded
    else:
        shop.tell(f"environment {name}: resolving")
        built = {project: each.wheel for project, each in mine.items()}
        closure = wheels.resolve(name, source, built, folder=folder)
        with ThreadPoolExecutor(max_workers=8, thread_name_prefix="sizes") as pool:
            artifacts = tuple(
                pool.map(
                    lambda wheel: _pinned(wheel, name, source, shop.store, folder), closure.wheels
                )
            )
        excluded = closure.excluded
        shop.tell(f"environment {name}: {len(artifacts)} wheels")
    digests = tuple(sorted(each.digest for each in artifacts))
    return _Part(artifacts, LockedEnvironment(inputs=inputs, wheels=digests, excluded=excluded))


def _renewed(artifact: Artifact, environment: str, own: _Own | None) -> Artifact:
    """Keep a pin; for a wheel of this workspace take the one built just now."""
    changes: dict[str, object] = {"environments": (environment,)}
    if own:
        version = own.wheel.name.split("-")[1]
        changes |= {"filename": own.wheel.name, "version": version}
        changes |= {"digest": own.digest, "size": own.size}
    return artifact.model_copy(update=changes)


def _pinned(
    wheel: wheels.Wheel, environment: str, source: EnvironmentSource, store: Store, folder: Path
) -> Artifact:
    digest, size = _measure(wheel, source.index, store, folder)
    return Artifact(
        kind="collection" if wheel.name in COLLECTIONS else "wheel",
        name=wheel.name,
        version=wheel.version,
        filename=wheel.filename,
        digest=digest,
        size=size,
        origin=wheel.origin,
        licence=wheel.licence,
        environments=(environment,),
    )


def _measure(wheel: wheels.Wheel, index: str | None, store: Store, folder: Path) -> tuple[str, int]:
    """Return a wheel's digest and size; fetch it when the index does not tell both."""
    if wheel.digest and wheel.origin != "local":
        store.remember("addresses", wheel.digest, wheel.address)
    if wheel.digest and (found := store.find(wheel.digest)):
        return wheel.digest, found.stat().st_size
    if wheel.digest and (size := web.size_of(wheel.address)) is not None:
        return wheel.digest, size
    scratch = folder / f"measure-{wheel.filename}"
    wheels.download(wheel.name, wheel.version, wheel.digest, scratch, index)
    file = scratch / wheel.filename
    digest = wheel.digest or digest_of_file(file)
    size = file.stat().st_size
    store.enter(file, digest)
    return digest, size


def totals(artifacts: Iterable[Artifact]) -> dict[str, tuple[int, int]]:
    """Return for each kind the number of distinct blobs and their bytes."""
    seen: dict[str, dict[str, int]] = {}
    for artifact in artifacts:
        seen.setdefault(artifact.kind, {})[artifact.digest] = artifact.size
    return {kind: (len(sizes), sum(sizes.values())) for kind, sizes in sorted(seen.items())}


def require_local(lock_: Lock, store: Store) -> None:
    """Refuse a lock whose local parts are no longer in the cache: only `lock` can make them."""
    for artifact in lock_.artifacts:
        if artifact.origin == "local" and not store.find(artifact.digest, artifact.size):
            raise HoldfastError(
                f"{artifact.filename} was made on this machine and is not in the cache any more",
                where=artifact.digest,
                cause="own wheels and model folders enter the cache when they are locked",
                next_command="holdfast bundle lock, then build again",
            )
