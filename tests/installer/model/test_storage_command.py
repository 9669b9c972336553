from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from holdfast_installer.model import storage_command
from holdfast_installer.model.command import model

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("words", "there"),
    [
        ("gc", "gc --grace 24h"),
        ("gc --dry-run --grace 7d --json", "gc --grace 7d --dry-run --json"),
        ("check", "check"),
        (
            "check --deep --older-than 30d --at-most 2h",
            "check --deep --older-than 30d --at-most 2h",
        ),
        ("usage --json", "usage --json"),
        ("backup /srv/b --secrets --keep 7", "backup /srv/b --secrets --keep 7"),
    ],
)
def test_they_run_the_registry_s_command_and_end_like_it(
    words: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Sequence[str]] = []

    def forward(_: object, arguments: Sequence[str]) -> int:
        sent.append(arguments)
        return 3

    monkeypatch.setattr(storage_command, "load_site", lambda path: path)
    monkeypatch.setattr(storage_command, "forward", forward)
    assert CliRunner().invoke(model, words.split()).exit_code == 3
    assert [" ".join(each) for each in sent] == [there]
