from __future__ import annotations

from decimal import Decimal

import pytest
from pydantic import ValidationError

from holdfast_gateway.metering.tariff import Tariff, cost, most
from holdfast_gateway.metering.tokens import Tokens

TARIFF = Tariff(prompt=Decimal("0.15"), cached=Decimal("0.075"), completion=Decimal("0.6"))


@pytest.mark.parametrize(
    ("tokens", "micro"),
    [
        (Tokens(1_000_000, 0, 0), 150_000),
        (Tokens(1_000_000, 400_000, 0), 90_000 + 30_000),
        (Tokens(1_000_000, 2_000_000, 0), 75_000),  # more cached than there are: not below zero
        (Tokens(0, 0, 1_000_000), 600_000),
        (Tokens(1, None, 0), 1),  # rounded up: a hundred small requests are not free
        (Tokens(20, None, 5), 6),
        (Tokens(21, None, 5), 7),
        (Tokens(None, None, None), 0),
    ],
)
def test_the_sum_is_exact_and_rounded_up(tokens: Tokens, micro: int) -> None:
    assert cost(tokens, TARIFF) == micro


def test_cached_tokens_cost_as_others_without_a_price_of_their_own() -> None:
    tariff = Tariff(prompt=Decimal(2), completion=Decimal(0))
    assert cost(Tokens(10, 10, 0), tariff) == 20


def test_the_most_is_never_below_the_cost_whatever_the_cache_finds() -> None:
    dear = Tariff(prompt=Decimal(1), cached=Decimal(3), completion=Decimal(2))
    assert most(10, 1, dear) == 32
    for cached in range(11):
        assert cost(Tokens(10, cached, 1), dear) <= most(10, 1, dear)
        assert cost(Tokens(10, cached, 1), TARIFF) <= most(10, 1, TARIFF)


@pytest.mark.parametrize("price", ["-1", "0.0000001", "nan"])
def test_what_is_no_price(price: str) -> None:
    with pytest.raises(ValidationError):
        Tariff.model_validate({"prompt": price, "completion": 0})
