"""The recommendation follows what was seen, and says why; unread recommends nothing."""

from __future__ import annotations

import pytest
from site_parts import facts

from holdfast_installer.survey.facts import UNREAD, Cpu, Gpu
from holdfast_installer.survey.recommend import recommend


def gpu(vendor: str, memory: object = 80 * 1024**3) -> Gpu:
    return Gpu.model_validate(
        {
            "vendor": vendor,
            "model": f"{vendor} card",
            "memory_bytes": memory,
            "driver": "1",
            "identity": "0",
        }
    )


@pytest.mark.parametrize("vendor", ["nvidia", "amd", "intel"])
def test_a_working_gpu_gives_its_profile(vendor: str) -> None:
    advice = recommend(facts(gpus=(gpu(vendor), gpu(vendor))))
    assert advice.profile == f"gpu-{vendor}"
    assert f"2 x {vendor} card" in advice.reason


def test_a_cpu_with_avx2_gives_the_cpu_profile() -> None:
    advice = recommend(facts())
    assert advice.profile == "cpu-low-power"
    assert "avx2" in advice.reason


def test_a_gpu_without_driver_is_mentioned_and_not_used() -> None:
    advice = recommend(facts(gpus=(gpu("nvidia", UNREAD),)))
    assert advice.profile == "cpu-low-power"
    assert "its driver's tool is not" in advice.reason


def test_an_old_cpu_fits_nothing() -> None:
    old = Cpu(model="Atom", vendor="Intel", threads=4, sockets=1, flags=("sse2",))
    advice = recommend(facts(cpu=old))
    assert advice.profile == ""
    assert "avx2" in advice.reason


@pytest.mark.parametrize("fact", ["gpus", "cpu"])
def test_unread_recommends_nothing(fact: str) -> None:
    assert recommend(facts(**{fact: UNREAD})).profile == ""


def test_a_host_that_was_not_reached_recommends_nothing() -> None:
    assert recommend(facts(reach="unreachable")).profile == ""
