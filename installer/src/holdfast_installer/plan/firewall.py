"""The allow list of every host, both ways and for both families, from the site's networks."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING, Literal

from holdfast_installer.plan import ports
from holdfast_installer.plan.model import Firewall, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from holdfast_installer.profiles import EffectiveProfile
    from holdfast_installer.site import Address, Host, Site

Protocol = Literal["tcp", "udp"]


def firewall(
    site: Site, host: Host, served: Mapping[str, Sequence[int]], profile: EffectiveProfile
) -> Firewall:
    """Return what may come to and leave `host`; `served` are the ports of vLLM by host."""
    control = list(site.with_role("control"))
    others = [other for other in site.hosts if other.name != host.name]
    ingress = [
        *_rules("tcp", [site.ssh.port], _cidrs(site.networks.operators), "operators: SSH"),
        *_rules("tcp", [ports.NODE_EXPORTER], _hosts(control, host), "control: metrics"),
    ]
    egress: list[Rule] = []
    here = list(served[host.name])
    if here:
        ingress += _rules("tcp", here, _hosts(control, host), "load balancer: vLLM")
    if "control" in host.roles:
        ingress += _control_ingress(site, others)
        egress += _control_egress(others, served)
        if profile.upstreams_allowed:
            egress += _upstreams(site)
    elif control:
        egress += _rules("tcp", [ports.EDGE], _hosts(control, host), "registry: models")
        egress += _rules("tcp", [ports.MIRROR], _hosts(control, host), "mirror: packages")
        egress += _rules("udp", [ports.DNS, ports.NTP], _hosts(control, host), "DNS and time")
        egress += _rules("tcp", [ports.DNS], _hosts(control, host), "DNS")
    return Firewall(
        default=profile.egress_default or "deny", ingress=tuple(ingress), egress=tuple(egress)
    )


def _control_ingress(site: Site, others: list[Host]) -> list[Rule]:
    inside = [address for other in others for address in other.addresses()]
    clients = _cidrs([*site.networks.users, *site.networks.operators])
    return [
        *_rules("tcp", [ports.EDGE], clients, "users: hub, API"),
        *_rules("tcp", [ports.DNS], clients, "users: DNS"),
        *_rules("udp", [ports.DNS], clients, "users: DNS"),
        *_rules("tcp", [ports.EDGE, ports.MIRROR], _single(inside), "hosts: models, packages"),
        *_rules("tcp", [ports.DNS], _single(inside), "hosts: DNS"),
        *_rules("udp", [ports.DNS, ports.NTP], _single(inside), "hosts: DNS and time"),
    ]


def _control_egress(others: list[Host], served: Mapping[str, Sequence[int]]) -> list[Rule]:
    rules: list[Rule] = []
    for other in others:
        addresses = _single(other.addresses())
        there = list(served[other.name])
        if there:
            rules += _rules("tcp", there, addresses, f"load balancer: vLLM on {other.name}")
        rules += _rules("tcp", [ports.NODE_EXPORTER], addresses, f"metrics of {other.name}")
    return rules


def _upstreams(site: Site) -> list[Rule]:
    return [
        *_rules("tcp", [ports.DNS], _single(site.dns.upstreams), "DNS upstreams"),
        *_rules("udp", [ports.DNS], _single(site.dns.upstreams), "DNS upstreams"),
        *_rules("udp", [ports.NTP], _single(site.time.servers), "time servers"),
    ]


def _rules(protocol: Protocol, numbers: list[int], peers: list[str], why: str) -> list[Rule]:
    rules: list[Rule] = []
    families: tuple[tuple[Literal["ip", "ip6"], int], ...] = (("ip", 4), ("ip6", 6))
    for family, version in families:
        of_family = [one for one in map(ip_network, peers) if one.version == version]
        if of_family:
            rules.append(
                Rule(
                    family=family,
                    protocol=protocol,
                    ports=tuple(numbers),
                    # Merged, because nftables refuses a set whose intervals overlap.
                    peers=tuple(map(str, _merged(of_family))),
                    why=why,
                )
            )
    return rules


def _merged(networks: list[IPv4Network | IPv6Network]) -> list[IPv4Network | IPv6Network]:
    four = [one for one in networks if isinstance(one, IPv4Network)]
    six = [one for one in networks if isinstance(one, IPv6Network)]
    return [*collapse_addresses(four), *collapse_addresses(six)]


def _hosts(hosts: list[Host], but: Host) -> list[str]:
    """Return the addresses of hosts as CIDRs; what a host says to itself never meets a rule."""
    return _single(
        address for host in hosts if host.name != but.name for address in host.addresses()
    )


def _single(addresses: Iterable[Address]) -> list[str]:
    return [f"{address}/{32 if address.version == 4 else 128}" for address in addresses]


def _cidrs(networks: Iterable[object]) -> list[str]:
    return [str(network) for network in networks]
