from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_hub_protocol.ranges import ByteRange, UnsatisfiableRangeError, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", ByteRange(0, 0)),
        ("bytes=0-", ByteRange(0, 9)),
        ("bytes=4-5", ByteRange(4, 5)),
        ("bytes=4-99", ByteRange(4, 9)),
        ("bytes=-3", ByteRange(7, 9)),
        ("bytes=-99", ByteRange(0, 9)),
        ("bytes=9-9999999999999999999", ByteRange(9, 9)),
    ],
)
def test_satisfiable(header: str, expected: ByteRange) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "bytes", "bytes=", "bytes=-", "bytes=5-4", "bytes=a-b", "bytes=0-1,3-4"),
        *("items=0-1", "bytes=+1-2", "bytes=\u0663-\u0664", "bytes=0-1\n", "bytes=0--1"),
        f"bytes=0-{'9' * 40}",
    ],
)
def test_what_may_be_ignored_is(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_past_the_end(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, 10)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_file_has_no_range(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, 0)


@given(st.text(max_size=20) | st.from_regex(r"bytes=[0-9-]{0,12}"), st.integers(0, 1 << 45))
def test_whatever_comes_a_range_lies_within_the_file(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except UnsatisfiableRangeError:
        return
    assert found is None or (0 <= found.first <= found.last < size)
