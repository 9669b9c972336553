"""Energy of requests: what a host drew in five minutes, shared by the tokens active in them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    cast,
    extract,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from holdfast_gateway.metering.monitoring import Monitoring
from holdfast_gateway.metering.reports import Energy, Key, Question, conditions, dimension
from holdfast_gateway.metering.usage import ENERGY, USAGE

INTERVAL = 300
"""Seconds for which one sum of joules is kept."""

_METRIC = "holdfast_energy_joules_total"
_STEPS_AT_ONCE = 2000
_SCRAPED_AFTER = 60  # seconds until the last samples of an interval are in Prometheus
_LONGEST_REQUEST = timedelta(hours=6)  # that reaches into the time asked for from before it
_EPOCH_JULIAN = 2440587.5

Shares = dict[tuple[str, int], float]


def collect(engine: Engine, monitoring: Monitoring, question: Question) -> None:
    """Keep what Prometheus knows of the hosts' energy in the time asked for, beyond its memory.

    Intervals that are kept already are not asked for again. Raises MonitoringError.
    """
    with engine.connect() as connection:
        window = _window(connection, question)
        if window is None:
            return
        start, end = window
        query = select(ENERGY.c.start).distinct().where(ENERGY.c.start.between(start, end))
        kept = set(connection.scalars(query))
    missing = [at for at in range(start, end, INTERVAL) if at not in kept]
    for first, last in _runs(missing):
        # An interval's joules are read at its end.
        series = monitoring.steps(
            f"sum by (instance, source) (increase({_METRIC}[{INTERVAL}s]))",
            first + INTERVAL,
            last + INTERVAL,
            INTERVAL,
        )
        joules: dict[tuple[str, int], float] = defaultdict(float)
        sources: dict[tuple[str, int], set[str]] = defaultdict(set)
        for each in series:
            host = each.labels.get("instance", "").rpartition(":")[0]
            for at, value in each.points:
                place = (host, int(at) - INTERVAL)
                joules[place] += value
                sources[place].add(each.labels.get("source", "unnamed"))
        _keep(
            engine,
            [
                {
                    "host": host,
                    "start": at,
                    "joules": value,
                    "source": "+".join(sorted(sources[host, at])),
                }
                for (host, at), value in joules.items()
            ],
        )


def apportion(connection: Connection, question: Question) -> dict[Key, Energy]:
    """Return the energy of each group of requests; groups without any known are missing.

    A host's joules of an interval are divided by the tokens active in it: a request's tokens are
    its prompt less what was cached, and its completion, spread evenly from its start to its end.
    """
    kept = _kept(connection, question)
    if not kept:
        return {}
    dialect = connection.dialect.name
    keys = [dimension(name, dialect) for name in question.by]
    began, ended = _began(dialect), _began(dialect) + USAGE.c.duration_ms / 1000
    first, last = _interval(began, dialect), _interval(ended, dialect)
    weight = (
        func.coalesce(USAGE.c.prompt_tokens, 0)
        - func.coalesce(USAGE.c.cached_tokens, 0)
        + func.coalesce(USAGE.c.completion_tokens, 0)
    )
    active = (USAGE.c.host.is_not(None), weight > 0)
    margin = Question(
        since=None if question.since is None else question.since - _LONGEST_REQUEST,
        until=None if question.until is None else question.until + timedelta(seconds=INTERVAL),
    )
    # Nearly every request lies within one interval: those the database adds up by itself.
    shares: Shares = defaultdict(float)
    inside = select(USAGE.c.host, first.label("start"), func.sum(weight)).where(
        *active, first == last, *conditions(margin)
    )
    for host, at, tokens in connection.execute(inside.group_by(USAGE.c.host, "start")):
        shares[host, int(at) * INTERVAL] += float(tokens)
    across = select(began, ended, USAGE.c.host, weight, USAGE.c.time, *keys).where(
        *active, first != last, *conditions(margin)
    )
    crossing = []
    for row in connection.execute(across):
        for at, tokens in _spread(float(row[0]), float(row[1]), float(row[3])):
            shares[row[2], at] += tokens
            if _within(row[4], question):
                crossing.append((tuple(row[5:]), row[2], at, tokens))
    each_token = {
        place: joules / shares[place]
        for place, (joules, _source) in kept.items()
        if shares.get(place, 0) > 0
    }
    found: dict[Key, Energy] = defaultdict(Energy)
    for key, host, at, tokens in crossing:
        if (host, at) in each_token:
            _add(found[key], each_token[host, at] * tokens, tokens, kept[host, at][1])
    rates = _rates(connection, each_token, kept)
    query = (
        select(
            *keys,
            rates.c.source,
            func.sum(weight * rates.c.joules),
            func.sum(weight),
        )
        .join(rates, (rates.c.host == USAGE.c.host) & (rates.c.interval == first))
        .where(*active, first == last, *conditions(question))
        .group_by(*(key.name for key in keys), rates.c.source)
    )
    for row in connection.execute(query):
        *group, source, joules, tokens = row
        _add(found[tuple(group)], float(joules or 0), float(tokens or 0), str(source))
    return dict(found)


def together(shares: Iterable[Energy]) -> Energy | None:
    """Return the sum of shares; None of none."""
    total = None
    for each in shares:
        total = total or Energy()
        total.joules += each.joules
        total.tokens += each.tokens
        total.sources |= each.sources
    return total


def drawn(connection: Connection, question: Question) -> float | None:
    """Return the joules of all hosts in the time asked for, idle or not; None if none is known."""
    until = None if question.until is None else question.until.timestamp()
    kept = [
        joules
        for (_host, start), (joules, _source) in _kept(connection, question).items()
        if until is None or start < until
    ]
    return sum(kept) if kept else None


def _window(connection: Connection, question: Question) -> tuple[int, int] | None:
    """Return the first interval's start and the end of the last that is complete."""
    since = question.since or connection.scalar(select(func.min(USAGE.c.time)))
    if since is None:
        return None
    until = datetime.now(UTC) - timedelta(seconds=_SCRAPED_AFTER)
    if question.until is not None:
        until = min(until, question.until + timedelta(seconds=INTERVAL))
    start, end = (int(_utc(each).timestamp()) // INTERVAL * INTERVAL for each in (since, until))
    return (start, end) if start < end else None


def _kept(connection: Connection, question: Question) -> dict[tuple[str, int], tuple[float, str]]:
    window = _window(connection, question)
    if window is None:
        return {}
    start, end = window
    query = select(ENERGY).where(ENERGY.c.start >= start, ENERGY.c.start < end)
    return {(row.host, row.start): (row.joules, row.source) for row in connection.execute(query)}


def _keep(engine: Engine, rows: Sequence[dict[str, object]]) -> None:
    if not rows:
        return
    # Two reports at one time find the same; whoever is first has written it.
    dialect = postgresql if engine.dialect.name == "postgresql" else sqlite
    with engine.begin() as connection:
        connection.execute(dialect.insert(ENERGY).on_conflict_do_nothing(), rows)


def _runs(starts: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each run of neighbours."""
    run: list[int] = []
    for at in starts:
        if run and (at != run[-1] + INTERVAL or len(run) == _STEPS_AT_ONCE):
            yield run[0], run[-1]
            run = []
        run.append(at)
    if run:
        yield run[0], run[-1]


def _began(dialect: str) -> ColumnElement[float]:
    """Return a request's start as Unix seconds."""
    if dialect == "sqlite":
        return (func.julianday(USAGE.c.time, type_=Float) - _EPOCH_JULIAN) * 86400.0
    return cast(extract("epoch", USAGE.c.time), Float)


def _interval(moment: ColumnElement[float], dialect: str) -> ColumnElement[int]:
    """Return the number of the interval that a moment lies in."""
    divided = moment / float(INTERVAL)
    # PostgreSQL rounds where it casts, SQLite cuts off.
    return cast(func.floor(divided) if dialect != "sqlite" else divided, BigInteger)


def _spread(began: float, ended: float, tokens: float) -> Iterator[tuple[int, float]]:
    """Yield the intervals of one request with their part of its tokens."""
    at = int(began) // INTERVAL * INTERVAL
    while at < ended:
        part = min(ended, at + INTERVAL) - max(began, at)
        yield at, tokens * part / (ended - began)
        at += INTERVAL


def _within(moment: datetime, question: Question) -> bool:
    moment = _utc(moment)
    return (question.since is None or moment >= question.since) and (
        question.until is None or moment < question.until
    )


def _utc(moment: datetime) -> datetime:
    """Return a moment with its zone: SQLite keeps none."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _add(energy: Energy, joules: float, tokens: float, source: str) -> None:
    energy.joules += joules
    energy.tokens += tokens
    energy.sources.update(source.split("+"))


def _rates(
    connection: Connection,
    each_token: dict[tuple[str, int], float],
    kept: dict[tuple[str, int], tuple[float, str]],
) -> Table:
    """Hand the joules of a token to the database, for the length of this connection."""
    table = Table(
        "usage_rates",
        MetaData(),
        Column("host", String(256), primary_key=True),
        Column("interval", Integer, primary_key=True),
        Column("joules", Float),
        Column("source", String(32)),
        prefixes=["TEMPORARY"],
    )
    table.drop(connection, checkfirst=True)
    table.create(connection)
    rows = [
        {
            "host": host,
            "interval": at // INTERVAL,
            "joules": joules,
            "source": kept[host, at][1],
        }
        for (host, at), joules in each_token.items()
    ]
    if rows:
        connection.execute(insert(table), rows)
    return table
