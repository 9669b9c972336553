"""Every port of a site, who listens there, and which units may already hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from holdfast_installer.plan.model import Gateway, HostPlan, Pool

EDGE = 443
DNS = 53
NTP = 123
MIRROR = 8443
HUB_FRONT = 8081
REGISTRY = 8101
CONSOLE = 8103
# Gateway n, from 1 on, is at the base and n; so is what it tells of itself.
GATEWAY_BASE = 8110
GATEWAY_METRICS_BASE = 8120
POOL_BASE = 8200
POOL_METRICS_BASE = 8300
REPLICA_BASE = 8400
# A replica has a port for each of two generations of it: a place, and PLACES above it.
PLACES = 100
PROMETHEUS = 9090
NODE_EXPORTER = 9100

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Want:
    """A port that a unit of ours listens on; `units` are name prefixes of systemd units."""

    protocol: Literal["tcp", "udp"]
    address: str
    port: int
    units: tuple[str, ...]


def wanted(host: HostPlan, pools: tuple[Pool, ...], gateways: tuple[Gateway, ...]) -> list[Want]:
    """Return the ports that this host's own units will listen on."""
    here = host.address
    wants = [Want("tcp", here, NODE_EXPORTER, ("prometheus-node-exporter.",))]
    wants += [
        # a unit of ours on it is of another generation, and goes before this one starts
        Want("tcp", here, replica.port, ("holdfast-vllm@",))
        for replica in host.replicas
    ]
    if "control" not in host.roles:
        return wants
    wants += [
        Want("tcp", here, EDGE, ("haproxy.",)),
        Want("tcp", here, DNS, ("unbound.",)),
        Want("udp", here, DNS, ("unbound.",)),
        Want("udp", here, NTP, ("chrony.",)),
        Want("tcp", here, MIRROR, ("nginx.",)),
        Want("tcp", LOOPBACK, HUB_FRONT, ("nginx.",)),
        Want("tcp", LOOPBACK, REGISTRY, ("holdfast-",)),
        Want("tcp", LOOPBACK, CONSOLE, ("holdfast-",)),
        Want("tcp", LOOPBACK, PROMETHEUS, ("prometheus.",)),
    ]
    for gateway in gateways:
        wants.append(Want("tcp", LOOPBACK, gateway.port, ("holdfast-",)))
        wants.append(Want("tcp", LOOPBACK, gateway.metrics_port, ("holdfast-",)))
    for pool in pools:
        wants.append(Want("tcp", LOOPBACK, pool.port, ("holdfast-",)))
        wants.append(Want("tcp", LOOPBACK, pool.metrics_port, ("holdfast-",)))
    return wants
