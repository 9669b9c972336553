"""The profiles shipped: each is valid, complete for its kind, and none is left out of the Site."""

from __future__ import annotations

import typing
from itertools import product

import pytest
from site_parts import DATA, example_site

import holdfast_profiles
from holdfast_installer.profiles import compose, hardware_profile, load_layer
from holdfast_installer.site import HardwareChoice, Level

OFFLINE = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_PLUGINS": "",
}
EXAMPLE = (DATA / "site-example.yml").read_text()


def test_the_shipped_names() -> None:
    assert holdfast_profiles.names("jurisdiction") == ("de", "fr", "in", "us-ma")
    assert set(holdfast_profiles.names("level")) == set(typing.get_args(Level))
    hardware = set(typing.get_args(HardwareChoice)) - {"auto"}
    assert set(holdfast_profiles.names("hardware")) == hardware
    assert holdfast_profiles.names("no-such-kind") == ()


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(KeyError, match="baseline, restricted, sealed"):
        holdfast_profiles.read("level", "secret")


@pytest.mark.parametrize("name", holdfast_profiles.names("hardware"))
def test_hardware_is_complete_and_shut_off_from_the_outside(name: str) -> None:
    profile = hardware_profile(name)
    assert {key: profile.vllm.env.get(key) for key in OFFLINE} == OFFLINE
    assert profile.wheels.requirements
    assert all("==" in requirement for requirement in profile.wheels.requirements)
    assert all(profile.wheels.exclude.values()), "an exclusion without a reason"


@pytest.mark.parametrize(
    ("jurisdiction", "level", "hardware"),
    list(
        product(
            holdfast_profiles.names("jurisdiction"),
            holdfast_profiles.names("level"),
            holdfast_profiles.names("hardware"),
        )
    ),
)
def test_every_combination_composes(jurisdiction: str, level: str, hardware: str) -> None:
    text = EXAMPLE.replace("jurisdiction: de", f"jurisdiction: {jurisdiction}")
    site = example_site(text.replace("level: restricted", f"level: {level}"))
    effective = compose(site, hardware)
    assert effective.egress_default == "deny"
    assert effective.permitted_jurisdictions == (jurisdiction,)


@pytest.mark.parametrize("kind", ["hardware", "jurisdiction", "level"])
def test_a_basis_is_given_only_for_what_the_layer_says(kind: str) -> None:
    for name in holdfast_profiles.names(kind):
        layer = load_layer(kind, name)  # type: ignore[arg-type]  # kinds are listed above
        assert all(getattr(layer, key) is not None for key in layer.basis)
