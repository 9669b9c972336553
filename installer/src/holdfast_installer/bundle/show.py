"""What a bundle or a lock holds: how big, from where, under which licence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from rich.filesize import decimal
from rich.table import Table

from holdfast_installer.bundle import lockfile
from holdfast_installer.bundle.manifest import KINDS, Artifact, load
from holdfast_installer.bundle.verify import short
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import Console


class Total(BaseModel):
    """One kind's distinct blobs and their bytes."""

    model_config = ConfigDict(frozen=True)

    artifacts: int
    size: int


class Contents(BaseModel):
    """Everything `show` prints; `digest` is the bundle's, empty for a lock."""

    model_config = ConfigDict(frozen=True)

    digest: str
    release: str
    architecture: str
    environments: dict[str, Total]
    excluded: dict[str, dict[str, str]]
    totals: dict[str, Total]
    size: int
    artifacts: tuple[Artifact, ...]


def contents(path: Path) -> Contents:
    """Return what lies in a bundle's folder, or what a lock file asks for; nothing is verified."""
    if path.is_dir():
        manifest = load(path)
        excluded = {name: each.excluded for name, each in manifest.environments.items()}
        return _contents(
            manifest.artifacts,
            excluded,
            digest=manifest.digest(),
            release=manifest.release,
            architecture=manifest.architecture,
        )
    if not path.exists():
        raise HoldfastError(
            "There is neither a bundle nor a lock here",
            where=str(path),
            next_command="holdfast bundle show DIR  # or: holdfast bundle show bundle.lock",
        )
    return of_lock(lockfile.read(path))


def of_lock(lock: lockfile.Lock) -> Contents:
    """Return what a lock asks for, with the sizes a build would fetch."""
    return _contents(
        lock.artifacts,
        {name: each.excluded for name, each in lock.environments.items()},
        digest="",
        release=lock.sources.release,
        architecture=lock.sources.architecture,
    )


def print_contents(found: Contents, console: Console, *, kinds: Iterable[str] = KINDS) -> None:
    """Print every artifact of the kinds asked for, then the totals."""
    wanted = {*kinds}
    table = Table(box=None, pad_edge=False)
    for title in ("kind", "name", "version"):
        table.add_column(title, overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("from", overflow="fold")
    table.add_column("licence", overflow="fold")
    for each in found.artifacts:
        if each.kind in wanted:
            name = f"{each.name}/{each.filename}" if each.kind == "model" else each.name
            version = each.version[:12] if each.kind == "model" else each.version
            table.add_row(each.kind, name, version, decimal(each.size), each.origin, each.licence)
    console.print(table)
    print_totals(found, console)


def print_totals(found: Contents, console: Console) -> None:
    """Print one line for each kind and environment, what was left out, and the sum."""
    table = Table(box=None, pad_edge=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    table.add_column("size", justify="right")
    for kind, total in found.totals.items():
        table.add_row(kind, str(total.artifacts), decimal(total.size))
    for name, total in found.environments.items():
        table.add_row(f"  environment {name}", str(total.artifacts), decimal(total.size))
    table.add_row(
        "[bold]all[/bold]",
        str(len({each.digest for each in found.artifacts})),
        f"[bold]{decimal(found.size)}[/bold]",
    )
    console.print(table)
    for name, left_out in found.excluded.items():
        for what, why in left_out.items():
            console.print(f"left out of {name}: {what} ({why})")
    if found.digest:
        console.print(f"Debian {found.release} {found.architecture}, bundle {short(found.digest)}")


def _contents(
    artifacts: tuple[Artifact, ...],
    excluded: dict[str, dict[str, str]],
    *,
    digest: str,
    release: str,
    architecture: str,
) -> Contents:
    by_environment: dict[str, list[Artifact]] = {}
    for each in artifacts:
        for name in each.environments:
            by_environment.setdefault(name, []).append(each)
    by_kind: dict[str, list[Artifact]] = {}
    for each in artifacts:
        by_kind.setdefault(each.kind, []).append(each)
    return Contents(
        digest=digest,
        release=release,
        architecture=architecture,
        environments={name: _total(inside) for name, inside in sorted(by_environment.items())},
        excluded={name: left for name, left in excluded.items() if left},
        totals={kind: _total(inside) for kind, inside in sorted(by_kind.items())},
        size=_total(artifacts).size,
        artifacts=artifacts,
    )


def _total(artifacts: Iterable[Artifact]) -> Total:
    sizes = {each.digest: each.size for each in artifacts}
    return Total(artifacts=len(sizes), size=sum(sizes.values()))
