"""The command holdfast-gateway: options, a call, and what people see."""

from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from holdfast_gateway import server, services
from holdfast_gateway.budgets.command import budgets
from holdfast_gateway.metering.command import usage
from holdfast_gateway.metering.schema import SchemaError
from holdfast_gateway.terminal import config_option, fail, load_config, reason
from holdfast_trust.errors import TrustError


@click.group()
@click.version_option(package_name="holdfast-gateway")
def main() -> None:
    """Serve an OpenAI-compatible API in front of a site's models, and count its use."""


@main.command()
@config_option
@click.option("--listen", metavar="ADDRESS:PORT", help="Serve here instead of where FILE says.")
@click.option(
    "--hand-over",
    is_flag=True,
    help="On SIGTERM end when the port is free; a child process finishes the running requests.",
)
def serve(config_file: Path, listen: str | None, *, hand_over: bool) -> None:
    """Serve until SIGTERM."""
    config = load_config(config_file, listen)
    try:
        services.check(config)
    except (TrustError, SchemaError, SQLAlchemyError, OSError) as error:
        fail(f"the gateway cannot start with {config_file}\n{reason(error)}")
    try:
        # A predecessor that was killed leaves a worker behind, which closes its door first.
        patience = config.limits.leave_seconds + 5 if hand_over else 0
        server.check_address(config, patience=patience)
    except OSError as error:
        fail(f"{config.listen} cannot be listened on\n{reason(error)}")
    server.serve(config, hand_over=hand_over)


main.add_command(budgets)
main.add_command(usage)
