"""What the commands share: the configuration's option, and how a failure is told."""

import sys
from pathlib import Path
from typing import NoReturn

import click

from holdfast_gateway import config as configuration

config_option = click.option(
    "--config",
    "config_file",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The gateway's configuration (YAML).",
)


def load_config(config_file: Path, listen: str | None = None) -> configuration.Config:
    """Read the configuration; end the process with 2 if it cannot be used."""
    try:
        return configuration.load(config_file, listen=listen)
    except configuration.ConfigError as error:
        fail(str(error), exit_code=2)


def fail(message: str, *, exit_code: int = 1) -> NoReturn:
    """Say what is wrong and end the process."""
    click.echo(f"error: {message}", err=True)
    sys.exit(exit_code)


def reason(error: Exception) -> str:
    """Return an error's own words, without SQLAlchemy's statement and link."""
    return f"  why: {getattr(error, 'orig', None) or error}"
