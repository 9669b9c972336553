"""How much disk and memory a host needs, from the bundle's own sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_installer.plan.vllm_options import number
from holdfast_installer.profiles import hardware_profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_installer.bundle.manifest import Manifest
    from holdfast_installer.plan.model import PlannedModel, Replica, VllmValue

GIB = 1024**3
# Unpacked against packed, rounded up from what the wheels and packages of the bundle measure.
UNPACKED = 4
# What a control host's own services take: PostgreSQL, registry, gateway, smg, nginx, Prometheus.
CONTROL_MEMORY = 1 * GIB
KV_CACHE = "VLLM_CPU_KVCACHE_SPACE"
KV_BYTES = "kv_cache_memory_bytes"


@dataclass(frozen=True)
class Need:
    """Bytes to copy, bytes of disk by the folder they go to, bytes of memory."""

    copy: int
    disk: dict[str, int]
    memory: int


def wheel_bytes(manifest: Manifest, environment: str) -> int:
    """Return the packed size of one environment's wheels."""
    return sum(
        artifact.size
        for artifact in manifest.artifacts
        if artifact.kind in {"wheel", "collection"} and environment in artifact.environments
    )


def need(
    manifest: Manifest,
    roles: tuple[str, ...],
    environments: tuple[str, ...],
    hardware: str,
    placed: list[tuple[Replica, PlannedModel | None]],
) -> Need:
    """Return what one host needs, given its roles, environments and replicas."""
    packed = {name: wheel_bytes(manifest, name) for name in environments}
    models = {model.id: model.bytes for _, model in placed if model is not None}
    debs = sum(artifact.size for artifact in manifest.of_kind("deb"))
    disk = {
        "/opt/holdfast": UNPACKED * sum(packed.values()),
        "/var/lib/holdfast": sum(models.values()),
        "/usr": UNPACKED * debs,
    }
    copy = sum(packed.values()) + sum(models.values()) + debs
    memory = 0
    if "control" in roles:
        everything = sum(manifest.sizes().values())
        registry = sum(artifact.size for artifact in manifest.of_kind("model"))
        disk["/srv/holdfast"] = everything
        disk["/var/lib/holdfast"] += registry
        copy += everything
        memory += CONTROL_MEMORY
    for replica, model in placed:
        memory += replica_memory(hardware, model.bytes if model is not None else 0, replica.args)
    return Need(copy=copy, disk=disk, memory=memory)


def replica_memory(hardware: str, weights: int, args: Mapping[str, VllmValue]) -> int:
    """Return the host memory of one replica: its floor, and on a CPU weights and KV cache.

    The model's own kv_cache_memory_bytes counts before the profile's size of the cache.
    """
    if not hardware:
        return weights
    profile = hardware_profile(hardware)
    floor = profile.replica_memory_gib * GIB
    if not hardware.startswith("cpu-"):
        return floor
    cache = float(profile.vllm.env.get(KV_CACHE, "4")) * GIB
    own = number(args.get(KV_BYTES))
    if own is not None:
        cache = own
    return floor + weights + int(cache)
