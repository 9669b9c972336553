"""What `serve` needs to know: from a YAML file, from options, options first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, field_validator

from holdfast_hub_protocol.quotas import Quotas
from holdfast_hub_protocol.xet import READS_OVER
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.replication_access import Replica
from holdfast_model_registry.signing_key import Signer
from holdfast_model_registry.storage import Locations

_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


class QuotaSettings(BaseModel):
    """How much each namespace may hold; a number of bytes or text such as 500GiB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: ByteSize | None = None  # no limit
    teams: dict[str, ByteSize | None] = Field(default_factory=dict)

    @property
    def quotas(self) -> Quotas:
        """The same, as the protocol takes it."""
        return Quotas(self.default, self.teams)


class Settings(BaseModel):
    """The settings of a registry; the configuration file has the same keys as the options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    listen: str = "127.0.0.1:8101"
    database: str = ""
    trust_database: str = ""
    ledger: Path | None = None
    seed: Path | None = None
    jurisdiction: str = ""  # the label of what clients make here; without one they make nothing
    kinds: tuple[Literal["model", "dataset"], ...] = ("model", "dataset")
    accelerate: Literal["", "nginx"] = ""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    policy: Path | None = None
    quotas: QuotaSettings = QuotaSettings()  # in the configuration file only
    xet_reads_over: ByteSize = ByteSize(READS_OVER)  # likewise: larger files are read by xet
    signers: tuple[Signer, ...] = ()  # likewise: whose model signatures and receipts are believed
    replicas: tuple[Replica, ...] = ()  # likewise: registries that copy what may be where they are

    @field_validator("kinds", mode="before")
    @classmethod
    def _is_a_list(cls, value: Any) -> Any:  # noqa: ANN401 - as it was written
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("kinds")
    @classmethod
    def _names_each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("expected model, dataset or both, such as model,dataset")
        return value

    @field_validator("listen")
    @classmethod
    def _is_address_and_port(cls, value: str) -> str:
        match = _LISTEN.fullmatch(value)
        if match is None or not 0 < int(match[2]) < 1 << 16:
            raise ValueError(f"expected ADDRESS:PORT, such as 127.0.0.1:8101, not {value!r}")
        return value

    @property
    def address(self) -> tuple[str, int]:
        """Address and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def locations(self) -> Locations:
        """Where everything is."""
        return Locations(self.data, self.database, self.trust_database, self.ledger)


def read_settings(config: Path | None, options: dict[str, Any]) -> Settings:
    """Merge the file with the options that were given; RegistryError names the wrong key."""
    document: Any = {}
    if config is not None:
        try:
            document = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise _mistake(config, error.strerror or str(error)) from error
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise _mistake(config, str(error)) from error
        if not isinstance(document, dict):
            raise _mistake(config, "expected keys and values")
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return Settings.model_validate({**document, **given})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
            for each in error.errors(include_input=False)
        )
        raise _mistake(config, problems) from None


def _mistake(config: Path | None, cause: str) -> RegistryError:
    return RegistryError(
        "the registry's settings have mistakes",
        where=str(config) if config else "the options",
        cause=cause,
        next_command="holdfast-model-registry serve --help",
    )
