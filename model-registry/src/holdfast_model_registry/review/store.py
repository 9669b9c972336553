"""Reading and writing reviews; who may do what is decided elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_model_registry.admission.findings import Finding
from holdfast_model_registry.review.states import Actor, Approval, State
from holdfast_model_registry.review.tables import approvals, reviews, transitions

if TYPE_CHECKING:
    from collections.abc import Sequence

WAITING = "waiting"
DONE = "done"


@dataclass(frozen=True)
class Review:
    """One revision's review as stored."""

    repository: int
    commit: str
    state: State
    scan: str
    digest: str
    uploader: str
    findings: tuple[Finding, ...]
    reason: str
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class Listed:
    """A review in a listing, with the name of its repository and what is committed there."""

    id: RepositoryId
    title: str
    review: Review
    approvals: int


def find(connection: sa.Connection, repository: int, commit: str) -> Review | None:
    """Return a revision's review, None if it never had one."""
    row = connection.execute(sa.select(reviews).where(*_is(repository, commit))).one_or_none()
    return None if row is None else _review(row)


def state_of(connection: sa.Connection, repository: int, commit: str) -> State | None:
    """Return a revision's state, None if it never had a review: one indexed read."""
    found = connection.execute(
        sa.select(reviews.c.state).where(*_is(repository, commit))
    ).scalar_one_or_none()
    return None if found is None else State(found)


def insert(  # noqa: PLR0913 - a review is all of this
    connection: sa.Connection,
    repository: int,
    commit: str,
    *,
    state: State,
    waiting: bool,
    uploader: str,
    findings: Sequence[Finding],
    reason: str = "",
) -> None:
    """Begin the review of a new revision."""
    now = datetime.now(UTC)
    connection.execute(
        reviews.insert().values(
            repository_id=repository,
            commit_oid=commit,
            state=state,
            scan=WAITING if waiting else DONE,
            digest="",
            uploader=uploader,
            findings=[finding.as_json() for finding in findings],
            reason=reason,
            created_at=now,
            updated_at=now,
        )
    )


def lock(connection: sa.Connection, repository: int, commit: str) -> Review | None:
    """Return a review that nobody else changes until this transaction ends."""
    # A write takes the lock in both databases; a read would not.
    connection.execute(
        reviews.update().where(*_is(repository, commit)).values(updated_at=datetime.now(UTC))
    )
    return find(connection, repository, commit)


def update(connection: sa.Connection, review: Review, **values: Any) -> None:  # noqa: ANN401 - columns
    """Change columns of a review."""
    connection.execute(
        reviews.update().where(*_is(review.repository, review.commit)).values(**values)
    )


def given(connection: sa.Connection, repository: int, commit: str) -> list[Approval]:
    """Return the approvals that a revision has, oldest first."""
    rows = connection.execute(
        sa.select(approvals)
        .where(approvals.c.repository_id == repository, approvals.c.commit_oid == commit)
        .order_by(approvals.c.at, approvals.c.approver)
    )
    return [Approval(row.approver, row.kind, row.note, timestamp(row.at)) for row in rows]


def approve(connection: sa.Connection, review: Review, actor: Actor, note: str) -> None:
    """Add one person's approval."""
    connection.execute(
        approvals.insert().values(
            repository_id=review.repository,
            commit_oid=review.commit,
            approver=actor.name,
            kind=actor.kind,
            note=note,
            at=datetime.now(UTC),
        )
    )


def withdraw_approvals(connection: sa.Connection, review: Review) -> None:
    """Forget every approval: whoever quarantines undoes them all."""
    connection.execute(
        approvals.delete().where(
            approvals.c.repository_id == review.repository,
            approvals.c.commit_oid == review.commit,
        )
    )


def moved(  # noqa: PLR0913 - a transition is all of this
    connection: sa.Connection,
    repository: int,
    commit: str,
    *,
    before: str,
    after: str,
    actor: Actor,
    note: str,
) -> None:
    """Note a transition."""
    connection.execute(
        transitions.insert().values(
            repository_id=repository,
            commit_oid=commit,
            before=before,
            after=after,
            actor=actor.name,
            actor_kind=actor.kind,
            note=note,
            at=datetime.now(UTC),
        )
    )


def history(connection: sa.Connection, repository: int, commit: str) -> list[dict[str, str]]:
    """Return every transition of a revision, oldest first, as pages show it."""
    rows = connection.execute(
        sa.select(transitions)
        .where(transitions.c.repository_id == repository, transitions.c.commit_oid == commit)
        .order_by(transitions.c.id)
    )
    return [
        {
            "at": timestamp(row.at),
            "from": row.before,
            "to": row.after,
            "by": row.actor,
            "kind": row.actor_kind,
            "note": row.note,
        }
        for row in rows
    ]


def waiting(connection: sa.Connection, limit: int) -> list[Review]:
    """Return the reviews whose scan is not done, oldest first."""
    rows = connection.execute(
        sa.select(reviews)
        .where(reviews.c.scan == WAITING)
        .order_by(reviews.c.created_at)
        .limit(limit)
    )
    return [_review(row) for row in rows]


def unreviewed(connection: sa.Connection, limit: int) -> list[tuple[int, str, str]]:
    """Return (repository, commit, author) of models' commits that have no review at all."""
    commits, repositories = schema.commits, schema.repositories
    rows = connection.execute(
        sa.select(commits.c.repository_id, commits.c.oid, commits.c.author)
        .join(repositories, repositories.c.id == commits.c.repository_id)
        .outerjoin(
            reviews,
            (reviews.c.repository_id == commits.c.repository_id)
            & (reviews.c.commit_oid == commits.c.oid),
        )
        .where(repositories.c.kind == "model", reviews.c.commit_oid.is_(None))
        .limit(limit)
    )
    return [(row.repository_id, row.oid, row.author) for row in rows]


def newest_open(connection: sa.Connection, repository: int) -> str | None:
    """Return the newest commit of a repository whose files its readers get."""
    commits = schema.commits
    return connection.execute(
        sa.select(commits.c.oid)
        .join(
            reviews,
            (reviews.c.repository_id == commits.c.repository_id)
            & (reviews.c.commit_oid == commits.c.oid),
        )
        .where(
            commits.c.repository_id == repository,
            reviews.c.state.in_([State.SCANNED, State.APPROVED]),
        )
        .order_by(commits.c.id.desc())
        .limit(1)
    ).scalar_one_or_none()


def with_held_revisions(connection: sa.Connection, repositories: Sequence[int]) -> set[int]:
    """Return those of the repositories that have a revision in quarantine, or a rejected one."""
    return set(
        connection.execute(
            sa.select(reviews.c.repository_id)
            .where(
                reviews.c.repository_id.in_(repositories),
                reviews.c.state.in_([State.QUARANTINED, State.REJECTED]),
            )
            .distinct()
        ).scalars()
    )


def listed(
    connection: sa.Connection,
    state: State | None = None,
    *,
    after: tuple[str, int, str] | None = None,
    limit: int = 1_000_000,
) -> list[Listed]:
    """Return reviews of any or one state, newest change first.

    `after` is the (updated_at, repository, commit) of the last one seen.
    """
    count = (
        sa.select(sa.func.count())
        .where(
            approvals.c.repository_id == reviews.c.repository_id,
            approvals.c.commit_oid == reviews.c.commit_oid,
        )
        .scalar_subquery()
    )
    repositories, commits = schema.repositories, schema.commits
    query = (
        sa.select(
            reviews,
            repositories.c.namespace,
            repositories.c.name,
            commits.c.title,
            count.label("given"),
        )
        .join(repositories, repositories.c.id == reviews.c.repository_id)
        .join(
            commits,
            (commits.c.repository_id == reviews.c.repository_id)
            & (commits.c.oid == reviews.c.commit_oid),
        )
        .order_by(reviews.c.updated_at.desc(), reviews.c.repository_id, reviews.c.commit_oid)
        .limit(limit)
    )
    if state is not None:
        query = query.where(reviews.c.state == state)
    if after is not None:
        moment = datetime.fromisoformat(after[0])
        mine = sa.tuple_(reviews.c.repository_id, reviews.c.commit_oid)
        query = query.where(
            (reviews.c.updated_at < moment)
            | ((reviews.c.updated_at == moment) & (mine > sa.tuple_(after[1], after[2])))
        )
    return [
        Listed(
            id=RepositoryId("model", row.namespace, row.name),
            title=row.title,
            review=_review(row),
            approvals=row.given,
        )
        for row in connection.execute(query)
    ]


def timestamp(moment: datetime) -> str:
    """Return a moment as ISO 8601 in UTC; SQLite keeps no offset."""
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return utc.isoformat()


def _is(repository: int, commit: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (reviews.c.repository_id == repository, reviews.c.commit_oid == commit)


def _review(row: sa.Row[Any]) -> Review:
    return Review(
        repository=row.repository_id,
        commit=row.commit_oid,
        state=State(row.state),
        scan=row.scan,
        digest=row.digest,
        uploader=row.uploader,
        findings=tuple(Finding.from_json(each) for each in row.findings),
        reason=row.reason,
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
    )
