"""Looking whether storage holds what the records say, and naming every place where it does not.

Beside a registry that serves: what looks wrong is looked at again before it is told, because a
commit may have come in between. Blobs that nothing holds are not wrong: `gc` collects them.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.blobs import CHUNK_SIZE
from holdfast_hub_protocol.holdings import holdings, insert_missing
from holdfast_hub_protocol.quotas import readable
from holdfast_model_registry.check_trees import check_commits, check_trees
from holdfast_model_registry.storage import one_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast_hub_protocol.blobs import Stored
    from holdfast_model_registry.storage import Storage

_SHOWN: Final = 3  # files that a finding about a blob names
_RESTORE: Final = "restore the database from a backup"
_AGAIN: Final = "upload or import it again, or `holdfast-model-registry restore` a backup"

# When the content of a blob was last read and found right: a scrub goes on from there.
verified: Final = sa.Table(
    "verified_blobs",
    schema.metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("verified_at", sa.BigInteger, nullable=False),  # Unix seconds
)


@dataclass(frozen=True)
class Finding:
    """One inconsistency."""

    name: str
    detail: str
    fix: str
    verdict: str = "fail"

    def as_json(self) -> dict[str, str]:
        """Return it as every Holdfast command prints findings."""
        return asdict(self)


@dataclass
class Report:
    """What was looked at, and what was found."""

    findings: list[Finding] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Return it as `check --json` prints it."""
        return {
            "checked": dict(self.checked),
            "findings": [finding.as_json() for finding in self.findings],
        }


@dataclass(frozen=True)
class Scrub:
    """How the content of blobs is read: all of it, or what was not read for long, for so long."""

    older_than: float = 0  # seconds since it was last found right
    at_most: float | None = None  # seconds for all of it

    def __post_init__(self) -> None:
        if self.older_than < 0:
            raise ValueError(self.older_than)


def check(
    storage: Storage,
    *,
    scrub: Scrub | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Compare rows with rows, rows with blobs, and with `scrub` blobs with their digests.

    A blob whose content is wrong is set aside: from then on it is refused to readers, and the
    next upload of the same content mends it.
    """
    report = Report()
    with one_view(storage.metadata.engine) as connection:
        for part in (_check_rows, _check_refs, check_commits, check_trees, _check_holdings):
            progress(part.__name__.strip("_").replace("_", " "))
            report.findings += [Finding(*found) for found in part(connection, report.checked)]
        progress("check blobs")
        _check_blobs(storage, report, connection)
    _check_set_aside(storage, report)
    if scrub is not None:
        _scrub(storage, report, scrub, progress)
    return report


def _check_rows(connection: sa.Connection, checked: Counter[str]) -> Iterator[tuple[str, str, str]]:
    """Find rows that point at rows which are not there."""
    for table in schema.metadata.sorted_tables:
        for key in table.foreign_keys:
            other = key.column.table.alias()
            column = key.parent
            query = (
                sa.select(sa.func.count(), sa.func.min(column))
                .select_from(table.outerjoin(other, column == other.c[key.column.name]))
                .where(column.is_not(None), other.c[key.column.name].is_(None))
            )
            count, example = connection.execute(query).one()
            checked["references between tables"] += 1
            if count:
                detail = (
                    f"{count} rows of {table.name} have a {column.name} such as {example} "
                    f"that is not in {key.column.table.name}"
                )
                yield "rows-orphaned", detail, _RESTORE


def _check_refs(connection: sa.Connection, checked: Counter[str]) -> Iterator[tuple[str, str, str]]:
    """Find branches and tags that stand for another repository's commit."""
    refs, commits, repositories = schema.refs, schema.commits, schema.repositories
    query = (
        sa.select(repositories.c.namespace, repositories.c.name, refs.c.name, commits.c.oid)
        .select_from(refs)
        .join(repositories, repositories.c.id == refs.c.repository_id)
        .join(commits, commits.c.id == refs.c.commit_id)
        .where(commits.c.repository_id != refs.c.repository_id)
    )
    checked["refs"] += connection.execute(sa.select(sa.func.count()).select_from(refs)).scalar_one()
    for namespace, name, ref, oid in connection.execute(query):
        detail = f"{ref} of {namespace}/{name} stands for commit {oid} of another repository"
        yield "ref-elsewhere", detail, _RESTORE


def _check_holdings(
    connection: sa.Connection, checked: Counter[str]
) -> Iterator[tuple[str, str, str]]:
    """Find files whose blobs their repository is not noted to hold: gc must not trust the notes."""
    entries, snapshots = schema.entries, schema.snapshots
    query = (
        sa.select(snapshots.c.repository_id, sa.func.count(), sa.func.min(entries.c.path))
        .select_from(entries)
        .join(snapshots, snapshots.c.id == entries.c.snapshot_id)
        .outerjoin(
            holdings,
            (holdings.c.repository_id == snapshots.c.repository_id)
            & (holdings.c.sha256 == entries.c.sha256),
        )
        .where(entries.c.sha256.is_not(None), holdings.c.sha256.is_(None))
        .group_by(snapshots.c.repository_id)
    )
    counted = sa.select(sa.func.count()).select_from(holdings)
    checked["holdings"] += connection.execute(counted).scalar_one()
    for key, count, path in connection.execute(query).all():
        detail = (
            f"{count} files of repository {_name(connection, key)}, such as {path}, are not "
            "among what it is noted to hold"
        )
        yield "holding-missing", detail, _RESTORE


def _check_blobs(storage: Storage, report: Report, connection: sa.Connection) -> None:
    """Walk the records and the storage, both sorted by digest, side by side."""
    engine = storage.metadata.engine
    stored = storage.blobs.stored()
    blob = next(stored, None)
    for sha256, smallest, largest in _needed(connection):
        while blob is not None and blob.sha256 < sha256:
            report.checked["blobs that nothing holds"] += 1
            blob = next(stored, None)
        report.checked["blobs"] += 1
        if blob is None or blob.sha256 != sha256:
            if not storage.blobs.path(sha256).exists():
                _blob_finding(report, engine, "blob-missing", sha256, "is not there")
            continue
        if smallest != largest:
            problem = f"is recorded with {smallest} and with {largest} bytes"
            _blob_finding(report, engine, "blob-size", sha256, problem)
        elif blob.size != smallest:
            problem = f"has {blob.size} bytes instead of {smallest}"
            _blob_finding(report, engine, "blob-size", sha256, problem)
        blob = next(stored, None)
    while blob is not None:
        report.checked["blobs that nothing holds"] += 1
        blob = next(stored, None)
    for path in storage.blobs.strangers():
        report.findings.append(
            Finding(
                "file-unknown",
                f"{path.relative_to(storage.blobs.root)} among the blobs is none",
                "look at what it is, and remove it",
            )
        )


def _needed(connection: sa.Connection) -> Iterator[tuple[str, int, int]]:
    """Yield each digest that a record needs, sorted, with the sizes that records give it."""
    entries = schema.entries
    rows = sa.union_all(
        sa.select(holdings.c.sha256.label("sha256"), holdings.c.size.label("size")),
        sa.select(entries.c.sha256, entries.c.size).where(entries.c.sha256.is_not(None)),
    ).subquery()
    collation = "C" if connection.dialect.name == "postgresql" else "BINARY"
    query = (
        sa.select(rows.c.sha256, sa.func.min(rows.c.size), sa.func.max(rows.c.size))
        .group_by(rows.c.sha256)
        .order_by(sa.collate(rows.c.sha256, collation))
    )
    for row in connection.execution_options(yield_per=10_000).execute(query):
        yield row[0], row[1], row[2]


def _check_set_aside(storage: Storage, report: Report) -> None:
    for sha256 in storage.blobs.set_aside_digests():
        if storage.blobs.path(sha256).exists():
            report.findings.append(
                Finding(
                    "blob-mended",
                    f"the damaged copy of {sha256} is still in {storage.blobs.damaged.name}; "
                    "a good one came since",
                    f"remove {storage.blobs.damaged.name}/{sha256}",
                )
            )


def _scrub(storage: Storage, report: Report, scrub: Scrub, progress: Callable[[str], None]) -> None:
    """Read blobs, those first that were not read for longest."""
    engine = storage.metadata.engine
    with engine.connect() as connection:
        rows = connection.execute(sa.select(verified.c.sha256, verified.c.verified_at))
        read_at = {row.sha256: row.verified_at for row in rows}
    started = time.time()
    due = [
        blob
        for blob in storage.blobs.stored()
        if read_at.get(blob.sha256, 0) <= started - scrub.older_than
    ]
    due.sort(key=lambda blob: (read_at.get(blob.sha256, 0), blob.sha256))
    total = sum(blob.size for blob in due)
    for blob in due:
        if scrub.at_most is not None and time.time() - started > scrub.at_most:
            break
        _read(storage, report, blob)
        read = report.checked["bytes read"]
        progress(f"{readable(read)} of {readable(total)} read")
    report.checked["blobs left to read"] = len(due) - report.checked["blobs read"]


def _read(storage: Storage, report: Report, blob: Stored) -> None:
    engine = storage.metadata.engine
    digest = hashlib.sha256()
    try:
        with storage.blobs.open(blob.sha256) as file:
            while chunk := file.read(CHUNK_SIZE):
                digest.update(chunk)
                report.checked["bytes read"] += len(chunk)
    except FileNotFoundError:
        report.checked["blobs read"] += 1
        return  # collected since it was listed
    except OSError as error:
        _blob_finding(report, engine, "blob-unreadable", blob.sha256, f"cannot be read: {error}")
        report.checked["blobs read"] += 1
        return
    report.checked["blobs read"] += 1
    if digest.hexdigest() == blob.sha256:
        with engine.begin() as connection:
            connection.execute(verified.delete().where(verified.c.sha256 == blob.sha256))
            row = {"sha256": blob.sha256, "verified_at": int(time.time())}
            insert_missing(connection, verified, [row])
        return
    storage.blobs.set_aside(blob.sha256)
    wrong = f"holds content of SHA-256 {digest.hexdigest()}; it was set aside and is refused now"
    _blob_finding(report, engine, "blob-damaged", blob.sha256, wrong)


def _blob_finding(report: Report, engine: sa.Engine, name: str, sha256: str, problem: str) -> None:
    entries, snapshots = schema.entries, schema.snapshots
    with engine.connect() as connection:
        places = connection.execute(
            sa.select(holdings.c.repository_id, holdings.c.path)
            .where(holdings.c.sha256 == sha256)
            .order_by(holdings.c.repository_id)
            .limit(_SHOWN + 1)
        ).all()
        if not places:
            places = connection.execute(
                sa.select(snapshots.c.repository_id, entries.c.path)
                .join(snapshots, snapshots.c.id == entries.c.snapshot_id)
                .where(entries.c.sha256 == sha256)
                .limit(_SHOWN + 1)
            ).all()
        named = [f"{_name(connection, row[0])}: {row[1]}" for row in places[:_SHOWN]]
    more = ", …" if len(places) > _SHOWN else ""
    held = f" ({', '.join(named)}{more})" if named else ""
    report.findings.append(Finding(name, f"blob {sha256}{held} {problem}", _AGAIN))


def _name(connection: sa.Connection, repository_key: int) -> str:
    table = schema.repositories
    row = connection.execute(
        sa.select(table.c.namespace, table.c.name).where(table.c.id == repository_key)
    ).first()
    return f"{row.namespace}/{row.name}" if row else f"of row {repository_key}"
