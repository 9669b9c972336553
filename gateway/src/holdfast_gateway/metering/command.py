"""The command holdfast-gateway usage."""

import json
import sys
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import click
from sqlalchemy.exc import SQLAlchemyError

from holdfast_gateway.config import Config
from holdfast_gateway.metering import energy
from holdfast_gateway.metering.agreement import Agreement, agreements
from holdfast_gateway.metering.capacity import replica_hours
from holdfast_gateway.metering.monitoring import Monitoring, MonitoringError
from holdfast_gateway.metering.printing import FORMS, Report
from holdfast_gateway.metering.reports import DIMENSIONS, Question, sums
from holdfast_gateway.metering.schema import SchemaError
from holdfast_gateway.metering.usage import UsageStore
from holdfast_gateway.terminal import config_option, fail, load_config, reason

_REFUSED = 3  # done, and something does not hold
_SCRAPED_AFTER = 30  # seconds until Prometheus has what replicas counted
_SPANS: Final = {"h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[datetime]):
    """A day, a moment, or how long ago, in UTC."""

    name = "moment"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read 2026-11-20, 2026-11-20T08:00, 2026-11-20T08:00+01:00, 24h, 7d or 2w."""
        text = str(value)
        if text[:-1].isdigit() and text[-1:] in _SPANS:
            try:
                return datetime.now(UTC) - timedelta(**{_SPANS[text[-1]]: int(text[:-1])})
            except OverflowError:
                self.fail(f"{text} is too long ago", param, ctx)
        try:
            if len(text) == len("2026-11-20"):
                day = date.fromisoformat(text)
                return datetime(day.year, day.month, day.day, tzinfo=UTC)
            found = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is not like 2026-11-20, 2026-11-20T08:00 or 7d", param, ctx)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _dimensions(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name for name in value.replace(" ", "").split(",") if name)
    for name in names:
        if name not in DIMENSIONS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(DIMENSIONS)}")
    return tuple(dict.fromkeys(names))


@click.command()
@config_option
@click.option(
    "--by",
    default="model,user",
    show_default=True,
    callback=_dimensions,
    metavar="NAME,...",
    help=f"Add up by these: {', '.join(DIMENSIONS)}; an empty text gives one sum.",
)
@click.option("--since", type=Moment(), help="From then on: 2026-11-20, 2026-11-20T08:00, 24h, 7d.")
@click.option("--until", type=Moment(), help="Before then.")
@click.option("--format", "form", type=click.Choice(sorted(FORMS)), default="table")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--check",
    is_flag=True,
    help="Compare with the replicas' own counters instead; without --since of the last day.",
)
def usage(  # noqa: PLR0913  # one parameter for each option
    config_file: Path,
    *,
    by: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    form: str,
    as_json: bool,
    check: bool,
) -> None:
    """Add up requests, tokens, cost and energy, by model and user or as you say.

    Times are UTC and those at which requests began. With --check it ends with 3 where the table and
    the replicas disagree without a reason that the table shows, or where they cannot be read.
    """
    config = load_config(config_file)
    question = Question(by, since, until)
    store = UsageStore(config.database)
    try:
        store.create_schema()
        if check:
            _check(store, config, question, as_json=as_json or form == "json")
        else:
            click.echo(FORMS["json" if as_json else form](report(store, config, question)).rstrip())
    except (SQLAlchemyError, SchemaError, OSError) as error:
        fail(f"the usage database named in {config_file} cannot be read\n{reason(error)}")
    except MonitoringError as error:
        fail(f"Prometheus, named in {config_file}, cannot be read\n{reason(error)}")
    finally:
        store.close()


def report(store: UsageStore, config: Config, question: Question) -> Report:
    """Add everything up; what Prometheus cannot say is unknown, and a note says why."""
    notes = []
    hours: dict[str, float] = {}
    if config.prometheus is None:
        notes.append("energy and capacity are unknown: no 'prometheus' in the configuration")
    else:
        monitoring = Monitoring(config.prometheus)
        try:
            energy.collect(store.engine, monitoring, question)
            hours = replica_hours(store.engine, monitoring, question)
        except MonitoringError as error:
            notes.append(f"what Prometheus has not told before is unknown: {error}")
    with store.engine.begin() as connection:
        rows = sums(connection, question)
        total = next(iter(sums(connection, replace(question, by=()))), None)
        apportioned = energy.apportion(connection, question)
        drawn = energy.drawn(connection, question)
    for each in rows:
        each.energy = apportioned.get(each.key)
        if question.by == ("model",) and each.key[0] is not None:
            each.replica_hours = hours.get(each.key[0])
    if total is not None:
        total.energy = energy.together(apportioned.values())
        total.replica_hours = sum(hours.values()) if hours else None
    if rows and drawn is None and not notes:
        notes.append("energy is unknown: no host told Prometheus of any")
    return Report(question.by, question.since, question.until, rows, total, drawn, tuple(notes))


def _check(store: UsageStore, config: Config, question: Question, *, as_json: bool) -> None:
    if config.prometheus is None:
        fail("the replicas' counters cannot be read\n  why: no 'prometheus' in the configuration")
    now = datetime.now(UTC)
    question = replace(
        question,
        since=question.since or now - timedelta(days=1),
        until=question.until or now - timedelta(seconds=_SCRAPED_AFTER),
    )
    with store.engine.connect() as connection:
        found = agreements(connection, Monitoring(config.prometheus), question)
    if as_json:
        click.echo(json.dumps([_plain(each) for each in found], indent=2))
    else:
        for each in found:
            counted = "?" if each.replicas is None else str(each.replicas)
            line = f"{each.verdict:<9}  {each.model}  {each.kind}: table {each.table}"
            line += f", replicas {counted}"
            if each.difference:
                line += f", {each.difference:+d}"
            click.echo(f"{line}: {each.why}" if each.why else line)
    if any(each.verdict in {"differ", "unread"} for each in found):
        sys.exit(_REFUSED)


def _plain(each: Agreement) -> dict[str, object]:
    return asdict(each) | {
        "difference": each.difference,
        "verdict": each.verdict,
        "why": each.why,
    }
