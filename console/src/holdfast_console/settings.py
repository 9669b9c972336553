"""What the console needs to know: from a YAML file, from options, options first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from holdfast_trust.errors import TrustError

_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


class Settings(BaseModel):
    """The settings of a console; the configuration file has the same keys as the options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    registry: str  # where this process reaches the model registry
    listen: str = "127.0.0.1:8103"
    public_url: str = ""  # where browsers reach the console; http://LISTEN if not given
    hub_url: str = (
        ""  # what clients set as HF_ENDPOINT, shown to people; the registry's if not given
    )
    # 32 random bytes or more; without one, sessions end when the process does.
    secret_file: Path | None = None

    @field_validator("listen")
    @classmethod
    def _is_address_and_port(cls, value: str) -> str:
        match = _LISTEN.fullmatch(value)
        if match is None or not 0 < int(match[2]) < 1 << 16:
            raise ValueError(f"expected ADDRESS:PORT, such as 127.0.0.1:8103, not {value!r}")
        return value

    @field_validator("registry", "public_url", "hub_url")
    @classmethod
    def _is_origin(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.query):
            raise ValueError(f"expected http://HOST or https://HOST, not {value!r}")
        return value.rstrip("/")

    @property
    def address(self) -> tuple[str, int]:
        """Address and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def origin(self) -> str:
        """The origin that browsers see, as they write it in the Origin header."""
        return self.public_url or f"http://{self.listen}"

    @property
    def endpoint(self) -> str:
        """What a client sets as HF_ENDPOINT."""
        return self.hub_url or self.registry


def read_settings(config: Path | None, options: dict[str, Any]) -> Settings:
    """Merge the file with the options that were given; TrustError names the wrong key."""
    document: Any = {}
    if config is not None:
        try:
            document = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
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


def _mistake(config: Path | None, cause: str) -> TrustError:
    return TrustError(
        "the console's settings have mistakes",
        where=str(config) if config else "the options",
        cause=cause,
        next_command="holdfast-console serve --help",
    )
