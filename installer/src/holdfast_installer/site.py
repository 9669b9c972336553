"""Everything an operator writes: the Site, its fields, and what must agree between them."""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    IPvAnyAddress,
    IPvAnyNetwork,
    JsonValue,
    StringConstraints,
    ValidationInfo,
)

import holdfast_profiles
from holdfast_installer.site_budgets import Budget, BudgetRules, budget_disagreements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HostRole = Literal["control", "serving"]
HardwareChoice = Literal["auto", "cpu-low-power", "gpu-nvidia", "gpu-amd", "gpu-intel"]
Level = Literal["baseline", "restricted", "sealed"]
Address = IPvAnyAddress
Network = IPvAnyNetwork

LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
DOMAIN = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$"
MODEL_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"

SIGNER = r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,79}$"

DnsLabel = Annotated[str, StringConstraints(pattern=LABEL)]
# Some options take a dictionary; the planner knows which value suits which option.
VllmValue = JsonValue

# What the platform sets itself: an operator's value would open a door or break the wiring.
PLATFORM_VLLM_OPTIONS = frozenset(
    {
        "allowed_media_domains",
        "allowed_origins",
        "api_key",
        "host",
        "model",
        "port",
        "root_path",
        "scheduling_policy",
        "served_model_name",
        "shutdown_timeout",
        "ssl_ca_certs",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_keyfile",
        "tokenizer",
        "trust_remote_code",
        "uds",
    }
)


def _against_site_file(path: Path, info: ValidationInfo) -> Path:
    """Resolve a relative path against the folder of the file it is written in."""
    base = (info.context or {}).get("base")
    expanded = path.expanduser()
    return expanded if expanded.is_absolute() or base is None else (base / expanded).resolve()


def _known_jurisdiction(label: str) -> str:
    known = holdfast_profiles.names("jurisdiction")
    if label not in known:
        raise ValueError(f"known jurisdictions are {', '.join(known)}; found {label!r}")
    return label


def _known_sector(label: str | None) -> str | None:
    known = holdfast_profiles.names("sector")
    if label is not None and label not in known:
        shipped = ", ".join(known) or "none yet"
        raise ValueError(f"sector profiles shipped: {shipped}; found {label!r}")
    return label


def _vllm_options(options: dict[str, VllmValue]) -> dict[str, VllmValue]:
    for name, value in options.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"vLLM options are written like max_model_len; found {name!r}")
        if name in PLATFORM_VLLM_OPTIONS:
            raise ValueError(f"{name} is set by the platform and cannot be set here")
        if value is None:
            raise ValueError(f"{name} has no value")
    return options


def _no_bool(value: object) -> object:
    """Refuse true and false where a number is meant: pydantic would read them as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"a whole number is expected; found {value}")  # noqa: TRY004 - pydantic collects ValueError only
    return value


SitePath = Annotated[Path, AfterValidator(_against_site_file)]
Jurisdiction = Annotated[str, AfterValidator(_known_jurisdiction)]
Price = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=6)]
Port = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=65535)]


class Part(BaseModel):
    """A part of the Site: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Profiles(Part):
    """Which profiles compose into the rules of this site; the strictest value wins."""

    level: Level = Field(
        "restricted", description="How closed the site is: baseline, restricted or sealed."
    )
    hardware: HardwareChoice = Field(
        "auto", description="Hardware profile of serving hosts; auto takes the survey's advice."
    )
    sector: Annotated[str | None, AfterValidator(_known_sector)] = Field(
        None, description="Sector profile, where one is shipped."
    )


class Ssh(Part):
    """How the operator's machine reaches the hosts; host keys are always checked."""

    user: str = Field("root", min_length=1, description="Account on the hosts.")
    port: Port = Field(22, description="SSH port of the hosts.")
    private_key: SitePath = Field(description="Private key file of the operator.")
    known_hosts: SitePath = Field(
        description="File with the hosts' public keys; an unknown or changed key is refused."
    )


class Networks(Part):
    """Who may reach the hosts from outside them (CIDR, IPv4 and IPv6)."""

    operators: tuple[Network, ...] = Field(
        min_length=1, description="May open SSH connections to the hosts."
    )
    users: tuple[Network, ...] = Field(
        (), description="May reach the edge (HTTPS) and ask the site's DNS."
    )


class Host(Part):
    """One machine of the site."""

    name: DnsLabel = Field(description="RFC 1123 label; the host is <name>.<domain>.")
    address: Address = Field(description="Address by which operator and hosts reach it.")
    address6: IPv6Address | None = Field(None, description="IPv6 address beside an IPv4 one.")
    roles: tuple[HostRole, ...] = Field(min_length=1, description="control, serving, or both.")
    pool: DnsLabel | None = Field(None, description="Pool of a serving host.")
    jurisdiction: Jurisdiction | None = Field(
        None, description="Where the host stands, if not where the site does."
    )
    hardware: HardwareChoice | None = Field(
        None, description="Hardware profile of this host, if not the site's."
    )
    watts: float | None = Field(
        None, gt=0, le=1_000_000, description="What it draws, where nothing can measure it."
    )

    def addresses(self) -> tuple[Address, ...]:
        """Return every address of the host, the main one first."""
        return (self.address,) if self.address6 is None else (self.address, self.address6)


class TeamPool(Part):
    """A further pool that serves a model, to the teams it names alone."""

    pool: DnsLabel = Field(description="Pool of hosts.")
    replicas: Annotated[int, BeforeValidator(_no_bool)] = Field(
        1, ge=1, le=1000, description="Copies served there."
    )
    teams: tuple[str, ...] = Field(
        min_length=1, description="Teams served there, and nowhere else."
    )


class Model(Part):
    """A model to carry in and to serve."""

    id: Annotated[str, StringConstraints(pattern=MODEL_ID)] = Field(
        description="organisation/name, as clients ask for it."
    )
    source: str = Field(
        min_length=1,
        description="Folder (starting with /, ./, ../ or ~/) or organisation/name on the hub.",
    )
    revision: str = Field("main", min_length=1, description="Branch, tag or 40-hex commit.")
    pool: DnsLabel = Field(description="Pool of hosts that serves it.")
    replicas: Annotated[int, BeforeValidator(_no_bool)] = Field(
        1, ge=1, le=1000, description="Copies served, spread over the hosts of the pool."
    )
    standby: Annotated[int, BeforeValidator(_no_bool)] = Field(
        0, ge=0, le=100, description="Copies kept warm beside them; scaling up takes these first."
    )
    pools: tuple[TeamPool, ...] = Field(
        (), description="Further pools for the teams they name; other teams go to pool."
    )
    teams: tuple[str, ...] = Field((), description="Teams that may use it; none means nobody.")
    vllm: Annotated[dict[str, VllmValue], AfterValidator(_vllm_options)] = Field(
        default_factory=dict, description="vLLM engine options, e.g. max_model_len: 4096."
    )

    @property
    def is_local(self) -> bool:
        """Say whether the source is a folder rather than a repository on a hub."""
        return self.source.startswith(("/", "./", "../", "~/")) or self.source in {".", ".."}


class Tariff(Part):
    """What the tokens of a model cost: prices of a million, with six decimals at most."""

    prompt: Price = Field(description="Prompt tokens.")
    cached: Price | None = Field(
        None, description="Prompt tokens found in the prefix cache, if not as other ones."
    )
    completion: Price = Field(description="Tokens generated.")


class Share(Part):
    """What a team may take when there is not enough for all."""

    weight: float = Field(
        1.0, gt=0, le=1000, description="Its part of a full pool, beside other teams' weights."
    )
    concurrency: Annotated[int | None, BeforeValidator(_no_bool)] = Field(
        None, ge=1, description="Answers in progress at once, over all models; more wait."
    )


class Fairness(Part):
    """Lanes and queues in front of the models; times in seconds."""

    short_prompt_tokens: int = Field(
        1024, ge=1, description="Longest prompt of the short lane, in tokens (estimated)."
    )
    short_answer_tokens: int = Field(
        256, ge=1, description="Most tokens that a request of the short lane may ask for."
    )
    short_share: float = Field(
        0.125, ge=0, le=0.5, description="Part of a pool that long requests never take."
    )
    ageing_seconds: float = Field(
        10, gt=0, le=3600, description="Who waited so long goes before short requests."
    )
    queue_seconds: float = Field(
        30, gt=0, le=3600, description="Longest wait; beyond it a request is refused at once."
    )
    short_queue_seconds: float = Field(
        10, gt=0, le=3600, description="Longest wait of a short request."
    )


class Team(Part):
    """People who share access."""

    name: DnsLabel = Field(description="RFC 1123 label.")
    users: tuple[DnsLabel, ...] = Field(
        (), description="User names; at the next apply, who was taken off the list leaves the team."
    )
    share: Share = Share()


class Signer(Part):
    """Somebody whose model signatures (OpenSSF model-signing) and training receipts count."""

    name: Annotated[str, StringConstraints(pattern=SIGNER)] = Field(
        description="Who signs, as verification shows it."
    )
    key: SitePath = Field(description="PEM file of the public key or certificate.")


class Replica(Part):
    """Another site's registry that may copy the models whose labels permit it."""

    name: DnsLabel = Field(description="Name of the service that its token stands for.")
    jurisdiction: Jurisdiction = Field(description="Where it stands.")
    classification: str = Field(
        "internal", min_length=1, description="Highest classification that may go there."
    )


class Quotas(Part):
    """How much the registry keeps for each team; a number of bytes or text such as 500GiB."""

    default: ByteSize | None = Field(None, description="For every team and user; null: no limit.")
    teams: dict[DnsLabel, ByteSize | None] = Field(
        default_factory=dict, description="For teams and users that differ; null: no limit."
    )


class Canary(Part):
    """Addresses outside the site that egress probes try, and must fail, to reach."""

    ipv4: IPv4Address
    ipv6: IPv6Address
    tcp_port: Port = 7007
    udp_port: Port = 7007
    witness: Annotated[str, StringConstraints(pattern=r"^http://")] | None = Field(
        None,
        description="Where the operator reads what reached the canary: GET <witness>/seen/<nonce>.",
    )


class Dns(Part):
    """Name resolution; the site's own names are always answered inside."""

    upstreams: tuple[Address, ...] = Field(
        (), description="Internal resolvers to ask for other names; none refuses them."
    )


class Time(Part):
    """Time sources."""

    servers: tuple[Address, ...] = Field(
        (), description="Internal time servers; without any, the control host's clock leads."
    )


class Site(Part):
    """All that an operator writes about a site."""

    name: DnsLabel = Field(description="Name of the site.")
    domain: Annotated[str, StringConstraints(pattern=DOMAIN, max_length=200)] = Field(
        description="DNS domain of hub.<domain> and api.<domain>; id.<domain> is reserved."
    )
    jurisdiction: Jurisdiction = Field(description="Label of the law the site stands under.")
    profiles: Profiles = Profiles()
    ssh: Ssh
    networks: Networks
    hosts: tuple[Host, ...] = Field(min_length=1)
    models: tuple[Model, ...] = ()
    teams: tuple[Team, ...] = ()
    gateways: Annotated[int, BeforeValidator(_no_bool)] = Field(
        2, ge=1, le=9, description="Gateways behind the edge; with one, a restart is felt."
    )
    quotas: Quotas = Quotas()
    fairness: Fairness = Fairness()
    currency: str = Field("EUR", pattern=r"^[A-Z]{3}$", description="Of all prices; ISO 4217.")
    tariffs: dict[str, Tariff] = Field(
        default_factory=dict, description="By the model's id; tokens of other models cost nothing."
    )
    budgets: tuple[Budget, ...] = ()
    budget_rules: BudgetRules = BudgetRules()
    signers: tuple[Signer, ...] = ()
    replicas: tuple[Replica, ...] = ()
    canary: Canary | None = None
    dns: Dns = Dns()
    time: Time = Time()

    def fqdn(self, host: Host) -> str:
        """Return the full DNS name of one of the site's hosts."""
        return f"{host.name}.{self.domain}"

    def host(self, name: str) -> Host:
        """Return the host of that name; `KeyError` when there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    def with_role(self, role: HostRole) -> tuple[Host, ...]:
        """Return the hosts that carry `role`, in the order written."""
        return tuple(host for host in self.hosts if role in host.roles)

    def in_pool(self, pool: str) -> tuple[Host, ...]:
        """Return the serving hosts of a pool, in the order written."""
        return tuple(host for host in self.with_role("serving") if host.pool == pool)

    def pools(self) -> tuple[str, ...]:
        """Return the names of the pools in the order in which hosts first name them."""
        return tuple(dict.fromkeys(host.pool for host in self.with_role("serving") if host.pool))

    def host_jurisdiction(self, host: Host) -> str:
        """Return where a host stands: its own label, else the site's."""
        return host.jurisdiction or self.jurisdiction

    def host_hardware(self, host: Host) -> HardwareChoice:
        """Return the hardware profile asked for: the host's, else the site's; may be auto."""
        return host.hardware or self.profiles.hardware


Location = tuple[str | int, ...]
Disagreement = tuple[Location, str]
SERVICE_NAMES = ("hub", "api", "console", "id", "mirror")


def disagreements(site: Site) -> list[Disagreement]:
    """Return what is wrong between fields: where (path of keys) and what, in words."""
    return [
        *_host_disagreements(site),
        *_model_disagreements(site),
        *_tariff_disagreements(site),
        *budget_disagreements(
            site.budgets,
            [model.id for model in site.models],
            [team.name for team in site.teams],
            site.tariffs,
        ),
        *_team_disagreements(site),
        *_registry_disagreements(site),
    ]


def _twice(values: Iterable[tuple[Location, str]], what: str) -> Iterator[Disagreement]:
    listed = list(values)
    counts = Counter(value for _, value in listed)
    seen: set[str] = set()
    for location, value in listed:
        if counts[value] > 1 and value in seen:
            yield location, f"{what} {value!r} is used twice; each must be unique"
        seen.add(value)


def _host_disagreements(site: Site) -> Iterator[Disagreement]:
    hosts = list(enumerate(site.hosts))
    yield from _twice(((("hosts", i, "name"), host.name) for i, host in hosts), "host name")
    addresses = [(("hosts", i, "address"), str(host.address)) for i, host in hosts]
    addresses += [
        (("hosts", i, "address6"), str(host.address6)) for i, host in hosts if host.address6
    ]
    yield from _twice(addresses, "address")
    if not site.with_role("control"):
        yield ("hosts",), "at least one host must carry the role control; found none"
    for i, host in hosts:
        if host.name in SERVICE_NAMES:
            yield ("hosts", i, "name"), f"{host.name!r} is the name of a service of the site"
        if host.address6 and host.address.version == 6:
            yield (
                ("hosts", i, "address6"),
                "address is IPv6 already; address6 goes with an IPv4 one",
            )
        if "serving" in host.roles and host.pool is None:
            yield ("hosts", i), "a serving host needs a pool; found none"
        if "serving" not in host.roles and host.pool is not None:
            yield ("hosts", i, "pool"), "only a host with the role serving has a pool"
        if len(set(host.roles)) != len(host.roles):
            yield ("hosts", i, "roles"), "each role is written once"


def _model_disagreements(site: Site) -> Iterator[Disagreement]:
    models = list(enumerate(site.models))
    yield from _twice(((("models", i, "id"), model.id) for i, model in models), "model id")
    pools = site.pools()
    teams = {team.name for team in site.teams}
    for i, model in models:
        if model.pool not in pools:
            known = ", ".join(pools) or "none: no host carries the role serving"
            yield ("models", i, "pool"), f"no such pool: {model.pool!r}; known pools: {known}"
        for j, team in enumerate(model.teams):
            if team not in teams:
                known = ", ".join(sorted(teams)) or "none"
                yield ("models", i, "teams", j), f"no such team: {team!r}; known teams: {known}"
        yield from _pool_disagreements(i, model, pools)


def _pool_disagreements(i: int, model: Model, pools: tuple[str, ...]) -> Iterator[Disagreement]:
    """Yield what is wrong with the pools that serve single teams."""
    listed = list(enumerate(model.pools))
    named: list[tuple[Location, str]] = [(("models", i, "pool"), model.pool)]
    named += [(("models", i, "pools", j, "pool"), one.pool) for j, one in listed]
    yield from _twice(named, f"for {model.id}, pool")
    served = [
        (("models", i, "pools", j, "teams", k), team)
        for j, one in listed
        for k, team in enumerate(one.teams)
    ]
    yield from _twice(served, f"for the pools of {model.id}, team")
    for location, team in served:
        if team not in model.teams:
            yield location, f"{team!r} is not among the teams that may use {model.id}"
    for j, one in listed:
        if one.pool not in pools:
            known = ", ".join(pools) or "none: no host carries the role serving"
            yield (
                ("models", i, "pools", j, "pool"),
                f"no such pool: {one.pool!r}; known pools: {known}",
            )


def _tariff_disagreements(site: Site) -> Iterator[Disagreement]:
    models = {model.id for model in site.models}
    for model in site.tariffs:
        if model not in models:
            known = ", ".join(sorted(models)) or "none"
            yield ("tariffs", model), f"no such model: {model!r}; known models: {known}"


def _team_disagreements(site: Site) -> Iterator[Disagreement]:
    teams = list(enumerate(site.teams))
    yield from _twice(((("teams", i, "name"), team.name) for i, team in teams), "team name")
    owners = {user: "a user" for team in site.teams for user in team.users}
    owners |= {host.name: "a serving host" for host in site.with_role("serving")}
    for i, team in teams:
        if team.name in owners:
            yield (
                ("teams", i, "name"),
                f"{team.name!r} is {owners[team.name]}; users, services and teams share names",
            )
    for i, team in teams:
        yield from _twice(
            ((("teams", i, "users", j), user) for j, user in enumerate(team.users)),
            f"in team {team.name}, user",
        )


def _registry_disagreements(site: Site) -> Iterator[Disagreement]:
    signers = list(enumerate(site.signers))
    yield from _twice(((("signers", i, "name"), each.name) for i, each in signers), "signer")
    replicas = list(enumerate(site.replicas))
    yield from _twice(((("replicas", i, "name"), each.name) for i, each in replicas), "replica")
    hosts = {host.name for host in site.hosts}
    for i, replica in replicas:
        if replica.name in hosts:
            yield ("replicas", i, "name"), f"{replica.name!r} is a host; its token is another's"
