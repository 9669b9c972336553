"""The record of every apply: what was planned, what happened, how it ended."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from pathlib import Path

Outcome = Literal["running", "done", "failed", "interrupted"]


class Record(BaseModel):
    """How one apply stands; kept in record.json of its journal folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    bundle: str
    operator: str
    process: int
    check: bool = False
    began_at: datetime
    ended_at: datetime | None = None
    outcome: Outcome = "running"
    changed: dict[str, int] = {}
    failed_hosts: dict[str, str] = {}


class Journal:
    """One folder per apply, named by its start, the newest last."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder = folder
        self.record = record

    @classmethod
    def begin(
        cls, root: Path, *, site: str, bundle: str, operator: str, check: bool = False
    ) -> Journal:
        """Open the journal of a new apply below `root`."""
        began = datetime.now(UTC)
        folder = root / f"{began:%Y%m%dT%H%M%S.%fZ}-apply"
        folder.mkdir(parents=True, mode=0o700)
        journal = cls(
            folder,
            Record(
                site=site,
                bundle=bundle,
                operator=operator,
                process=os.getpid(),
                check=check,
                began_at=began,
            ),
        )
        journal.save(journal.record)
        return journal

    @property
    def events(self) -> Path:
        """Where Ansible's callback writes."""
        return self.folder / "events.jsonl"

    @property
    def inventory(self) -> Path:
        """The inventory Ansible was given."""
        return self.folder / "inventory.yml"

    @property
    def output(self) -> Path:
        """What the child process printed."""
        return self.folder / "ansible.log"

    @property
    def scratch(self) -> Path:
        """Ansible's own temporary files, which may hold secrets; gone when the apply has ended."""
        return self.folder / "scratch"

    def end(
        self, outcome: Outcome, *, changed: dict[str, int], failed_hosts: dict[str, str]
    ) -> None:
        """Write how it ended, when nothing of it works any more."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.save(
            self.record.model_copy(
                update={
                    "outcome": outcome,
                    "ended_at": datetime.now(UTC),
                    "changed": changed,
                    "failed_hosts": failed_hosts,
                }
            )
        )

    def save(self, record: Record) -> None:
        """Replace the record; a reader sees the old or the new one, never half of it."""
        self.record = record
        partial = self.folder / "record.json.partial"
        partial.write_text(record.model_dump_json(indent=2) + "\n")
        partial.replace(self.folder / "record.json")


def previous(root: Path, site: str) -> Journal | None:
    """Return a site's newest journal below `root`, or None; a killed apply reads "running"."""
    for folder in sorted(root.glob("*-apply"), reverse=True):
        try:
            record = Record.model_validate(json.loads((folder / "record.json").read_text()))
        except (OSError, json.JSONDecodeError, ValidationError):
            continue
        if record.site == site:
            return Journal(folder, record)
    return None
