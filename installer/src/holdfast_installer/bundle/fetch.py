"""Fills the cache with what a lock names: sizes first, each blob once, on from where it stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from holdfast_installer.bundle import models, web, wheels
from holdfast_installer.bundle.apt_root import AptRoot
from holdfast_installer.bundle.durable import disk_full_told, only_one, require_free
from holdfast_installer.bundle.lock import require_local
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from holdfast_installer.bundle.lockfile import Lock
    from holdfast_installer.bundle.manifest import Artifact
    from holdfast_installer.bundle.store import Store

_WORKERS = 4
_BATCH = 64  # addresses on one apt-helper command line
Moved = Callable[[int], None]


def missing(lock: Lock, store: Store) -> list[Artifact]:
    """Return one artifact for each blob that is not in the cache, largest first."""
    wanted = {
        artifact.digest: artifact
        for artifact in lock.artifacts
        if store.find(artifact.digest, artifact.size) is None
    }
    return sorted(wanted.values(), key=lambda each: -each.size)


def fetch(lock: Lock, store: Store, wanted: list[Artifact], moved: Moved) -> None:
    """Fetch `wanted` into the cache; `moved` is told bytes as they arrive.

    One download at a time uses a cache: a second waits and then finds the work done.
    """
    require_local(lock, store)
    if not wanted:
        return
    needed = sum(each.size for each in wanted) - _kept(store, wanted)
    require_free(store.folder, needed, purpose="the downloads")
    with (
        only_one(store.folder / "fetch.lock", doing="downloading into the same cache", wait=True),
        disk_full_told(store.folder),
    ):
        wanted = [each for each in wanted if store.find(each.digest, each.size) is None]
        _fetch_debs(lock, store, [each for each in wanted if each.kind == "deb"], moved)
        python = [each for each in wanted if each.kind in {"wheel", "collection"}]
        _fetch_wheels(lock, store, python, moved)
        for artifact in wanted:
            if artifact.kind == "model":
                models.fetch_model_file(artifact, store)
                moved(artifact.size)


def _kept(store: Store, wanted: Iterable[Artifact]) -> int:
    partials = (store.partial(each.digest) for each in wanted)
    return sum(partial.stat().st_size for partial in partials if partial.exists())


def _fetch_debs(lock: Lock, store: Store, wanted: list[Artifact], moved: Moved) -> None:
    if not wanted:
        return
    root = AptRoot(
        store.folder / "apt" / f"{lock.sources.release}-{lock.sources.architecture}",
        release=lock.sources.release,
        architecture=lock.sources.architecture,
    )
    known = {each.digest: store.recall("addresses", each.digest) for each in wanted}
    unknown = [each for each in wanted if not known[each.digest]]
    if unknown:
        root.update()
        found = root.addresses((each.name, each.version) for each in unknown)
        for each in unknown:
            address = found.get((each.name, each.version))
            if address is None:
                raise HoldfastError(
                    "The mirror no longer has a package the lock names",
                    where=f"{each.name} {each.version}",
                    cause="Debian publishes updates in place of what was there",
                    next_command="holdfast bundle lock --upgrade, then build again",
                )
            known[each.digest] = address
            store.remember("addresses", each.digest, address)
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        triples = [
            (str(known[each.digest]), store.partial(each.digest), each.digest) for each in batch
        ]
        local = [triple for triple in triples if triple[0].startswith(("file:", "copy:"))]
        for address, target, _ in local:
            web.download(address.replace("copy:", "file:", 1), target, 0, lambda _: None)
        remote = [triple for triple in triples if triple not in local]
        problem = (
            _watch(root.fetch(remote), [target for _, target, _ in remote], moved) if remote else ""
        )
        _enter_batch(batch, store, problem)


def _watch(process: subprocess.Popen[str], targets: list[Path], moved: Moved) -> str:
    """Report growth until apt is done; return what it complained about."""
    seen = 0
    complaints: list[str] = []
    reader = threading.Thread(
        target=lambda: complaints.append(process.stderr.read() if process.stderr else "")
    )
    reader.start()
    try:
        while True:
            done = process.poll() is not None
            now = sum(target.stat().st_size for target in targets if target.exists())
            moved(max(0, now - seen))
            seen = max(seen, now)
            if done:
                break
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        reader.join()
    return complaints[0].strip() if process.returncode != 0 else ""


def _enter_batch(batch: list[Artifact], store: Store, problem: str) -> None:
    """Take every complete package in before telling what failed: nothing is fetched twice."""
    incomplete = []
    for each in batch:
        partial = store.partial(each.digest)
        if partial.exists() and partial.stat().st_size == each.size:
            store.enter(partial, each.digest)
        else:
            incomplete.append(each)
    if incomplete:
        raise HoldfastError(
            f"{len(incomplete)} Debian packages could not be fetched",
            where=", ".join(each.filename for each in incomplete[:3]),
            cause=problem or "apt ended early",
            next_command="run the same command again: it goes on from here; if a package is gone "
            "from the mirror, holdfast bundle lock --upgrade",
        )


def _fetch_wheels(lock: Lock, store: Store, wanted: list[Artifact], moved: Moved) -> None:
    if not wanted:
        return
    known = {each.digest: store.recall("addresses", each.digest) for each in wanted}
    unknown = [each for each in wanted if not known[each.digest]]
    for name, environment in lock.sources.environments.items():
        pins = [
            (each.name, each.version, each.digest)
            for each in unknown
            if name in each.environments and not known[each.digest]
        ]
        if pins:
            known |= wheels.addresses(pins, environment.index)
    told = threading.Lock()

    def tell(count: int) -> None:
        with told:
            moved(count)

    def one(artifact: Artifact) -> None:
        partial = store.partial(artifact.digest)
        address = str(known[artifact.digest])
        try:
            web.download(address, partial, artifact.size, tell)
        except web.GoneError:
            folder = store.partials / f"pip-{artifact.digest[-16:]}"
            index = next(
                (lock.sources.environments[name].index for name in artifact.environments), None
            )
            wheels.download(artifact.name, artifact.version, artifact.digest, folder, index)
            (folder / artifact.filename).replace(partial)
            tell(artifact.size)
        store.enter(partial, artifact.digest)
        store.remember("addresses", artifact.digest, address)

    with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="fetch") as pool:
        running = [pool.submit(one, artifact) for artifact in wanted]
        try:
            for done in running:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # not one more download after the first failure
            raise
