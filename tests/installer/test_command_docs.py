"""A command, an option or a capability without documentation fails here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from holdfast_installer.cli import COMMANDS, main_group

ROOT = Path(__file__).parents[2]


def commands(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        return [
            found
            for name, inner in command.commands.items()
            for found in commands(inner, f"{path} {name}")
        ]
    return [(path, command)]


def every_command() -> list[tuple[str, click.Command]]:
    found = []
    for name in COMMANDS:
        command = main_group.get_command(click.Context(main_group), name)
        assert command is not None
        found += commands(command, f"holdfast {name}")
    return found


def test_the_reference_is_what_the_commands_say() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("path", "command"), every_command(), ids=lambda value: str(value)[:40])
def test_every_option_says_what_it_is_for(path: str, command: click.Command) -> None:
    assert command.help, path
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "help":
            assert parameter.help, f"{path} {parameter.name}"


def test_every_page_is_reachable_from_the_map() -> None:
    pages = {page.name for page in (ROOT / "docs/capabilities").glob("*.md")}
    index = (ROOT / "docs/capabilities/README.md").read_text()
    assert {page for page in pages if page not in index and page != "README.md"} == set()


def test_no_help_shows_its_own_marks() -> None:
    texts = {path: command.get_help(click.Context(command)) for path, command in every_command()}
    assert len(texts) > 20
    assert [path for path, text in texts.items() if "\\b" in text] == []
