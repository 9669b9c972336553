"""The command holdfast-gateway: options, a call, and what people see."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import click
from sqlalchemy.exc import SQLAlchemyError

from holdfast_gateway import config as configuration
from holdfast_gateway import server, services
from holdfast_gateway.metering.usage import UsageStore, UsageSum
from holdfast_trust.errors import TrustError

_CONFIG = click.option(
    "--config",
    "config_file",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The gateway's configuration (YAML).",
)


@click.group()
@click.version_option(package_name="holdfast-gateway")
def main() -> None:
    """Serve an OpenAI-compatible API in front of a site's models, and count its use."""


@main.command()
@_CONFIG
@click.option("--listen", metavar="ADDRESS:PORT", help="Serve here instead of where FILE says.")
def serve(config_file: Path, listen: str | None) -> None:
    """Serve until SIGTERM."""
    config = _load(config_file, listen)
    try:
        services.check(config)
    except (TrustError, SQLAlchemyError, OSError) as error:
        _fail(f"the gateway cannot start with {config_file}\n{_reason(error)}")
    try:
        server.check_address(config)
    except OSError as error:
        _fail(f"{config.listen} cannot be listened on\n{_reason(error)}")
    server.serve(config)


@main.command()
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def usage(config_file: Path, *, as_json: bool) -> None:
    """Show requests and tokens per model and principal."""
    config = _load(config_file, None)
    store = UsageStore(config.database)
    try:
        store.create_schema()
        sums = store.sums()
    except (SQLAlchemyError, OSError) as error:
        _fail(f"the usage database named in {config_file} cannot be read\n{_reason(error)}")
    finally:
        store.close()
    click.echo(json.dumps([asdict(each) for each in sums], indent=2) if as_json else _table(sums))


def _load(config_file: Path, listen: str | None) -> configuration.Config:
    try:
        return configuration.load(config_file, listen=listen)
    except configuration.ConfigError as error:
        _fail(str(error), exit_code=2)


def _fail(message: str, *, exit_code: int = 1) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(exit_code)


def _reason(error: Exception) -> str:
    """Return an error's own words, without SQLAlchemy's statement and link."""
    return f"  why: {getattr(error, 'orig', None) or error}"


def _table(sums: list[UsageSum]) -> str:
    head = ["model", "principal", "requests", "aborted", "errors", "prompt", "cached", "completion"]
    rows = [
        [
            each.model,
            each.principal,
            *(
                str(number)
                for number in (
                    each.requests,
                    each.aborted,
                    each.error,
                    each.prompt_tokens,
                    each.cached_tokens,
                    each.completion_tokens,
                )
            ),
        ]
        for each in sums
    ]
    widths = [max(len(line[at]) for line in [head, *rows]) for at in range(len(head))]
    lines = []
    for line in [head, *rows]:
        names = [line[at].ljust(widths[at]) for at in (0, 1)]
        numbers = [line[at].rjust(widths[at]) for at in range(2, len(head))]
        lines.append("  ".join(names + numbers))
    return "\n".join(lines)
