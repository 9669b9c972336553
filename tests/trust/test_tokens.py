from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_trust import tokens


def test_tokens_have_256_bits_of_room_and_one_form() -> None:
    minted = {tokens.mint() for _ in range(1000)}
    assert len(minted) == 1000
    assert {len(token) for token in minted} == {4 + 43 + 6}
    assert all(token.startswith("hft_") and token[4:].isalnum() for token in minted)
    assert not any(tokens.mistyped(token) for token in minted)


@given(place=st.integers(4, 52), letter=st.sampled_from("0123456789abcxyzABCXYZ"))
def test_one_wrong_character_is_a_typo(place: int, letter: str) -> None:
    token = tokens.mint()
    wrong = token[:place] + letter + token[place + 1 :]
    assert tokens.mistyped(wrong) == (wrong != token)


@given(place=st.integers(4, 51))
def test_swapped_neighbours_are_a_typo(place: int) -> None:
    token = tokens.mint()
    wrong = token[:place] + token[place + 1] + token[place] + token[place + 2 :]
    assert tokens.mistyped(wrong) == (wrong != token)


@pytest.mark.parametrize("cut", [0, 1, 5, 6, 7, 48])
def test_a_cut_token_is_a_typo(cut: int) -> None:
    assert tokens.mistyped(tokens.mint()[: 4 + cut])


def test_what_is_not_ours_is_no_typo_of_ours() -> None:
    assert not tokens.mistyped("hf_something")
    assert not tokens.mistyped("")


@given(st.text())
def test_any_text_can_be_judged(text: str) -> None:
    tokens.mistyped(text)
    assert len(tokens.digest(text)) == 64
