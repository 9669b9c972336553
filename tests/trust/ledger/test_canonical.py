"""The fast way to canonical JSON writes what the slow one does, byte for byte."""

from __future__ import annotations

import random
from typing import Any

import pytest
import rfc8785

from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import files

SIGNS = [*map(chr, range(0x100)), "\u2028", "\u2029", "\ufeff", "\uffff", "€", "😀", '"', "\\", "/"]


def made(random_: random.Random) -> dict[str, Any]:
    def text() -> str:
        return "".join(random_.choices(SIGNS, k=random_.randrange(12)))

    values = [
        text,
        lambda: random_.choice([True, False, None]),
        lambda: random_.randint(-(2**53) + 1, 2**53 - 1),
        lambda: [text() for _ in range(random_.randrange(4))],
    ]
    names = ["a", "A", "b_1", "Z z", '"', "\\", "\n", "", "request_id", "10", "9"]
    return {name: random_.choice(values)() for name in random_.sample(names, 6)}


def test_both_ways_write_the_same() -> None:
    random_ = random.Random(8785)
    for _ in range(3000):
        event = made(random_)
        assert files._plain(event) == rfc8785.dumps(event)


@pytest.mark.parametrize("value", [0.5, 1.0, 2**53, -(2**53), {"a": 1}, [1], [["a"]], [None], (1,)])
def test_what_is_not_plain_goes_the_slow_way(value: object) -> None:
    assert files._plain({"a": value}) is None


def test_names_beyond_ascii_go_the_slow_way() -> None:
    # RFC 8785 sorts by UTF-16: beyond the first plane that is another order.
    event = {"\U0001f600": 1, "\ufb33": 2}
    assert files._plain(event) is None
    assert files.canonical(event) == rfc8785.dumps(event)


@pytest.mark.parametrize("event", [{"a": "\ud800"}, {"a": 2**53}, {"a": float("nan")}])
def test_what_is_no_plain_json_is_refused_either_way(event: dict[str, Any]) -> None:
    with pytest.raises(TrustError, match="cannot be put on the ledger"):
        files.canonical(event)
