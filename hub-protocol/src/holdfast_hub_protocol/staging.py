"""What was announced or uploaded and is in no commit yet: kept from gc, counted, and forgotten."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.admission import DisabledError, OpenAdmission
from holdfast_hub_protocol.holdings import guard, held, holdings, insert_missing
from holdfast_hub_protocol.metadata import MAIN
from holdfast_hub_protocol.quotas import NO_QUOTAS, QuotaError, Quotas, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from holdfast_hub_protocol.access import Authorizer, Caller
    from holdfast_hub_protocol.admission import Admission
    from holdfast_hub_protocol.blob_storage import BlobStorage
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import NewFile, Repository

PLEDGE_SECONDS: Final = 2 * 3600
AWAITED_SECONDS: Final = 24 * 3600  # as long as the addresses to upload to
STAGED_SECONDS: Final = 72 * 3600  # a weekend between an upload and its commit

# What a row of the table says.
_PLEDGED: Final = "pledged"  # preupload: a file of this path and size will come
_AWAITED: Final = "awaited"  # batch, xorb: this content will come
_STAGED: Final = "staged"  # it is here, in no commit

staged: Final = sa.Table(
    "staged",
    schema.metadata,
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("state", sa.String(8), primary_key=True),
    sa.Column("key", schema.Name, primary_key=True),  # a path; a digest, xorb:…; a digest
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),  # Unix seconds
    sa.Index("staged_by_key", "key"),
)


@dataclass(frozen=True)
class Staging:
    """The table, with whom to ask: what may be reused, and how much there may be."""

    metadata: MetadataStore
    blobs: BlobStorage
    authorizer: Authorizer
    quotas: Quotas = NO_QUOTAS
    admission: Admission = field(default_factory=OpenAdmission)
    clock: Callable[[], float] = time.time

    def pledge(self, repository: Repository, sizes: Mapping[str, int]) -> None:
        """Reserve for files (path -> bytes) that a client says it will upload; QuotaError.

        What then comes counts against the pledge, not on top of it. A file of a size that the
        repository already holds counts nothing: most often it is the same file again.
        """
        if self.quotas.of(repository.id.namespace) is None:
            return
        with self.metadata.engine.begin() as connection:
            self._lock(connection, repository.id.namespace)
            known = set(
                connection.execute(
                    sa.select(holdings.c.size).where(holdings.c.repository_id == repository.key)
                ).scalars()
            )
            new = {path: size for path, size in sizes.items() if size not in known}
            expires = int(self.clock()) + PLEDGE_SECONDS
            self._put(connection, repository.key, _PLEDGED, new, expires)
            self._check(connection, repository, sum(new.values()))

    def count(self, repository: Repository, sizes: Mapping[str, int]) -> None:
        """Reserve for content (SHA-256 -> bytes) that came inside a commit; QuotaError.

        By digest: what has the size of a file that is held may be another file.
        """
        if self.quotas.of(repository.id.namespace) is None:
            return
        with self.metadata.engine.connect() as connection:
            known = held(connection, repository.key, list(sizes))
        self.reserve(repository, {key: size for key, size in sizes.items() if key not in known})

    def reserve(self, repository: Repository, sizes: Mapping[str, int]) -> None:
        """Reserve for content (SHA-256, or xorb:HASH -> bytes) about to be uploaded; QuotaError.

        The same key again is the same reservation.
        """
        with self.metadata.engine.begin() as connection:
            self._lock(connection, repository.id.namespace)
            expires = int(self.clock()) + AWAITED_SECONDS
            self._put(connection, repository.key, _AWAITED, sizes, expires)
            self._check(connection, repository, sum(sizes.values()))

    def reserved(self, repository_key: int, key: str) -> bool:
        """Tell whether content is expected: a reservation that is neither used nor expired."""
        with self.metadata.engine.connect() as connection:
            return self._state(connection, repository_key, _AWAITED, [key]) != {}

    def release(self, repository_key: int, keys: Iterable[str]) -> None:
        """Give reservations back, as when an upload was refused."""
        with self.metadata.engine.begin() as connection:
            _forget(connection, repository_key, _AWAITED, list(keys))

    def stage(self, repository_key: int, sha256: str, size: int) -> None:
        """Note that a blob was uploaded to a repository; its reservation becomes this.

        Raises FileNotFoundError if the blob is gone.
        """
        if not self.stage_all(repository_key, {sha256: size}):
            raise FileNotFoundError(f"no blob {sha256} of {size} bytes")

    def stage_all(self, repository_key: int, sizes: Mapping[str, int]) -> list[str]:
        """Note that blobs wait for a commit to a repository; return those that are there."""
        if not sizes:
            return []
        with self.metadata.engine.begin() as connection:
            guard(connection)
            present = [digest for digest, size in sizes.items() if self.blobs.has(digest, size)]
            _forget(connection, repository_key, _AWAITED, present)
            expires = int(self.clock()) + STAGED_SECONDS
            self._put(connection, repository_key, _STAGED, {d: sizes[d] for d in present}, expires)
        return present

    def staged_here(self, repository_key: int, sha256: str, size: int) -> bool:
        """Tell whether a blob waits for a commit to this repository, and is there."""
        with self.metadata.engine.connect() as connection:
            found = self._state(connection, repository_key, _STAGED, [sha256])
        return found.get(sha256) == size and self.blobs.has(sha256, size)

    def usable(self, caller: Caller, repository: Repository, sha256: str, size: int) -> bool:
        """Tell whether content may be committed to a repository without uploading it.

        That is, it was uploaded to it, or is held by it or by a repository that the caller may
        read, in the same namespace or in one of the caller's own. Others are not even looked at:
        how long it takes must not tell what they hold. Nor is what the caller would not get by
        downloading it: behind a gate, in quarantine.
        """
        return sha256 in self.usable_of(caller, repository, {sha256: size})

    def usable_of(
        self, caller: Caller, repository: Repository, sizes: Mapping[str, int]
    ) -> set[str]:
        """Return those of many digests that are `usable`."""
        digests = list(sizes)
        with self.metadata.engine.connect() as connection:
            found = held(connection, repository.key, digests)
        if found and self.admission.withheld(caller, [repository]):
            shown = self._sent_to(caller, repository, list(found))
            found = {digest: size for digest, size in found.items() if digest in shown}
        with self.metadata.engine.connect() as connection:
            found |= self._state(connection, repository.key, _STAGED, digests)
            elsewhere: dict[str, set[int]] = {}
            rest = [digest for digest in digests if digest not in found]
            own = (repository.id.namespace, caller.name, *caller.teams)
            namespaces = {name.lower() for name in own}
            for first in range(0, len(rest), 500):
                rows = connection.execute(
                    sa.select(holdings.c.sha256, holdings.c.repository_id, holdings.c.size)
                    .join(schema.repositories, schema.repositories.c.id == holdings.c.repository_id)
                    .where(
                        holdings.c.sha256.in_(rest[first : first + 500]),
                        sa.func.lower(schema.repositories.c.namespace).in_(namespaces),
                    )
                )
                for row in rows:
                    if row.size == sizes[row.sha256]:
                        elsewhere.setdefault(row.sha256, set()).add(row.repository_id)
        others = self.metadata.repositories_by_key(set().union(*elsewhere.values()))
        may = self.authorizer.may
        readable = {  # to be listed is not enough where a gate stands before the files
            other.key
            for other in self.authorizer.readable(caller, others)
            if not other.disabled_reason
            and (not other.gated or may(caller, Verb.READ, other.id, other).allowed)
        }
        if readable:
            readable -= set(self.admission.withheld(caller, others))
        known = {digest for digest, size in found.items() if size == sizes[digest]}
        known |= {digest for digest, keys in elsewhere.items() if keys & readable}
        return {digest for digest in known if self.blobs.has(digest, sizes[digest])}

    def _sent_to(self, caller: Caller, repository: Repository, digests: list[str]) -> set[str]:
        """Return those digests that main has, if the caller would be sent its files."""
        main = self.metadata.head(repository, MAIN)
        if main is None:
            return set()
        try:
            self.admission.check_fetch(caller, repository, main)
        except DisabledError:
            return set()
        table, found = schema.entries, set()
        with self.metadata.engine.connect() as connection:
            for first in range(0, len(digests), 500):
                mine = table.c.sha256.in_(digests[first : first + 500])
                query = sa.select(table.c.sha256).where(table.c.snapshot_id == main.snapshot, mine)
                found |= set(connection.execute(query).scalars())
        return found

    def sizes(self, repository_key: int, digests: Iterable[str]) -> dict[str, int]:
        """Return the sizes of those digests that a repository holds or was sent."""
        wanted = list(digests)
        with self.metadata.engine.connect() as connection:
            staged_sizes = self._state(connection, repository_key, _STAGED, wanted)
            return staged_sizes | held(connection, repository_key, wanted)

    def usage(self, namespace: str) -> Usage:
        """Return what a namespace holds and has reserved."""
        with self.metadata.engine.connect() as connection:
            return _usage(connection, namespace, self.quotas, self.clock())

    def expire(self) -> int:
        """Forget what has waited too long; return how many rows that was."""
        with self.metadata.engine.begin() as connection:
            return connection.execute(
                staged.delete().where(staged.c.expires_at <= int(self.clock()))
            ).rowcount

    @staticmethod
    def _put(
        connection: sa.Connection,
        repository_key: int,
        state: str,
        sizes: Mapping[str, int],
        expires_at: int,
    ) -> None:
        _forget(connection, repository_key, state, list(sizes))
        insert_missing(
            connection,
            staged,
            [
                {
                    "repository_id": repository_key,
                    "state": state,
                    "key": key,
                    "size": size,
                    "expires_at": expires_at,
                }
                for key, size in sizes.items()
            ],
        )

    def _state(
        self, connection: sa.Connection, repository_key: int, state: str, keys: list[str]
    ) -> dict[str, int]:
        found: dict[str, int] = {}
        for first in range(0, len(keys), 500):
            rows = connection.execute(
                sa.select(staged.c.key, staged.c.size).where(
                    staged.c.repository_id == repository_key,
                    staged.c.state == state,
                    staged.c.key.in_(keys[first : first + 500]),
                    staged.c.expires_at > int(self.clock()),
                )
            )
            found |= {row.key: row.size for row in rows}
        return found

    def _check(self, connection: sa.Connection, repository: Repository, asked: int) -> None:
        limit = self.quotas.of(repository.id.namespace)
        if limit is None:
            return
        usage = _usage(connection, repository.id.namespace, self.quotas, self.clock())
        if usage.held + usage.reserved > limit:
            before = Usage(usage.namespace, usage.held, max(0, usage.reserved - asked), limit)
            raise QuotaError(before, asked)  # and the transaction with the reservation ends

    @staticmethod
    def _lock(connection: sa.Connection, namespace: str) -> None:
        """Let one at a time count what a namespace has and add to it."""
        if connection.dialect.name == "postgresql":
            key = sa.func.hashtextextended(f"quota:{namespace.lower()}", 0)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        else:
            connection.execute(staged.delete().where(sa.false()))


def namespace_usages(engine: sa.Engine, quotas: Quotas) -> list[Usage]:
    """Return the usage of every namespace that has repositories, for operators."""
    folded = sa.func.lower(schema.repositories.c.namespace)
    names = (
        sa.select(sa.func.min(schema.repositories.c.namespace)).group_by(folded).order_by(folded)
    )
    with engine.connect() as connection:
        found = connection.execute(names).scalars().all()
        return [_usage(connection, name, quotas, time.time()) for name in found]


def _usage(connection: sa.Connection, namespace: str, quotas: Quotas, now: float) -> Usage:
    repositories = schema.repositories
    here = sa.func.lower(repositories.c.namespace) == namespace.lower()
    blobs = (
        sa.select(sa.func.max(holdings.c.size).label("size"))
        .join(repositories, repositories.c.id == holdings.c.repository_id)
        .where(here)
        .group_by(holdings.c.sha256)
        .subquery()
    )
    committed = connection.execute(sa.select(sa.func.sum(blobs.c.size))).scalar()

    def size_of(*states: str) -> sa.ColumnElement[int]:
        return sa.func.coalesce(
            sa.func.sum(sa.case((staged.c.state.in_(states), staged.c.size), else_=0)), 0
        )

    rows = connection.execute(
        sa.select(size_of(_PLEDGED).label("pledged"), size_of(_AWAITED, _STAGED).label("come"))
        .join(repositories, repositories.c.id == staged.c.repository_id)
        .where(here, staged.c.expires_at > int(now))
        .group_by(staged.c.repository_id)
    )
    return Usage(
        namespace=namespace,
        held=int(committed or 0),
        reserved=sum(max(int(row.pledged), int(row.come)) for row in rows),
        limit=quotas.of(namespace),
    )


def commit_staged(connection: sa.Connection, repository_key: int, files: Iterable[NewFile]) -> None:
    """Forget what was staged or promised for files, in the transaction that publishes them."""
    waiting = connection.execute(
        sa.select(staged.c.state, staged.c.key).where(staged.c.repository_id == repository_key)
    ).all()
    if not waiting:
        return
    listed = list(files)
    paths = {file.path for file in listed}
    digests = {file.sha256 for file in listed}
    for state in (_PLEDGED, _AWAITED, _STAGED):
        come = paths if state == _PLEDGED else digests
        keys = [row.key for row in waiting if row.state == state and row.key in come]
        _forget(connection, repository_key, state, keys)


def _forget(connection: sa.Connection, repository_key: int, state: str, keys: list[str]) -> None:
    for first in range(0, len(keys), 500):
        connection.execute(
            staged.delete().where(
                staged.c.repository_id == repository_key,
                staged.c.state == state,
                staged.c.key.in_(keys[first : first + 500]),
            )
        )
