"""Makes the plan: a pure function of the site, the survey and the bundle's manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_installer.errors import Finding
from holdfast_installer.plan import ports
from holdfast_installer.plan.blockers import (
    Target,
    bundle_blockers,
    host_blockers,
    site_blockers,
)
from holdfast_installer.plan.context_tokens import with_context
from holdfast_installer.plan.firewall import firewall
from holdfast_installer.plan.generations import interruptions, replacements, unit_name
from holdfast_installer.plan.model import (
    CertificateNames,
    DnsRecord,
    Environment,
    Gateway,
    HostPlan,
    Plan,
    Services,
)
from holdfast_installer.plan.model_notes import model_notes
from holdfast_installer.plan.placement import Placement, place
from holdfast_installer.plan.sizes import Need, need, replica_memory
from holdfast_installer.plan.steps import steps
from holdfast_installer.plan.vllm_options import option_findings
from holdfast_installer.profiles import compose, hardware_profile
from holdfast_installer.site import SERVICE_NAMES
from holdfast_installer.survey.facts import FACTS, UNREAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_installer.bundle.manifest import Manifest
    from holdfast_installer.plan.model import Replica
    from holdfast_installer.profiles import EffectiveProfile
    from holdfast_installer.site import Host, Site
    from holdfast_installer.survey.facts import HostFacts, Survey

ROOT = "/opt/holdfast"
PLATFORM = "platform"


def make_plan(
    site: Site,
    survey: Survey,
    manifest: Manifest,
    contexts: Mapping[str, int] | None = None,
    unit_files: str = "",
) -> Plan:
    """Decide everything an apply would do, with every blocker; touches nothing.

    `contexts` are the models' longest contexts by the digest of their config.json, `unit_files`
    the digest of what every vLLM unit is written from.
    """
    profile = compose(site)
    digest = manifest.digest()
    upstreams = bool(profile.upstreams_allowed)
    placement = place(site, survey, manifest, profile.permitted_jurisdictions, unit_files)
    pools = tuple(placement.pools)
    needs = {host.name: _need(host, placement, manifest) for host in site.hosts}
    hosts = {
        host.name: _host_plan(
            site, host, survey.host(host.name), placement, needs[host.name], manifest, profile
        )
        for host in site.hosts
    }
    blockers = [
        *site_blockers(
            site,
            survey,
            upstreams_allowed=upstreams,
            permitted=profile.permitted_jurisdictions,
        ),
        *placement.blockers,
        *bundle_blockers(manifest, list(hosts.values())),
    ]
    gateways = _gateways(site)
    options = tuple(option_findings(site, placement, contexts or {}))
    blockers += [one for one in options if one.verdict == "fail"]
    target = Target(
        site=site, manifest=manifest, bundle_digest=digest, pools=pools, gateways=gateways
    )
    for name, host in hosts.items():
        facts = survey.host(name)
        blockers += host_blockers(target, facts, host, needs[name])
    return Plan(
        site=site.name,
        domain=site.domain,
        bundle_digest=digest,
        release=manifest.release,
        release_path=_release_path(digest),
        control=site.with_role("control")[0].name,
        hosts=hosts,
        pools=pools,
        gateways=gateways,
        models=tuple(
            with_context(
                placement.models, {one.id: one.vllm for one in site.models}, contexts or {}
            )
        ),
        dns=tuple(_dns(site)),
        dns_upstreams=tuple(map(str, site.dns.upstreams)) if upstreams else (),
        time_servers=tuple(map(str, site.time.servers)) if upstreams else (),
        services=_services(site),
        steps=steps(site),
        blockers=tuple(blockers),
        notes=(
            *_notes(survey),
            *model_notes(placement.models, profile),
            *interruptions(list(hosts.values())),
            *(one for one in options if one.verdict != "fail"),
        ),
    )


def _gateways(site: Site) -> tuple[Gateway, ...]:
    return tuple(
        Gateway(
            number=number,
            name=f"gateway-{number}",
            port=ports.GATEWAY_BASE + number,
            metrics_port=ports.GATEWAY_METRICS_BASE + number,
        )
        for number in range(1, site.gateways + 1)
    )


def _release_path(digest: str) -> str:
    return f"{ROOT}/releases/{digest.removeprefix('sha256:')}"


def _environment_names(host: Host, hardware: str) -> tuple[str, ...]:
    names = []
    if "control" in host.roles:
        names.append(PLATFORM)
    if "serving" in host.roles and hardware:
        names.append(hardware_profile(hardware).environment)
    return tuple(names)


def _environments(names: tuple[str, ...], manifest: Manifest) -> tuple[Environment, ...]:
    found = []
    for name in names:
        pinned = manifest.environments.get(name)
        digest = pinned.requirements if pinned is not None else ""
        short = digest.removeprefix("sha256:")[:12]
        found.append(
            Environment(
                name=name,
                requirements_digest=digest,
                path=f"{ROOT}/environments/{name}-{short}",
                link=PLATFORM if name == PLATFORM else "vllm",
            )
        )
    return tuple(found)


def _need(host: Host, placement: Placement, manifest: Manifest) -> Need:
    hardware = placement.hardware.get(host.name, "")
    by_id = {model.id: model for model in placement.models}
    placed = [(replica, by_id.get(replica.model)) for replica in placement.on(host.name)]
    names = _environment_names(host, hardware)
    return need(manifest, host.roles, names, hardware, placed)


def _host_plan(  # noqa: PLR0913, PLR0917 - a host's plan draws on everything there is
    site: Site,
    host: Host,
    facts: HostFacts,
    placement: Placement,
    needed: Need,
    manifest: Manifest,
    profile: EffectiveProfile,
) -> HostPlan:
    hardware = placement.hardware.get(host.name, "")
    replicas = placement.on(host.name)
    others = placement.standing.others(site, host, replicas)
    replaced = replacements(
        placement.standing, replicas, others, lambda one: _room(one, placement, facts, needed)
    )
    going = {old.unit for each in replaced for old in each.replaces}
    container = facts.kernel != UNREAD and facts.kernel.container
    return HostPlan(
        name=host.name,
        fqdn=site.fqdn(host),
        address=str(host.address),
        address6=str(host.address6 or ""),
        roles=host.roles,
        pool=host.pool or "",
        jurisdiction=site.host_jurisdiction(host),
        hardware=hardware,
        debian=_debian(hardware, replicas),
        environments=_environments(_environment_names(host, hardware), manifest),
        release_path=_release_path(manifest.digest()),
        certificate=_certificate(site, host),
        firewall=firewall(site, host, _served(site, placement), profile),
        replicas=replicas,
        replacements=replaced,
        standing=tuple(one.unit for one in placement.standing.on(host.name)),
        others=others,
        retiring=tuple(one for one in others if one.unit not in going),
        # A container shares its machine's clock and may not set it.
        chrony_adjust_clock=not container,
        copy_bytes=needed.copy,
        disk_bytes=sum(needed.disk.values()),
        memory_bytes=needed.memory,
    )


def _served(site: Site, placement: Placement) -> dict[str, tuple[int, ...]]:
    """Return on which ports each host's vLLM answers, before, meanwhile and after."""
    return {
        host.name: placement.standing.open_ports(host.name, placement.on(host.name))
        for host in site.hosts
    }


def _room(replica: Replica, placement: Placement, facts: HostFacts, needed: Need) -> bool:
    """Say whether a host can hold a replica beside all that it is to hold in the end."""
    weights = {model.id: model.bytes for model in placement.models}.get(replica.model, 0)
    more = replica_memory(placement.hardware[replica.host], weights, replica.args)
    place = unit_name(replica.model, replica.number)
    if not placement.devices.room(replica.host, place, replica.args):
        return False
    memory = facts.memory
    if memory == UNREAD or more > memory.available_bytes:
        return False
    return needed.memory + more <= memory.total_bytes


def _debian(hardware: str, replicas: tuple[Replica, ...]) -> tuple[str, ...]:
    if not hardware:
        return ()
    found = hardware_profile(hardware)
    compiles = not all(replica.args.get("enforce_eager") for replica in replicas)
    return (*found.debian, *found.compiler) if compiles else found.debian


def _certificate(site: Site, host: Host) -> CertificateNames:
    # the authority is constrained to the domain: a bare host name would break the chain
    names = [site.fqdn(host)]
    if "control" in host.roles:
        names += [f"{service}.{site.domain}" for service in SERVICE_NAMES]
    return CertificateNames(dns=tuple(names), ip=tuple(map(str, host.addresses())))


def _services(site: Site) -> Services:
    return Services(
        hub=f"https://hub.{site.domain}",
        api=f"https://api.{site.domain}",
        mirror=f"https://mirror.{site.domain}:8443",
    )


def _dns(site: Site) -> list[DnsRecord]:
    control = site.with_role("control")[0]
    names = [(site.fqdn(host), host) for host in site.hosts]
    names += [(f"{service}.{site.domain}", control) for service in SERVICE_NAMES]
    return [
        DnsRecord(name=name, type="A" if address.version == 4 else "AAAA", value=str(address))
        for name, host in names
        for address in host.addresses()
    ]


def _notes(survey: Survey) -> list[Finding]:
    """Say what could not be read and bars nothing: unread is never silently fine."""
    return [
        Finding(
            name="unread",
            verdict="inconclusive",
            host=facts.name,
            detail=f"the fact {name} could not be read; the plan does not depend on it",
        )
        for facts in survey.hosts
        if facts.reach == "read"
        for name in FACTS
        if name in {"numa", "power", "host_key"} and getattr(facts, name) == UNREAD
    ]
