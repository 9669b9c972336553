"""The command holdfast-console: options, a call, and what people see."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from holdfast_console import serving
from holdfast_console.settings import read_settings
from holdfast_trust.errors import TrustError

_PATH = click.Path(path_type=Path)


@click.group()
@click.version_option(package_name="holdfast-console")
def main() -> None:
    """Show a site's models in a browser, and let reviewers approve them."""


@main.command()
@click.option("--registry", metavar="URL", help="Where this process reaches the model registry.")
@click.option("--listen", metavar="ADDRESS:PORT", help="Where to serve; 127.0.0.1:8103.")
@click.option("--public-url", metavar="URL", help="Where browsers reach it; http://LISTEN.")
@click.option("--hub-url", metavar="URL", help="What clients set as HF_ENDPOINT; the registry's.")
@click.option("--secret-file", type=_PATH, metavar="FILE", help="32 random bytes: seals sessions.")
@click.option("--config", type=_PATH, metavar="FILE", help="YAML with these options as keys.")
def serve(config: Path | None, **options: Any) -> None:  # noqa: ANN401 - checked by Settings
    """Serve until SIGTERM.

    \b
    holdfast-console serve --registry http://127.0.0.1:8101
    """  # noqa: D301 - \b is click's mark for text to leave as it is
    try:
        serving.serve(read_settings(config, options))
    except TrustError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
