"""Which replica stands on which host, and how a model in the bundle becomes one to serve."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_installer.errors import Finding
from holdfast_installer.plan import ports
from holdfast_installer.plan.devices import Devices
from holdfast_installer.plan.generations import Standing, generation, unit_name
from holdfast_installer.plan.model import (
    Joining,
    ModelFile,
    PlannedModel,
    Pool,
    Replica,
    ServedPool,
)
from holdfast_installer.plan.sizes import KV_BYTES, KV_CACHE
from holdfast_installer.plan.threads import bind
from holdfast_installer.profiles import hardware_profile
from holdfast_installer.survey.recommend import recommend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_installer.bundle.manifest import Artifact, Manifest
    from holdfast_installer.plan.model import VllmValue
    from holdfast_installer.site import Host, Model, Site
    from holdfast_installer.survey.facts import Survey

MODELS = "/var/lib/holdfast/vllm/models"
CLASSIFICATION = "internal"
# A first start compiles; before it the model is pulled, measured and read: bytes a second in all.
START_SECONDS = 600
SLOWEST_BYTES = 50_000_000
OF_ANOTHER_POOL = 1000


@dataclass
class Placement:
    """Where everything goes, with what stood in the way."""

    survey: Survey
    unit_files: str
    hardware: dict[str, str] = field(default_factory=dict)
    models: list[PlannedModel] = field(default_factory=list)
    replicas: list[Replica] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    blockers: list[Finding] = field(default_factory=list)
    standing: Standing = field(default_factory=Standing)
    devices: Devices = field(default_factory=Devices)

    def on(self, host: str) -> tuple[Replica, ...]:
        """Return the replicas of one host."""
        return tuple(replica for replica in self.replicas if replica.host == host)

    def block(self, name: str, detail: str, fix: str, host: str = "") -> None:
        """Note one reason why this plan cannot be applied."""
        self.blockers.append(Finding(name=name, verdict="fail", detail=detail, fix=fix, host=host))


def place(
    site: Site,
    survey: Survey,
    manifest: Manifest,
    permitted: tuple[str, ...] | None,
    unit_files: str = "",
) -> Placement:
    """Spread the models' replicas over the hosts of their pools, in the order written.

    A replica that stands on one of them already stays there.
    """
    placement = Placement(survey, unit_files, standing=Standing(survey))
    _choose_hardware(site, survey, placement)
    names = [host.name for host in site.hosts]
    settled = {
        (model.id, number): placement.standing.host_of(model.id, number, names)
        for model in site.models
        for _, number in placed_in(model)
    }
    for model in site.models:
        planned = _planned_model(site, model, manifest, placement)
        if planned is not None:
            placement.models.append(planned)
        pools = dict.fromkeys(pool for pool, _ in placed_in(model))
        hosts = {pool: _permitted_hosts(site, model, pool, permitted, placement) for pool in pools}
        for pool, number in placed_in(model):
            if not hosts[pool]:
                continue
            home = settled[model.id, number]
            host = next((one for one in hosts[pool] if one.name == home), None) or min(
                hosts[pool], key=lambda one: _load(one.name, placement, settled)
            )
            settled.pop((model.id, number))
            placement.replicas.append(
                _replica(site, model, planned, number, host, manifest, placement)
            )
    _refuse_clashes(placement)
    _gather_pools(site, placement)
    return placement


def placed_in(model: Model) -> Iterator[tuple[str, int]]:
    """Yield pool and number of each replica of a model.

    A further pool counts from a thousand of its own, so that scaling one pool moves nothing of
    another. Those on standby come last: with one replica more, the first of them is it.
    """
    for at, (pool, replicas) in enumerate(
        [
            (model.pool, model.replicas + model.standby),
            *((one.pool, one.replicas) for one in model.pools),
        ]
    ):
        for number in range(replicas):
            yield pool, at * OF_ANOTHER_POOL + number


def on_standby(model: Model, number: int) -> bool:
    """Say whether a replica is kept warm and not sent requests."""
    return model.replicas <= number < OF_ANOTHER_POOL


def _load(host: str, placement: Placement, settled: dict[tuple[str, int], str]) -> int:
    """Return how many replicas a host has, with those that will turn out to stay there."""
    return len(placement.on(host)) + sum(home == host for home in settled.values())


def _choose_hardware(site: Site, survey: Survey, placement: Placement) -> None:
    for host in site.with_role("serving"):
        chosen: str = site.host_hardware(host)
        if chosen == "auto":
            advice = recommend(survey.host(host.name))
            chosen = advice.profile
            if not chosen:
                placement.block(
                    "hardware-profile",
                    f"no hardware profile fits: {advice.reason}",
                    "name one in site.yml (profiles.hardware or the host's hardware)",
                    host.name,
                )
        placement.hardware[host.name] = chosen


def _permitted_hosts(
    site: Site, model: Model, pool: str, permitted: tuple[str, ...] | None, placement: Placement
) -> list[Host]:
    hosts = []
    for host in site.in_pool(pool):
        label = site.host_jurisdiction(host)
        if permitted is None or label in permitted:
            hosts.append(host)
    if not hosts:
        placement.block(
            "placement",
            f"{model.id}: no host of pool {pool} stands in {', '.join(permitted or ())}",
            "give the pool a host whose jurisdiction the profiles permit",
        )
    return hosts


def _planned_model(
    site: Site, model: Model, manifest: Manifest, placement: Placement
) -> PlannedModel | None:
    files = [artifact for artifact in manifest.of_kind("model") if artifact.name == model.id]
    commits = sorted({artifact.version for artifact in files})
    if re.fullmatch(r"[0-9a-f]{40}", model.revision):
        commits = [commit for commit in commits if commit == model.revision]
    if len(commits) != 1:
        found = f"holds commits {', '.join(commits)}" if commits else "does not hold it"
        placement.block(
            "bundle-model",
            f"{model.id} at {model.revision}: the bundle {found}",
            "holdfast bundle lock --site site.yml, then bundle build, with this site file",
        )
        return None
    commit = commits[0]
    mine = [_model_file(artifact) for artifact in files if artifact.version == commit]
    return PlannedModel(
        id=model.id,
        commit=commit,
        pool=model.pool,
        replicas=model.replicas,
        slots=_slots(site, model, model.pool, model.replicas, placement),
        pools=tuple(
            ServedPool(
                pool=one.pool,
                teams=one.teams,
                replicas=one.replicas,
                slots=_slots(site, model, one.pool, one.replicas, placement),
            )
            for one in model.pools
        ),
        teams=model.teams,
        jurisdiction=site.jurisdiction,
        classification=CLASSIFICATION,
        path=f"{MODELS}/{model.id}/{commit}",
        bytes=sum(one.size for one in mine),
        files=tuple(sorted(mine, key=lambda one: one.filename)),
    )


def _slots(site: Site, model: Model, pool: str, replicas: int, placement: Placement) -> int | None:
    """Return how many sequences a model's replicas in a pool work on at once, as they are told."""
    hardware = next((placement.hardware[host.name] for host in site.in_pool(pool)), "")
    args = hardware_profile(hardware).vllm.args if hardware else {}
    seats = {**args, **model.vllm}.get("max_num_seqs")
    return replicas * seats if isinstance(seats, int) else None


def _model_file(artifact: Artifact) -> ModelFile:
    return ModelFile(
        filename=artifact.filename,
        digest=artifact.digest,
        size=artifact.size,
        git_oid=artifact.git_oid,
    )


def _replica(  # noqa: PLR0913, PLR0917 - one replica is decided by seven things
    site: Site,
    model: Model,
    planned: PlannedModel | None,
    number: int,
    host: Host,
    manifest: Manifest,
    placement: Placement,
) -> Replica:
    commit = planned.commit if planned is not None else ""
    hardware = placement.hardware[host.name]
    vllm = hardware_profile(hardware).vllm if hardware else None
    args = {**(vllm.args if vllm else {}), **model.vllm}
    env = dict(vllm.env) if vllm else {}
    if args.get(KV_BYTES) is not None:
        env.pop(KV_CACHE, None)  # vLLM lets this one win
    if args.get("enforce_eager"):
        # vLLM compiles its logprobs kernel even when told to run eager: the first request that asks
        # for them would wait for a compiler, or kill the engine where there is none.
        env["TORCHDYNAMO_DISABLE"] = "1"
    if hardware.startswith("cpu-"):
        place = placement.standing.place(host.name, model.id, number)
        bind(placement.survey.host(host.name), place, model.vllm, args, env)
    env |= _devices(placement, host.name, model, number, args, planned)
    environment = manifest.environments.get(
        hardware_profile(hardware).environment if hardware else ""
    )
    software = environment.requirements if environment is not None else ""
    started_with = generation(
        commit=commit, args=args, env=env, software=software, unit=placement.unit_files
    )
    unit = unit_name(model.id, number, started_with)
    port = placement.standing.port(host.name, model.id, number, unit)
    return Replica(
        unit=unit,
        model=model.id,
        number=number,
        standby=on_standby(model, number),
        commit=commit,
        pool=host.pool or "",
        host=host.name,
        port=port,
        url=f"https://{site.fqdn(host)}:{port}",
        model_path=f"{MODELS}/{model.id}/{commit}",
        start_seconds=START_SECONDS + (planned.bytes if planned else 0) // SLOWEST_BYTES,
        args=args,
        env=env,
    )


def _devices(  # noqa: PLR0913, PLR0917 - as the replica
    placement: Placement,
    host: str,
    model: Model,
    number: int,
    args: dict[str, VllmValue],
    planned: PlannedModel | None,
) -> dict[str, str]:
    """Return the environment that names a replica's GPUs, or bar the plan."""
    placement.devices.see(placement.survey.host(host), placement.hardware[host])
    before = placement.standing.before(host, model.id, number)
    had = [name for one in before for name in one.devices]
    others = [
        name for one in placement.standing.on(host) if one not in before for name in one.devices
    ]
    weights = planned.bytes if planned is not None else 0
    unit = unit_name(model.id, number)
    given = placement.devices.take(host, unit, args, weights, had, others)
    if isinstance(given, dict):
        return given
    placement.block(
        "gpu-memory",
        f"{unit} {given}",
        "another host in the pool, fewer replicas, or a smaller gpu_memory_utilization for models "
        "that share a GPU",
        host,
    )
    return {}


def _refuse_clashes(placement: Placement) -> None:
    owners: dict[str, str] = {}
    for replica in placement.replicas:
        other = owners.setdefault(replica.unit, replica.model)
        if other != replica.model:
            placement.block(
                "name-clash",
                f"{other} and {replica.model} would both be unit {replica.unit}",
                "rename one of the two models in site.yml",
            )


def _gather_pools(site: Site, placement: Placement) -> None:
    control = site.with_role("control")[0]
    for index, name in enumerate(site.pools()):
        kinds = sorted({placement.hardware[host.name] for host in site.in_pool(name)} - {""})
        if len(kinds) > 1:
            placement.block(
                "pool-hardware",
                f"pool {name} mixes hardware profiles: {', '.join(kinds)}",
                "give each kind of hardware its own pool",
            )
        placed = [replica for replica in placement.replicas if replica.pool == name]
        replicas = [replica for replica in placed if not replica.standby]
        idle = {
            unit.unit
            for one in placed
            if one.standby
            for unit in placement.standing.before(one.host, one.model, one.number)
        }
        there = placement.standing.urls(site, name, idle)
        placement.pools.append(
            Pool(
                name=name,
                index=index,
                hardware=kinds[0] if kinds else "",
                host=control.name,
                port=ports.POOL_BASE + index,
                metrics_port=ports.POOL_METRICS_BASE + index,
                workers=tuple(replica.url for replica in replicas),
                joining=tuple(
                    Joining(host=one.host, url=one.url)
                    for one in replicas
                    if not placement.standing.replaces(one)
                ),
                serving=there or tuple(one.url for one in replicas),
                models=tuple(dict.fromkeys(replica.model for replica in replicas)),
            )
        )
