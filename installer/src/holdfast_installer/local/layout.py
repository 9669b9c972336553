"""Where the embedded form keeps its parts, and what it remembers between two starts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from holdfast_installer.bundle.durable import write_atomically
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The state folder of one embedded site; only its owner can read it."""

    root: Path

    @property
    def environments(self) -> Path:
        """Python environments built from bundles, one folder each."""
        return self.root / "environments"

    @property
    def tools(self) -> Path:
        """Programs and shared libraries taken out of the bundle."""
        return self.root / "tools"

    @property
    def registry(self) -> Path:
        """Data of the model registry."""
        return self.root / "registry"

    @property
    def ledger(self) -> Path:
        """The ledger that registry and gateway share."""
        return self.root / "ledger"

    @property
    def models(self) -> Path:
        """Models as they were pulled from the registry."""
        return self.root / "models"

    @property
    def scratch(self) -> Path:
        """Homes and caches of the services; losing it costs time only."""
        return self.root / "scratch"

    @property
    def logs(self) -> Path:
        """One file a service."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What the supervisor reads and writes."""
        return self.root / "run"

    @property
    def seed(self) -> Path:
        """Users, teams and tokens, as the registry loads them."""
        return self.root / "seed.yml"

    @property
    def policy(self) -> Path:
        """What the site's profiles ask of models, as the registry reads it."""
        return self.root / "policy.yml"

    @property
    def registry_settings(self) -> Path:
        """What of the registry's settings is no option."""
        return self.root / "registry.yml"

    @property
    def gateway(self) -> Path:
        """The gateway's configuration."""
        return self.root / "gateway.yml"

    @property
    def trust_database(self) -> str:
        """SQLAlchemy URL of users, teams and tokens."""
        return f"sqlite:///{self.root / 'trust.sqlite'}"

    @property
    def usage_database(self) -> str:
        """SQLAlchemy URL of the gateway's usage rows."""
        return f"sqlite:///{self.root / 'usage.sqlite'}"

    def model_folder(self, model: str, commit: str) -> Path:
        """Return where a pulled revision lies."""
        return self.models / model / commit

    def prepare(self) -> None:
        """Make the folders; the tokens in them are for nobody else."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for folder in (
            *(self.environments, self.tools, self.registry, self.ledger, self.models),
            *(self.scratch, self.logs, self.run),
        ):
            folder.mkdir(exist_ok=True)


class Remembered(BaseModel):
    """What stays the same from one start to the next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ports: dict[str, int] = {}
    tokens: dict[str, str] = {}  # of users and services, by name
    bundle: str = ""  # digest of the bundle that is installed
    site: str = ""  # digest of what the services were configured from


def recall(layout: Layout) -> Remembered:
    """Read what an earlier start wrote; empty before the first."""
    path = layout.root / "remembered.json"
    try:
        return Remembered.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Remembered()
    except (ValueError, ValidationError) as problem:
        raise HoldfastError(
            "The record of the last start cannot be read",
            where=str(path),
            cause=str(problem),
            next_command=f"holdfast down --local --state {layout.root}; rm -r {layout.root}",
        ) from problem


def remember(layout: Layout, known: Remembered) -> None:
    """Write the record; it holds tokens, so nobody else may read it."""
    text = known.model_dump_json(indent=2) + "\n"
    write_atomically(layout.root / "remembered.json", text.encode(), mode=0o600)
