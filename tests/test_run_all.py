"""`make test` says it runs everything: each test is in `make check` or in exactly one group."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from run_all import GROUPS

MARKERS = ("contract", "lab", "slow")
MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text()


def selected(expression: str, marked: dict[str, bool]) -> bool:
    assert re.fullmatch(r"[a-z ]+", expression)
    return bool(eval(expression, {"__builtins__": {}}, dict(marked)))


@pytest.mark.parametrize("marks", list(product((False, True), repeat=len(MARKERS))), ids=str)
def test_every_test_runs_once(marks: tuple[bool, ...]) -> None:
    marked = dict(zip(MARKERS, marks, strict=True))
    check = re.search(r'^check:.*?pytest [^\n]*-m "([^"]+)"', MAKEFILE, re.MULTILINE | re.DOTALL)
    assert check is not None
    found = [selected(one, marked) for one in (check[1], *GROUPS.values())]
    assert found.count(True) == 1


def test_make_test_runs_what_there_is() -> None:
    for program in re.findall(r"\$\(BIN\)/python (\S+\.py)", MAKEFILE):
        assert (Path(__file__).parents[1] / program).is_file(), program
