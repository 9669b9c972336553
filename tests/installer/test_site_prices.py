"""Tariffs and watts of a site: what they may be, and what reaches the hosts."""

from __future__ import annotations

from decimal import Decimal

import pytest
from site_parts import DATA, example_site

from holdfast_installer.site_file import SiteError

EXAMPLE = (DATA / "site-example.yml").read_text()
MODEL = "holdfast/starter"


def test_prices_are_exact_to_the_last_decimal() -> None:
    tariffs = f"tariffs: {{{MODEL}: {{prompt: 0.1, cached: 0.000001, completion: 3}}}}\n"
    site = example_site(EXAMPLE + "currency: CHF\n" + tariffs)
    tariff = site.tariffs[MODEL]
    assert (tariff.prompt, tariff.cached) == (Decimal("0.1"), Decimal("0.000001"))
    # as the gateway reads them: text, never a binary fraction
    assert site.model_dump(mode="json")["tariffs"] == {
        MODEL: {"prompt": "0.1", "cached": "0.000001", "completion": "3"}
    }
    assert site.currency == "CHF"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("tariffs: {org/other: {prompt: 1, completion: 1}}", "no such model: 'org/other'; known"),
        (f"tariffs: {{{MODEL}: {{prompt: -1, completion: 1}}}}", "greater than or equal to 0"),
        (f"tariffs: {{{MODEL}: {{prompt: 0.0000001, completion: 1}}}}", "6 decimal places"),
        (f"tariffs: {{{MODEL}: {{prompt: 1}}}}", "completion"),
        ("currency: euro", "text like EUR"),
    ],
)
def test_what_they_may_not_be(more: str, expected: str) -> None:
    with pytest.raises(SiteError) as caught:
        example_site(EXAMPLE + more + "\n")
    assert any(expected in problem for problem in caught.value.problems), caught.value.problems


def test_watts_are_more_than_nothing() -> None:
    host = "name: serving-2"
    assert example_site(EXAMPLE.replace(host, f"{host}, watts: 450")).host("serving-2").watts == 450
    with pytest.raises(SiteError):
        example_site(EXAMPLE.replace(host, f"{host}, watts: 0"))
