"""Which hardware profile fits a host, and why."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from holdfast_installer.profiles import hardware_profile
from holdfast_installer.survey.facts import UNREAD, HostFacts

FALLBACK = "cpu-low-power"


class Recommendation(BaseModel):
    """A hardware profile, or "" where none fits, with the reason in words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    profile: str
    reason: str


def recommend(facts: HostFacts) -> Recommendation:
    """Name the hardware profile for a host from what was seen of it."""
    if facts.reach != "read":
        return Recommendation(host=facts.name, profile="", reason=f"not surveyed: {facts.reach}")
    if facts.gpus == UNREAD:
        return Recommendation(
            host=facts.name, profile="", reason="whether it has GPUs could not be read"
        )
    for gpu in facts.gpus:
        if gpu.memory_bytes == UNREAD:
            continue
        count = sum(1 for other in facts.gpus if other.vendor == gpu.vendor)
        return Recommendation(
            host=facts.name,
            profile=f"gpu-{gpu.vendor}",
            reason=f"{count} x {gpu.model}, driver {gpu.driver or 'unknown'}",
        )
    without_driver = ""
    if facts.gpus:
        names = ", ".join(sorted({gpu.model for gpu in facts.gpus}))
        without_driver = f"; {names} is there, but its driver's tool is not"
    return _for_cpu(facts, without_driver)


def _for_cpu(facts: HostFacts, remark: str) -> Recommendation:
    if facts.cpu == UNREAD:
        return Recommendation(host=facts.name, profile="", reason="the CPU could not be read")
    wanted = hardware_profile(FALLBACK).cpu_flags_any
    found = [flag for flag in wanted if flag in facts.cpu.flags]
    if not found:
        return Recommendation(
            host=facts.name,
            profile="",
            reason=f"no usable GPU, and {facts.cpu.model} has none of {', '.join(wanted)}{remark}",
        )
    return Recommendation(
        host=facts.name,
        profile=FALLBACK,
        reason=f"no usable GPU; {facts.cpu.model} has {', '.join(found)}{remark}",
    )
