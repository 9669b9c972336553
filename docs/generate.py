"""Write docs/reference/ from the commands and the Site themselves; `make docs` runs it.

A test runs it with --check, so that a command, an option or a field without documentation fails.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from holdfast_installer.cli import COMMANDS, main_group
from holdfast_installer.site import Site

REFERENCE = Path(__file__).parent / "reference"
HEAD = """# Commands

Written by `make docs` from the commands' own help. Exit codes: 0 done, 1 failed, 2 usage, 3 refused
with findings.
"""


def sections(command: click.Command, path: tuple[str, ...]) -> list[str]:
    """Return the help of a command and of all its subcommands, a section each."""
    context = click.Context(command, info_name=" ".join(path), max_content_width=100)
    lines = [f"## {' '.join(path)}", "", "```", command.get_help(context), "```", ""]
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            lines += sections(inner, (*path, name))
    return lines


def commands() -> str:
    """Return the page of the commands."""
    lines = [HEAD]
    for name in COMMANDS:
        command = main_group.get_command(click.Context(main_group), name)
        if command is None:
            raise LookupError(name)
        lines += sections(command, ("holdfast", name))
    return "\n".join(lines)


def main() -> int:
    """Write the files, or with --check say whether they are as they should be."""
    wanted = {
        "commands.md": commands(),
        "site.schema.json": json.dumps(Site.model_json_schema(), indent=2) + "\n",
    }
    if "--check" not in sys.argv[1:]:
        for name, content in wanted.items():
            (REFERENCE / name).write_text(content)
        return 0
    stale = [name for name, content in wanted.items() if (REFERENCE / name).read_text() != content]
    if stale:
        sys.stderr.write(f"{', '.join(stale)}: not what the code says; run `make docs`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
