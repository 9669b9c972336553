"""Opening a bundle: signatures first, then every byte; nothing else in the code opens one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from holdfast_installer.bundle import sbom, signature
from holdfast_installer.bundle.digests import blob_path, digest_of_bytes, digest_of_file, hex_of
from holdfast_installer.bundle.manifest import (
    BLOBS,
    MANIFEST,
    SBOM,
    SIGNATURES,
    Artifact,
    Environment,
    Manifest,
    parse,
    read,
)
from holdfast_installer.errors import Finding, HoldfastError, Refused

_WORKERS = 2  # hashing: more threads than disks and cores want only fight
_FIX = "copy the bundle again from where it was built, then: holdfast bundle verify DIR"
Moved = Callable[[int], None]


@dataclass(frozen=True)
class VerifiedBundle:
    """A bundle whose signatures and every byte were checked; `signers` are the principals."""

    directory: Path
    manifest: Manifest
    digest: str
    signers: tuple[str, ...]

    def blob(self, digest: str) -> Path:
        """Return the path of a blob of this bundle; `KeyError` when it has no such blob."""
        if digest not in self.manifest.sizes():
            raise KeyError(digest)
        return blob_path(self.directory / BLOBS, digest)

    def environment(self, name: str) -> Environment:
        """Return one Python environment; `KeyError` names those there are."""
        if name not in self.manifest.environments:
            raise KeyError(
                f"no environment {name!r}; there are {sorted(self.manifest.environments)}"
            )
        return self.manifest.environments[name]

    def wheels(self, environment: str) -> list[Artifact]:
        """Return the wheels of one environment, collections among them."""
        return [each for each in self.manifest.artifacts if environment in each.environments]

    def file(self, name: str) -> Path:
        """Return the path of a `file` artifact by name, e.g. "apt/Packages"."""
        for artifact in self.manifest.of_kind("file"):
            if artifact.name == name:
                return self.blob(artifact.digest)
        raise KeyError(name)

    def models(self) -> dict[tuple[str, str], list[Artifact]]:
        """Return the files of each model: (id, commit) -> artifacts."""
        found: dict[tuple[str, str], list[Artifact]] = {}
        for artifact in self.manifest.of_kind("model"):
            found.setdefault((artifact.name, artifact.version), []).append(artifact)
        return found


def verify(
    directory: Path,
    allowed_signers: Path | None = None,
    *,
    threshold: int = 1,
    moved: Moved = lambda _: None,
    ahead: Moved = lambda _: None,
) -> VerifiedBundle:
    """Check a bundle completely and return it, or refuse with one finding for each fault.

    `allowed_signers` is an OpenSSH allowed_signers file, by default this operator's; at least
    `threshold` different principals in it must have signed. Reads only. `ahead` is told the bytes
    there are to check, once the signatures hold; `moved` those checked, from several threads.
    """
    allowed = allowed_signers or signature.allowed_signers_path()
    if not allowed.is_file():
        raise HoldfastError(
            "There is no list of allowed signers, so no bundle can be trusted",
            where=str(allowed),
            next_command=f"holdfast bundle verify {directory} --allowed-signers FILE",
            exit_code=3,
        )
    raw = read(directory)
    signers, problems = _signers(raw, directory, allowed)
    if len(signers) < threshold:
        asked = f"{threshold} signature{'s' if threshold > 1 else ''} needed, {len(signers)} hold"
        raise Refused(
            f"The bundle is not signed by whom you trust: {asked}",
            tuple(problems) or (_fault(SIGNATURES, "there is no signature"),),
            next_command=f"ask who built it for their line of {allowed}",
        )
    manifest = parse(raw, directory / MANIFEST)  # not before: a stranger's bytes are not read
    ahead(sum(manifest.sizes().values()))
    faults = [*_layout_faults(directory, manifest), *_blob_faults(directory, manifest, moved)]
    if faults:
        raise Refused(
            f"The bundle in {directory} is not what was signed", tuple(faults), next_command=_FIX
        )
    return VerifiedBundle(directory, manifest, digest_of_bytes(raw), tuple(sorted(signers)))


def _signers(raw: bytes, directory: Path, allowed: Path) -> tuple[set[str], list[Finding]]:
    """Return the principals whose signature holds; a principal with two keys counts once."""
    files = sorted((directory / SIGNATURES).glob("*.sig"))
    checks = [signature.check(raw, file, allowed) for file in files]
    problems = [
        _fault(f"{SIGNATURES}/{each.file}", each.problem) for each in checks if each.problem
    ]
    return {each.principal for each in checks if each.principal}, problems


def _layout_faults(directory: Path, manifest: Manifest) -> list[Finding]:
    """Find what lies in the folder and is not in the manifest: nothing unsigned crosses."""
    expected = {blob_path(Path(BLOBS), digest).as_posix() for digest in manifest.sizes()} | {
        MANIFEST,
        SBOM,
    }
    faults = []
    for folder, folders, files in os.walk(directory):
        for name in [*files, *(each for each in folders if (Path(folder) / each).is_symlink())]:
            path = Path(folder) / name
            relative = path.relative_to(directory).as_posix()
            signature_file = relative.startswith(f"{SIGNATURES}/") and relative.endswith(".sig")
            if path.is_symlink() or not (relative in expected or signature_file):
                faults.append(_fault(relative, "is not part of the signed bundle"))
    bill = directory / SBOM
    if not bill.is_file():
        faults.append(_fault(SBOM, "is missing"))
    elif bill.read_bytes() != sbom.render(manifest):
        faults.append(_fault(SBOM, "does not say what the manifest says"))
    return sorted(faults, key=lambda fault: fault.name)


def _blob_faults(directory: Path, manifest: Manifest, moved: Moved) -> list[Finding]:
    """Hash every blob, the largest first so that no thread is left with a long tail."""
    sizes = sorted(manifest.sizes().items(), key=lambda item: -item[1])
    names = _names(manifest.artifacts)

    def check(item: tuple[str, int]) -> Finding | None:
        digest, size = item
        path = blob_path(directory / BLOBS, digest)
        try:
            found = path.stat().st_size
            if found != size:
                return _fault(names[digest], f"has {found:,} bytes and should have {size:,}")
            actual = digest_of_file(path)
        except FileNotFoundError:
            return _fault(names[digest], f"is missing: {path.relative_to(directory)}")
        except OSError as problem:
            return _fault(names[digest], f"cannot be read: {problem}")
        moved(size)
        if actual != digest:
            return _fault(names[digest], f"has changed: {digest[:19]}… is now {actual[:19]}…")
        return None

    with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="verify") as pool:
        return [fault for fault in pool.map(check, sizes) if fault is not None]


def _names(artifacts: Iterable[Artifact]) -> dict[str, str]:
    """Return what to call each blob in a finding."""
    names: dict[str, str] = {}
    for artifact in artifacts:
        prefix = f"{artifact.name}/" if artifact.kind == "model" else ""
        names.setdefault(artifact.digest, f"{artifact.kind} {prefix}{artifact.filename}")
    return names


def _fault(name: str, detail: str) -> Finding:
    return Finding(name=name, verdict="fail", detail=detail, fix=_FIX)


def short(digest: str) -> str:
    """Return a digest as people compare it: the first 12 hexadecimal digits."""
    return hex_of(digest)[:12]
