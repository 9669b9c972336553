"""What serves already, and how a replica that changes takes the place of what it replaces.

A unit is <model>-<number>-<generation>: the generation is a digest of everything the server is
started with, so a change makes another unit, which can run beside the old one. Each place on a host
has two ports, one for each of two generations that stand beside one another for a while.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import TYPE_CHECKING

from holdfast_installer.errors import Finding
from holdfast_installer.plan import ports
from holdfast_installer.plan.model import Present, Replacement
from holdfast_installer.survey.facts import UNREAD

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from holdfast_installer.plan.model import HostPlan, Replica
    from holdfast_installer.site import Host, Site
    from holdfast_installer.survey.facts import ServedUnit, Survey

DIGITS = 8


def slug(model: str) -> str:
    """Return a model's name: safe in systemd, in file names and in DNS."""
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")


def unit_name(model: str, number: int, generation: str = "") -> str:
    """Return the instance name of a vLLM unit."""
    return "-".join(filter(None, (slug(model), str(number), generation)))


def generation(**started_with: object) -> str:
    """Return what tells one way of starting a server from any other."""
    text = json.dumps(started_with, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def number_of(unit: ServedUnit) -> int | None:
    """Return which replica of its model a unit is; None where its name does not say it."""
    pattern = rf"{re.escape(slug(unit.model))}-(\d+)(?:-[0-9a-f]{{{DIGITS}}})?"
    match = re.fullmatch(pattern, unit.unit)
    return int(match[1]) if match else None


class Standing:
    """The units that the survey found, by host, and the ports that are still to be had."""

    def __init__(self, survey: Survey | None = None) -> None:
        self._there: dict[str, tuple[ServedUnit, ...]] = {
            facts.name: () if facts.replicas == UNREAD else facts.replicas
            for facts in (survey.hosts if survey is not None else ())
        }
        self._taken: dict[str, set[int]] = {
            host: {_place(unit.port) for unit in units} for host, units in self._there.items()
        }

    def on(self, host: str) -> tuple[ServedUnit, ...]:
        """Return what a host is set up for."""
        return self._there.get(host, ())

    def host_of(self, model: str, number: int, hosts: Sequence[str]) -> str:
        """Return the host on which a replica stands already, "" for one that is new."""
        for host in hosts:
            for unit in self.on(host):
                if (unit.model, number_of(unit)) == (model, number):
                    return host
        return ""

    def urls(self, site: Site, pool: str, idle: Collection[str]) -> tuple[str, ...]:
        """Return where the units of a pool's hosts answer, but for those that are to be idle."""
        return tuple(
            one.url
            for host in site.in_pool(pool)
            for one in self.others(site, host, ())
            if one.unit not in idle
        )

    def others(self, site: Site, host: Host, wanted: Sequence[Replica]) -> tuple[Present, ...]:
        """Return the units of a host that are not among the wanted ones."""
        names = {replica.unit for replica in wanted}
        return tuple(
            Present(
                unit=one.unit,
                model=one.model,
                commit=one.commit,
                host=host.name,
                pool=host.pool or "",
                url=f"https://{site.fqdn(host)}:{one.port}",
            )
            for one in self.on(host.name)
            if one.unit not in names
        )

    def before(self, host: str, model: str, number: int) -> tuple[ServedUnit, ...]:
        """Return every generation of a replica that its host has."""
        return tuple(
            unit for unit in self.on(host) if (unit.model, number_of(unit)) == (model, number)
        )

    def replaces(self, replica: Replica) -> bool:
        """Say whether another generation of a replica stands on its host."""
        before = self.before(replica.host, replica.model, replica.number)
        return any(one.unit != replica.unit for one in before)

    def place(self, host: str, model: str, number: int) -> int:
        """Return which place on a host a replica has, or will be given next; the first is 0."""
        for one in self.before(host, model, number):
            return _place(one.port)
        taken = self._taken.get(host, ())
        return next(place for place in range(ports.PLACES) if place not in taken)

    def port(self, host: str, model: str, number: int, unit: str) -> int:
        """Return the port of a unit: the one it has, its predecessor's other one, or a new one."""
        before = self.before(host, model, number)
        for one in before:
            if one.unit == unit:
                return one.port
        taken = {one.port for one in self.on(host)}
        for one in before:
            for port in _both(_place(one.port)):
                if port not in taken:
                    return port
        if before:  # two generations stand there already; the first of them goes before this starts
            return before[0].port
        place = self.place(host, model, number)
        self._taken.setdefault(host, set()).add(place)
        return ports.REPLICA_BASE + place

    def open_ports(self, host: str, wanted: Sequence[Replica]) -> tuple[int, ...]:
        """Return the ports to let through: both of each place, whether it changes or not."""
        used = [*(one.port for one in wanted), *(one.port for one in self.on(host))]
        return tuple(sorted({port for one in used for port in _both(_place(one))}))


def _place(port: int) -> int:
    return (port - ports.REPLICA_BASE) % ports.PLACES


def _both(place: int) -> tuple[int, int]:
    return ports.REPLICA_BASE + place, ports.REPLICA_BASE + ports.PLACES + place


def replacements(
    standing: Standing,
    replicas: Sequence[Replica],
    others: Sequence[Present],
    room: Callable[[Replica], bool],
) -> tuple[Replacement, ...]:
    """Return which of a host's replicas take the place of which units; `room` says who fits beside.

    A unit that stands already and was not given its predecessors' place yet is among them.
    """
    found = []
    for replica in replicas:
        names = {one.unit for one in standing.before(replica.host, replica.model, replica.number)}
        olds = tuple(one for one in others if one.unit in names)
        if olds:
            begun = replica.unit in names
            clash = any(one.url == replica.url for one in olds)
            found.append(
                Replacement(
                    unit=replica.unit,
                    model=replica.model,
                    pool=replica.pool,
                    url=replica.url,
                    start_seconds=replica.start_seconds,
                    replaces=olds,
                    beside=not clash and (begun or room(replica)),
                    standby=replica.standby,
                    begun=begun,
                )
            )
    return tuple(found)


def interruptions(hosts: Sequence[HostPlan]) -> Iterator[Finding]:
    """Yield which models nobody serves for a while: their one replica has to go before the next."""
    serving = Counter(one.model for host in hosts for one in host.others)
    for host in hosts:
        new = {each.unit for each in host.replacements}
        serving.update(
            one.model for one in host.replicas if one.unit not in new and not one.standby
        )
    for host in hosts:
        for each in host.replacements:
            if not each.beside and serving[each.model] <= len(each.replaces):
                yield Finding(
                    name="interruption",
                    verdict="inconclusive",
                    host=host.name,
                    detail=f"{each.model} has one replica, and its next one does not fit beside "
                    "it: nobody answers for it until that one has started",
                    fix="more memory, or a second replica: holdfast scale MODEL 2",
                )
