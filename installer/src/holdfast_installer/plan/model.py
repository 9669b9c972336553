"""The shape of a plan: plain, frozen data that the inventory hands to Ansible."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from holdfast_installer.errors import Finding

VllmValue = JsonValue


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(_Part):
    """Traffic to allow: `peers` are CIDRs of one family; an empty list of peers does not occur."""

    family: Literal["ip", "ip6"]
    protocol: Literal["tcp", "udp"]
    ports: tuple[int, ...]
    peers: tuple[str, ...]
    why: str


class Firewall(_Part):
    """The allow list of one host; everything else gets `default`."""

    default: Literal["deny"]
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]


class Environment(_Part):
    """One Python environment on a host; `path` ends in the digest of its requirements."""

    name: str
    requirements_digest: str
    path: str
    link: str


class Replica(_Part):
    """One vLLM unit, holdfast-vllm@<unit>.service, which may take `start_seconds` to answer.

    On `standby` it runs and answers, and no balancer sends it requests.
    """

    unit: str
    model: str
    number: int
    standby: bool
    commit: str
    pool: str
    host: str
    port: int
    url: str
    model_path: str
    start_seconds: int
    args: dict[str, VllmValue]
    env: dict[str, str]


class Present(_Part):
    """A vLLM unit that a host has, and that the site no longer asks for as it is."""

    unit: str
    model: str
    commit: str
    host: str
    pool: str
    url: str


class Replacement(_Part):
    """A unit that takes the place of others of its host; `beside` them where memory allows both.

    It is `begun` where the host has it already: an apply was interrupted, or it is a canary.
    """

    unit: str
    model: str
    pool: str
    url: str
    start_seconds: int
    replaces: tuple[Present, ...]
    beside: bool
    begun: bool
    standby: bool


class CertificateNames(_Part):
    """Subject alternative names of a host's certificate."""

    dns: tuple[str, ...]
    ip: tuple[str, ...]


class HostPlan(_Part):
    """Everything decided for one host; sizes are in bytes.

    `standing` are the units that it has already. `others` are those of them that are not among the
    replicas: some are replaced, the `retiring` ones are let go of at the end.
    """

    name: str
    fqdn: str
    address: str
    address6: str
    roles: tuple[str, ...]
    pool: str
    jurisdiction: str
    hardware: str
    debian: tuple[str, ...]
    environments: tuple[Environment, ...]
    release_path: str
    certificate: CertificateNames
    firewall: Firewall
    replicas: tuple[Replica, ...]
    replacements: tuple[Replacement, ...]
    standing: tuple[str, ...]
    others: tuple[Present, ...]
    retiring: tuple[Present, ...]
    chrony_adjust_clock: bool
    copy_bytes: int
    disk_bytes: int
    memory_bytes: int


class Joining(_Part):
    """A replica that takes nobody's place: its balancer is told as soon as it answers."""

    host: str
    url: str


class Pool(_Part):
    """One smg on the control host and the vLLM units behind it.

    `workers` are the addresses it ends with, `serving` those it has meanwhile: the units that are
    there already.
    """

    name: str
    index: int
    hardware: str
    host: str
    port: int
    metrics_port: int
    workers: tuple[str, ...]
    serving: tuple[str, ...]
    joining: tuple[Joining, ...]
    models: tuple[str, ...]


class Gateway(_Part):
    """One gateway on the control host, holdfast-gateway@<number>.service."""

    number: int
    name: str
    port: int
    metrics_port: int


class ModelFile(_Part):
    """One file of a model: path in the repository, digest (sha256:...), bytes, git's own name."""

    filename: str
    digest: str
    size: int
    git_oid: str


class ServedPool(_Part):
    """A pool of a model: whom it serves and the sequences its replicas work on at once.

    `slots` is None where vLLM decides, which tells nobody.
    """

    pool: str
    teams: tuple[str, ...]
    replicas: int
    slots: int | None


class PlannedModel(_Part):
    """One model: what is imported into the registry and what a unit must find on disk.

    `pool` and its `replicas` and `slots` serve every team that no one of `pools` names.
    """

    id: str
    commit: str
    pool: str
    replicas: int
    slots: int | None
    pools: tuple[ServedPool, ...]
    teams: tuple[str, ...]
    jurisdiction: str
    classification: str
    path: str
    bytes: int
    files: tuple[ModelFile, ...]
    context_tokens: int | None = None


class DnsRecord(_Part):
    """One record of the site's own zone."""

    name: str
    type: Literal["A", "AAAA"]
    value: str


class Services(_Part):
    """Where clients find the site's services."""

    hub: str
    api: str
    mirror: str


class Step(_Part):
    """One capability on its hosts, in the order in which apply does it."""

    number: int
    capability: str
    hosts: tuple[str, ...]
    summary: str


class Plan(_Part):
    """What apply would do, and everything that bars it."""

    site: str
    domain: str
    bundle_digest: str
    release: str
    release_path: str
    control: str
    hosts: dict[str, HostPlan]
    pools: tuple[Pool, ...]
    gateways: tuple[Gateway, ...]
    models: tuple[PlannedModel, ...]
    dns: tuple[DnsRecord, ...]
    dns_upstreams: tuple[str, ...]
    time_servers: tuple[str, ...]
    services: Services
    steps: tuple[Step, ...]
    blockers: tuple[Finding, ...]
    notes: tuple[Finding, ...]
