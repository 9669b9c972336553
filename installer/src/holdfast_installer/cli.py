"""The holdfast command: wiring only. Each capability brings its own click command."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from holdfast_installer.console import console
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Sequence

# In the order in which an operator meets them. Modules are imported when their command runs, so
# that `holdfast --help` answers at once.
COMMANDS = {
    "init": ("holdfast_installer.init:init", "Write a commented site.yml."),
    "bundle": ("holdfast_installer.bundle.command:bundle", "Collect and prove what a site needs."),
    "lab": ("holdfast_installer.lab.command:lab", "Boot a sealed practice cluster."),
    "survey": ("holdfast_installer.survey.command:survey", "Look at the hosts."),
    "plan": ("holdfast_installer.plan_command:plan", "Say what apply would do, and what bars it."),
    "apply": ("holdfast_installer.converge.command:apply", "Make the hosts a site."),
    "scale": (
        "holdfast_installer.serving.scale_command:scale",
        "Serve a model with more or fewer replicas.",
    ),
    "rollout": (
        "holdfast_installer.serving.rollout_command:rollout",
        "Go to another revision of a model by way of a canary.",
    ),
    "audit": ("holdfast_installer.audit.command:audit", "Observe the controls on running hosts."),
    "model": ("holdfast_installer.model.command:model", "Models: import, look, approve."),
    "user": ("holdfast_installer.principals:user", "People who use the site."),
    "team": ("holdfast_installer.principals:team", "Teams and who is in them."),
    "token": ("holdfast_installer.principals:token", "Tokens that open the site's services."),
    "agent": ("holdfast_installer.principals:agent", "Programs that act for a user, for hours."),
    "kill": ("holdfast_installer.principals:kill", "Stop something at once, with all in flight."),
    "usage": ("holdfast_installer.usage_command:usage", "Requests, tokens, cost and energy."),
    "budget": ("holdfast_installer.budget_command:budget", "What is left of the budgets."),
    "ledger": ("holdfast_installer.principals:ledger", "The site's append-only record."),
    "ca": ("holdfast_installer.principals:ca", "The certificate of the site's own authority."),
    "up": ("holdfast_installer.local.command:up", "Run everything on this machine, without root."),
    "down": ("holdfast_installer.local.command:down", "Stop what `up` started."),
    "status": ("holdfast_installer.status.command:status", "Say what runs, and why what does not."),
    "quickstart": ("holdfast_installer.quickstart:quickstart", "The whole way, in a practice lab."),
}


class LazyGroup(click.Group):
    """A click group whose subcommands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands in the order an operator meets them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the subcommand, or None where there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup)
@click.version_option(package_name="holdfast-installer")
def main_group() -> None:
    """Turn bare Debian hosts into a sovereign AI platform, with no route out.

    \b
    On the connected side:   holdfast init, bundle lock, bundle build, bundle verify
    On the site:             holdfast survey, plan, apply, audit
    To practise both:        holdfast quickstart

    Exit codes: 0 done, 1 failed, 2 usage, 3 refused with findings.
    """  # noqa: D301 - \b is click's mark for text to leave as it is


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and turn a HoldfastError into words and its exit code."""
    try:
        main_group.main(args=arguments, prog_name="holdfast", standalone_mode=True)
    except HoldfastError as error:
        # A host's name stands in square brackets, and what a host said may hold any.
        said = escape(click.unstyle(str(error)))
        console.print(f"[bold red]holdfast:[/bold red] {said}", soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
