"""Checking a ledger from its files alone: no service, no database, no trust in the writer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import rfc8785

from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import files
from holdfast_trust.ledger.checkpoint import Checkpoint, Verifier
from holdfast_trust.ledger.merkle import Frontier, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_ENTRY_FINDINGS = 20

Name = Literal["entry", "checkpoint", "truncated", "fork", "unsigned", "unanchored", "torn"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing seen; `fail` means the ledger is not what was written."""

    name: Name
    verdict: Literal["pass", "fail", "inconclusive"]
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification saw. `covered` entries stand under a signed checkpoint."""

    path: str
    origin: str
    entries: int
    covered: int
    checkpoints: int
    root: str
    anchored: bool
    findings: tuple[Finding, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether nothing was found that an honest writer could not have left."""
        return not any(finding.verdict == "fail" for finding in self.findings)

    def as_dict(self) -> dict[str, object]:
        """Return plain data for JSON, `ok` included."""
        return {"ok": self.ok, **asdict(self)}


def verify(
    path: Path | str, *, public_key: str | None = None, anchors: Iterable[str] = ()
) -> Report:
    """Recompute a ledger and compare it with its checkpoints; never writes.

    `public_key` (the text of key.pub) and `anchors` (signed notes) are what was kept elsewhere:
    only they can show that files, key and checkpoints were not replaced together.
    """
    folder = Path(path)
    findings: list[Finding] = []
    verifier = _verifier(folder, public_key, findings)
    # Checkpoints before entries: a writer may be at work, and what it signs is on disk already.
    signed = list(_checkpoints(folder, verifier, findings))
    outside = list(_anchors(anchors, verifier, findings))
    entries = folder / files.ENTRIES
    if not entries.is_file():
        raise TrustError("there is no ledger here", where=str(folder), cause="no entries.jsonl")
    frontier = _replay(entries, [*signed, *outside], findings)
    covered = max((each.size for each in [*signed, *outside]), default=0)
    _judge_cover(frontier.size, covered, signed, outside, findings)
    return Report(
        path=str(folder),
        origin=verifier.name,
        entries=frontier.size,
        covered=min(covered, frontier.size),
        checkpoints=len(signed),
        root=frontier.root().hex(),
        anchored=bool(outside),
        findings=tuple(findings),
    )


def _verifier(folder: Path, public_key: str | None, findings: list[Finding]) -> Verifier:
    where = folder / "key.pub"
    try:
        beside = where.read_text(encoding="utf-8") if where.exists() else ""
        verifier = Verifier.parse(beside if public_key is None else public_key)
    except (OSError, ValueError) as error:
        raise TrustError(
            "the ledger's public key cannot be read",
            where=str(where),
            cause=str(error),
            next_command="give the key kept elsewhere with --public-key",
        ) from error
    if public_key is not None and beside.strip() != public_key.strip():
        findings.append(Finding("fork", "fail", f"key.pub is not the key given ({verifier.name})"))
    return verifier


def _checkpoints(folder: Path, verifier: Verifier, findings: list[Finding]) -> Iterable[Checkpoint]:
    last: Checkpoint | None = None
    for number, line in enumerate(files.lines(folder / files.CHECKPOINTS), start=1):
        try:
            checkpoint = verifier.open(str(json.loads(line)))
        except ValueError as error:
            findings.append(Finding("checkpoint", "fail", f"checkpoint {number}: {error}"))
            continue
        if last is not None and checkpoint.size < last.size:
            findings.append(
                Finding(
                    "fork",
                    "fail",
                    f"checkpoint {number} covers {checkpoint.size} entries, "
                    f"the one before it {last.size}: the log was shortened and went on",
                )
            )
        last = checkpoint
        yield checkpoint


def _anchors(
    anchors: Iterable[str], verifier: Verifier, findings: list[Finding]
) -> Iterable[Checkpoint]:
    for number, note in enumerate(anchors, start=1):
        try:
            yield verifier.open(note)
        except ValueError as error:
            findings.append(Finding("fork", "fail", f"outside checkpoint {number}: {error}"))


def _replay(path: Path, checkpoints: list[Checkpoint], findings: list[Finding]) -> Frontier:
    """Fold every entry, comparing the root wherever a checkpoint has one."""
    expected: dict[int, set[bytes]] = {}
    for each in checkpoints:
        expected.setdefault(each.size, set()).add(each.root)
    frontier, length, damaged = Frontier(), 0, 0
    _compare(frontier, expected, findings)
    for line in files.lines(path):
        problem = _damage(line, frontier.size)
        damaged += bool(problem)
        if problem and damaged <= _MOST_ENTRY_FINDINGS:
            findings.append(Finding("entry", "fail", f"entry {frontier.size}: {problem}"))
        frontier.append(leaf_hash(line))
        length += len(line) + 1
        _compare(frontier, expected, findings)
    if damaged > _MOST_ENTRY_FINDINGS:
        rest = damaged - _MOST_ENTRY_FINDINGS
        findings.append(Finding("entry", "fail", f"{rest} more entries are damaged"))
    torn = path.stat().st_size - length
    if torn:
        findings.append(
            Finding(
                "torn",
                "inconclusive",
                f"{torn} bytes after the last entry: a write in progress, or one cut off "
                "before it was confirmed",
                fix="the next append removes it",
            )
        )
    findings.extend(
        Finding(
            "truncated",
            "fail",
            f"a signed checkpoint covers {size} entries, {frontier.size} are there",
        )
        for size in sorted(expected)
        if size > frontier.size
    )
    return frontier


def _compare(frontier: Frontier, expected: dict[int, set[bytes]], findings: list[Finding]) -> None:
    roots = expected.get(frontier.size)
    if roots is None:
        return
    if len(roots) > 1:
        findings.append(Finding("fork", "fail", f"two signed histories of {frontier.size} entries"))
    if frontier.root() not in roots:
        findings.append(
            Finding(
                "checkpoint",
                "fail",
                f"the first {frontier.size} entries are not those that were signed",
            )
        )


def _damage(line: bytes, index: int) -> str:
    """Return what is wrong with a record, "" if nothing."""
    try:
        # RFC 8785 knows no integers: 2.0**53 is written like one, and must read back as it was.
        found = json.loads(line, parse_int=float)
        if rfc8785.dumps(found) != line:
            return "not in canonical form"
        if set(found) != {"event", "index", "time"} or not isinstance(found["event"], dict):
            return "not a record"
    except (ValueError, TypeError, RecursionError, rfc8785.CanonicalizationError) as error:
        return f"not a record: {error}"
    if not isinstance(found["index"], float) or found["index"] != index:
        return f"says it is entry {found['index']}"
    return ""


def _judge_cover(
    entries: int,
    covered: int,
    signed: list[Checkpoint],
    outside: list[Checkpoint],
    findings: list[Finding],
) -> None:
    if not signed:
        # The first checkpoint is signed before the first entry, so this is not a young ledger.
        findings.append(Finding("unsigned", "fail", "the ledger has no checkpoint of its own"))
    elif entries > covered:
        findings.append(
            Finding(
                "unsigned",
                "inconclusive",
                f"{entries - covered} entries are newer than the last checkpoint",
                fix="verify again after the service has signed one, or stop it",
            )
        )
    if not outside:
        findings.append(
            Finding(
                "unanchored",
                "inconclusive",
                "no checkpoint from elsewhere was given: whoever holds this host's key could "
                "have rewritten everything",
                fix="give a checkpoint that a witness kept: --checkpoint FILE",
            )
        )
