"""The configuration file of a gateway: what it may contain, and errors that name file and field."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from holdfast_gateway.budgets.terms import Budget, BudgetRules
from holdfast_gateway.budgets.terms import faults as budget_faults
from holdfast_gateway.fairness.settings import FairnessSettings
from holdfast_gateway.metering.tariff import Tariff
from holdfast_trust.switches import MODEL_NAME


class ConfigError(Exception):
    """The configuration file cannot be used; the message has one line per fault."""


def _listen(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 < int(port) < 65536:
        msg = "expected ADDRESS:PORT, such as 127.0.0.1:8102 or [::1]:8102"
        raise ValueError(msg)
    return value


def _upstream(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = "expected http://HOST:PORT or https://HOST:PORT"
        raise ValueError(msg)
    if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
        msg = "expected no path, query or user name: the gateway adds /v1/... itself"
        raise ValueError(msg)
    return f"{parts.scheme}://{parts.netloc}"


def _loopback(value: str) -> str:
    host = _listen(value).rpartition(":")[0].strip("[]")
    if host not in {"127.0.0.1", "::1", "localhost"}:
        msg = "expected an address of loopback: what is read here is for nobody else"
        raise ValueError(msg)
    return value


def _model(value: str) -> str:
    if not MODEL_NAME.fullmatch(value):
        msg = "expected org/name: under another name nobody could stop it (holdfast kill model)"
        raise ValueError(msg)
    return value


Listen = Annotated[str, AfterValidator(_listen)]
ModelName = Annotated[str, AfterValidator(_model)]
LoopbackListen = Annotated[str, AfterValidator(_loopback)]
PrometheusUrl = Annotated[str, AfterValidator(_upstream)]
UpstreamUrl = Annotated[str, AfterValidator(_upstream)]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Trust(_Strict):
    """Where tokens and teams are kept."""

    database: str = Field(description="SQLAlchemy URL of the trust database.")
    seed: Path | None = Field(
        default=None,
        description="Seed file with users, teams and tokens, loaded at start. Embedded mode only.",
    )


class Labels(_Strict):
    """What policy decides on; a model without them is refused to everybody."""

    jurisdiction: str | None = None
    classification: str | None = None

    def as_dict(self) -> dict[str, str]:
        """Return the labels that are set."""
        return self.model_dump(exclude_none=True)


class Pool(_Strict):
    """Replicas of one model behind one load balancer, and the teams that are served there."""

    upstream: UpstreamUrl = Field(description="Base URL of the pool's load balancer.")
    teams: tuple[str, ...] = Field(default=(), description="Teams that are served here.")
    replicas: int = Field(default=1, ge=1, description="Replicas of the model in the pool.")
    slots: int | None = Field(
        default=None,
        ge=1,
        description="Sequences all its replicas work on at once: replicas times max_num_seqs.",
    )


class Model(_Strict):
    """One model clients can name, and the pools that serve it."""

    id: ModelName = Field(description="Name clients send: org/name.")
    upstream: UpstreamUrl = Field(description="Base URL of the load balancer of its pool.")
    ttft_seconds: Seconds | None = Field(
        default=None, description="Instead of limits.ttft_seconds: for what is slow to begin."
    )
    replicas: int = Field(default=1, ge=1, description="Replicas behind upstream.")
    slots: int | None = Field(
        default=None, ge=1, description="Sequences they work on at once, all together."
    )
    pools: tuple[Pool, ...] = Field(
        default=(), description="Pools for the teams they name; other teams go to upstream."
    )
    teams: tuple[str, ...] = Field(default=(), description="Teams that may use it.")
    labels: Labels = Labels()
    revision: str | None = Field(
        default=None, max_length=128, description="Commit or digest of what is served, as recorded."
    )
    tariff: Tariff | None = Field(default=None, description="What its tokens cost.")
    context_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens of prompt and completion together (vLLM's max_model_len).",
    )

    def pool_of(self, team: str | None) -> Pool:
        """Return the pool that serves a team: the first that names it, else the model's own."""
        for pool in self.pools:
            if team in pool.teams:
                return pool
        return self._own_pool

    @cached_property
    def _own_pool(self) -> Pool:
        return Pool(upstream=self.upstream, replicas=self.replicas, slots=self.slots)


class Limits(_Strict):
    """Sizes in bytes and times in seconds, after which the gateway gives up on somebody."""

    body_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, description="Largest request body in bytes."
    )
    body_seconds: Seconds = Field(default=30, description="For the client to send its body.")
    connect_seconds: Seconds = Field(default=3, description="To connect to the upstream.")
    first_byte_seconds: Seconds = Field(
        default=300, description="Until the first token of a stream, or the whole other answer."
    )
    ttft_seconds: Seconds = Field(
        default=10,
        description="Until the first token of a stream, before a second replica is asked as well.",
    )
    stall_seconds: Seconds = Field(
        default=15,
        description="Without a token, before a stream that can be resumed goes on elsewhere.",
    )
    recover_seconds: float = Field(
        default=10,
        ge=0,
        le=3600,
        description="For a balancer to come back, or a pool to have a replica, before a refusal.",
    )
    idle_seconds: Seconds = Field(
        default=120, description="Between two parts of a stream, reading or writing."
    )
    leave_seconds: float = Field(
        default=0,
        ge=0,
        le=60,
        description="After SIGTERM the health check says no, and requests are still taken.",
    )
    drain_seconds: Seconds = Field(
        default=60, description="For running requests to end once none are taken any more."
    )
    blind_seconds: Seconds = Field(
        default=60,
        description="Running answers go on so long while the kill switches cannot be read.",
    )
    usage_backlog: int = Field(
        default=10_000,
        ge=1,
        description="Unwritten usage rows above which new requests are refused.",
    )


class Config(_Strict):
    """All of gateway.yml."""

    instance: str = Field(
        default="gateway",
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="Name of this gateway among those that share its database.",
    )
    listen: Listen = Field(default="127.0.0.1:8102", description="ADDRESS:PORT to serve on.")
    database: str = Field(description="SQLAlchemy URL of the usage database.")
    trust: Trust
    ledger: Path = Field(description="Directory of the ledger.")
    models: tuple[Model, ...] = Field(default=(), description="The models offered.")
    limits: Limits = Limits()
    budgets: tuple[Budget, ...] = Field(default=(), description="What may be used at most.")
    budget_rules: BudgetRules = BudgetRules()
    fairness: FairnessSettings = FairnessSettings()
    currency: str = Field(
        default="EUR", pattern=r"^[A-Z]{3}$", description="Of the tariffs; ISO 4217."
    )
    metrics: LoopbackListen | None = Field(
        default=None,
        description="ADDRESS:PORT on loopback where Prometheus reads; none by default.",
    )
    prometheus: PrometheusUrl | None = Field(
        default=None,
        description="Base URL of the Prometheus that has energy and the replicas' own counters.",
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        seen: set[str] = set()
        for model in self.models:
            if model.id in seen:
                msg = f"two models have the id '{model.id}'"
                raise ValueError(msg)
            seen.add(model.id)
        return self

    @model_validator(mode="after")
    def _budgets_are_sound(self) -> Self:
        tariffs = {model.id: model.tariff is not None for model in self.models}
        if found := budget_faults(self.budgets, tariffs):
            raise ValueError("; ".join(found))
        return self

    @property
    def salt_key(self) -> Path:
        """Return where the secret behind the teams' cache_salt is kept."""
        return self.fairness.salt_key or self.ledger.parent / "cache_salt.key"

    @cached_property
    def models_by_id(self) -> dict[str, Model]:
        """Return the models by id, in the order of the file."""
        return {model.id: model for model in self.models}


def load(path: Path, *, listen: str | None = None) -> Config:
    """Read and check a configuration file; raise ConfigError naming file and field.

    `listen` replaces what the file says.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"{path}{line}: is not YAML: {problem}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping with 'database', 'trust', 'ledger', ...")
    if listen is not None:
        data["listen"] = listen
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        faults = [f"{path}: {_field(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise ConfigError("\n".join(faults)) from error


def _field(location: tuple[int | str, ...]) -> str:
    name = ""
    for part in location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}"
    return name.lstrip(".") or "(whole file)"
