"""Which GPUs of its host a replica computes on, and how much of each: shares that never exceed one.

vLLM reserves its share of a GPU (gpu_memory_utilization) when it starts and never gives it back:
two that ask for 0.9 of the same one do not start. GPUs are counted in the order of the PCI bus, as
the vendor's tool lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_installer.survey.facts import UNREAD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast_installer.plan.model import VllmValue
    from holdfast_installer.survey.facts import Gpu, HostFacts

# What tells a process which GPUs it sees.
VISIBLE = {
    "nvidia": "CUDA_VISIBLE_DEVICES",
    "amd": "HIP_VISIBLE_DEVICES",
    "intel": "ZE_AFFINITY_MASK",
}
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
SHARE = "gpu_memory_utilization"
DEFAULT_SHARE = 0.92
# Of its share a server needs some for what is neither weights nor cache.
FOR_WEIGHTS = 0.95
NOISE = 1e-6


@dataclass
class Devices:
    """The GPUs of the hosts and what of each is left; a host without a known one has no entry."""

    gpus: dict[str, list[Gpu]] = field(default_factory=dict)
    left: dict[str, list[float]] = field(default_factory=dict)
    taken: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def see(self, facts: HostFacts, hardware: str) -> None:
        """Take note of a host's GPUs of the vendor that its hardware profile is for."""
        vendor = hardware.removeprefix("gpu-")
        if vendor not in VISIBLE or facts.gpus == UNREAD or facts.name in self.gpus:
            return
        mine = [one for one in facts.gpus if one.vendor == vendor and one.memory_bytes != UNREAD]
        if mine:
            self.gpus[facts.name] = mine
            self.left[facts.name] = [1.0] * len(mine)

    def take(  # noqa: PLR0913, PLR0917 - what is wanted, by whom, and what it had
        self,
        host: str,
        unit: str,
        args: Mapping[str, VllmValue],
        weights: int,
        had: Sequence[str],
        others: Sequence[str],
    ) -> dict[str, str] | str:
        """Give a unit its GPUs: return the environment that says which, or why there are none.

        `had` are those its place had before, which it keeps; `others` are those of units that stand
        there beside it, which are given last.
        """
        if host not in self.gpus:
            return {}
        count, share = wanted(args)
        left, gpus = self.left[host], self.gpus[host]
        able = [at for at in range(len(gpus)) if left[at] + NOISE >= share]
        able.sort(key=lambda at: (str(at) not in had, str(at) in others, -left[at], at))
        chosen = tuple(sorted(able[:count]))
        if len(chosen) < count:
            free = ", ".join(f"{one:.2f}" for one in left)
            return f"wants {share:g} of {_gpus(count)}; of the host's are left: {free}"
        room = sum(share * int(gpus[at].memory_bytes) for at in chosen)
        if weights > FOR_WEIGHTS * room:
            return (
                f"its weights are {weights / 1e9:.1f} GB; {share:g} of {_gpus(count)} are "
                f"{room / 1e9:.1f} GB"
            )
        for at in chosen:
            left[at] -= share
        self.taken[unit] = chosen
        vendor = gpus[0].vendor
        named = {VISIBLE[vendor]: ",".join(map(str, chosen))}
        return {**named, **ORDER} if vendor == "nvidia" else named

    def room(self, host: str, unit: str, args: Mapping[str, VllmValue]) -> bool:
        """Say whether another server with a unit's options fits on the same GPUs beside it."""
        _, share = wanted(args)
        return all(self.left[host][at] + NOISE >= share for at in self.taken.get(unit, ()))


def wanted(args: Mapping[str, VllmValue]) -> tuple[int, float]:
    """Return how many GPUs a server computes on, and its share of each."""
    sizes = [args.get(name) for name in ("tensor_parallel_size", "pipeline_parallel_size")]
    count = 1
    for size in sizes:
        count *= size if isinstance(size, int) else 1
    share = args.get(SHARE)
    return count, float(share) if isinstance(share, int | float) else DEFAULT_SHARE


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"each of {count} GPUs"
