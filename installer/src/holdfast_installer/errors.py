"""The shape of every problem Holdfast reports: what, where, why, and the next command."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal[
    "pass",
    "fail",
    "error",
    "inconclusive",
    "not-run",
    "stale",
    "not-applicable",
    "attested",
    "waived",
]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3


class Finding(BaseModel):
    """One observation with its verdict; findings are values, never log lines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""
    host: str = ""


class HoldfastError(Exception):
    """A problem told to a person: what happened, where, why, and what to run next."""

    def __init__(
        self,
        problem: str,
        *,
        where: str = "",
        cause: str = "",
        next_command: str = "",
        exit_code: int = EXIT_FAILED,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.cause = cause
        self.next_command = next_command
        self.exit_code = exit_code

    def __str__(self) -> str:
        lines = [self.problem]
        lines += [f"  where: {self.where}"] if self.where else []
        lines += [f"  why:   {self.cause}"] if self.cause else []
        lines += [f"  next:  {self.next_command}"] if self.next_command else []
        return "\n".join(lines)


class Refused(HoldfastError):  # noqa: N818 - an answer, not a fault
    """Nothing was touched, because of these findings; exit code 3."""

    def __init__(
        self, problem: str, findings: tuple[Finding, ...], *, next_command: str = ""
    ) -> None:
        super().__init__(problem, next_command=next_command, exit_code=EXIT_REFUSED)
        self.findings = findings

    def __str__(self) -> str:
        lines = [self.problem]
        for finding in self.findings:
            at = f" [{finding.host}]" if finding.host else ""
            lines.append(f"  {finding.verdict:>12}  {finding.name}{at}: {finding.detail}")
            if finding.fix:
                lines.append(f"{'':>14}  fix: {finding.fix}")
        if self.next_command:
            lines.append(f"  next:  {self.next_command}")
        return "\n".join(lines)
