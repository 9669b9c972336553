"""The one error that trust raises for people to read."""

from __future__ import annotations


class TrustError(Exception):
    """Something trust cannot or will not do, with where, why and the next command."""

    def __init__(
        self, problem: str, *, where: str = "", cause: str = "", next_command: str = ""
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.cause = cause
        self.next_command = next_command

    def __str__(self) -> str:
        parts = [self.problem]
        for label, text in (
            ("where", self.where),
            ("why", self.cause),
            ("next", self.next_command),
        ):
            if text:
                parts.append(f"  {label}: {text}")
        return "\n".join(parts)
