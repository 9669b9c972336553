"""What a probe saw and what it means: observations are recorded raw, verdicts beside them."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, JsonValue

from holdfast_installer.errors import Finding, Verdict

if TYPE_CHECKING:
    from pathlib import Path

SATISFIED: frozenset[Verdict] = frozenset({"pass", "not-applicable"})


class Observation(BaseModel):
    """One look from one vantage: a host's own words, or the operator's positive control."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    control: str
    vantage: str
    host: str
    boot_id: str = ""
    taken_at: datetime
    script: str  # sha256 of the script that ran
    seen: JsonValue
    problem: str = ""  # why there is nothing in `seen`; an observation that failed is never empty


class AuditResult(BaseModel):
    """One audit: when, by what nonce, every verdict and every observation behind them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    nonce: str
    began_at: datetime
    ended_at: datetime
    verdicts: tuple[Finding, ...]
    observations: tuple[Observation, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The verdicts that need somebody's attention."""
        return tuple(one for one in self.verdicts if one.verdict not in SATISFIED)


def write(result: AuditResult, folder: Path) -> Path:
    """Write the evidence under the digest of its content; return the file.

    The name is the SHA-256 of the bytes, so that two audits never share a file and an altered one
    no longer carries its name.
    """
    content = json.dumps(result.model_dump(mode="json"), indent=2, sort_keys=True).encode()
    folder.mkdir(parents=True, exist_ok=True)
    stamp = result.began_at.strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"{stamp}-{hashlib.sha256(content).hexdigest()}.json"
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)
    return path
