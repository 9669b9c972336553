"""The frontier against RFC 6962 section 2.1 written out as it is defined there."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_trust.ledger.merkle import Frontier, leaf_hash


def mth(entries: list[bytes]) -> bytes:
    """MTH(D[n]) of the RFC: naive, recursive, sharing no code with ours."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\x01" + mth(entries[:split]) + mth(entries[split:])).digest()


@given(st.lists(st.binary(max_size=40), max_size=130))
def test_the_root_is_the_rfcs_at_every_size(entries: list[bytes]) -> None:
    frontier = Frontier()
    assert frontier.root() == mth([])
    for size, entry in enumerate(entries, start=1):
        frontier.append(leaf_hash(entry))
        assert frontier.size == size
        assert len(frontier.peaks) == size.bit_count()
    assert frontier.root() == mth(entries)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70), st.data())
def test_a_frontier_goes_on_from_what_was_kept(entries: list[bytes], data: st.DataObject) -> None:
    stop = data.draw(st.integers(0, len(entries)))
    first = Frontier()
    for entry in entries[:stop]:
        first.append(leaf_hash(entry))
    second = Frontier(first.size, first.peaks)
    for entry in entries[stop:]:
        second.append(leaf_hash(entry))
    assert second.root() == mth(entries)
    assert first.root() == mth(entries[:stop])


def test_roots_known_from_certificate_transparency() -> None:
    # The eight leaves that the reference implementation of the RFC tests with.
    leaves = ["", "00", "10", "2021", "3031", "40414243"]
    leaves += ["5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = {
        0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    frontier = Frontier()
    assert frontier.root().hex() == roots[0]
    for size, leaf in enumerate(leaves, start=1):
        frontier.append(leaf_hash(bytes.fromhex(leaf)))
        assert roots.get(size, frontier.root().hex()) == frontier.root().hex()


@pytest.mark.parametrize(
    ("size", "peaks"), [(1, ()), (2, (b"x" * 32, b"y" * 32)), (1, (b"short",)), (-1, (b"x" * 32,))]
)
def test_a_frontier_that_cannot_be_is_refused(size: int, peaks: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="subtree"):
        Frontier(size, peaks)
