"""What the shipped profiles ask bundles to carry."""

from __future__ import annotations

from pathlib import Path

import ansible_collections
import pytest
from packaging.requirements import Requirement
from site_parts import DATA, example_site

from holdfast_installer.bundle import sources
from holdfast_installer.errors import HoldfastError

EXAMPLE = (DATA / "site-example.yml").read_text()


def roles() -> set[str]:
    [collections] = ansible_collections.__path__
    return {each.name for each in (Path(collections) / "holdfast/platform/roles").iterdir()}


def test_packages_stand_under_the_role_that_needs_them() -> None:
    debian = sources.software().debian
    assert set(debian) <= roles()
    assert all(debian.values())


def test_every_requirement_of_the_platform_is_pinned_or_a_tool_of_ours() -> None:
    for name, environment in sources.software().environments.items():
        for line in environment.requirements:
            exact = str(Requirement(line).specifier).startswith("==")
            assert exact or name == "installer-tools", line


def test_auto_stands_for_the_cpu_profile_and_is_undecided() -> None:
    site = example_site()
    assert sources.is_undecided(site)
    assert sources.hardware_of_site(site) == ("cpu-low-power",)
    assert sources.hardware_of_site(site, ["gpu-nvidia"]) == ("gpu-nvidia",)


def test_a_named_profile_is_what_is_carried() -> None:
    site = example_site(EXAMPLE.replace("hardware: auto", "hardware: gpu-nvidia"))
    assert not sources.is_undecided(site)
    assert sources.hardware_of_site(site) == ("gpu-nvidia",)


def test_a_site_asks_for_the_platform_its_hardware_and_its_models() -> None:
    site = example_site()
    asked = sources.sources_from_site(site, ("cpu-low-power", "gpu-nvidia"), base=DATA)
    assert set(asked.environments) == {
        *("platform", "installer", "installer-tools", "vllm-cpu-low-power", "vllm-gpu-nvidia")
    }
    assert {"libnuma1", "g++", "unbound", "haproxy"} <= set(asked.debian)
    assert len(asked.debian) == len(set(asked.debian))
    assert [model.id for model in asked.models] == [model.id for model in site.models]
    for model in asked.models:
        assert not model.source.startswith("."), "a folder must be found from anywhere"


def test_wheels_for_another_python_than_the_releases_are_refused() -> None:
    with pytest.raises(HoldfastError, match="gpu-amd cannot be bundled for Debian bookworm"):
        sources.sources_from_site(example_site(), ("gpu-amd",), base=DATA)


def test_an_unknown_profile_is_named_with_those_there_are() -> None:
    with pytest.raises(HoldfastError, match="no hardware profile 'gpu-voodoo'") as refusal:
        sources.sources_from_site(example_site(), ("gpu-voodoo",), base=DATA)
    assert "cpu-low-power" in refusal.value.cause
