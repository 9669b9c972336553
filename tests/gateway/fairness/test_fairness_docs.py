"""A setting of fairness without a line in its page fails here."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_gateway.config import Config, Pool
from holdfast_gateway.fairness.settings import FairnessSettings, TeamShare
from holdfast_installer.site import Fairness, Share, TeamPool

CAPABILITIES = Path(__file__).parents[3] / "docs/capabilities"
PAGE = (CAPABILITIES / "fairness.md").read_text()


@pytest.mark.parametrize("field", FairnessSettings.model_fields)
def test_every_setting_is_described_with_its_default(field: str) -> None:
    default = FairnessSettings.model_fields[field].default
    told = f"| {default:g} |" if isinstance(default, int | float) else "|"
    assert f"| `{field}` {told}" in PAGE


def test_what_is_said_of_teams_and_pools_is_described() -> None:
    for field in {*TeamShare.model_fields, *Pool.model_fields, *TeamPool.model_fields} - {
        "upstream"
    }:
        assert f"{field}:" in PAGE or f"`{field}`" in PAGE, field


def test_the_sites_fields_are_the_gateways_with_the_same_defaults() -> None:
    theirs = FairnessSettings()
    for field, value in Fairness().model_dump().items():
        assert getattr(theirs, field) == value, field
    assert Share().model_dump() == TeamShare().model_dump()
    assert "fairness" in Config.model_fields
