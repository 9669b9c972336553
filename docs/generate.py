"""Write docs/reference/commands.md from the commands themselves; `make docs` runs it.

A test runs it with --check, so that a command or an option without documentation fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from holdfast_installer.cli import COMMANDS, main_group

TARGET = Path(__file__).parent / "reference" / "commands.md"
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


def text() -> str:
    """Return the whole page."""
    lines = [HEAD]
    for name in COMMANDS:
        command = main_group.get_command(click.Context(main_group), name)
        if command is None:
            raise LookupError(name)
        lines += sections(command, ("holdfast", name))
    return "\n".join(lines)


def main() -> int:
    """Write the page, or with --check say whether it is as it should be."""
    wanted = text()
    if "--check" in sys.argv[1:]:
        if TARGET.read_text() == wanted:
            return 0
        sys.stderr.write(f"{TARGET} is not what the commands say; run `make docs`\n")
        return 1
    TARGET.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
