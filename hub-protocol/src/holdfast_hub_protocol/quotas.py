"""How much each namespace may hold, and what a refusal says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Quotas:
    """Bytes for each namespace; None is no limit."""

    default: int | None = None
    teams: Mapping[str, int | None] = field(default_factory=dict)

    def of(self, namespace: str) -> int | None:
        """Return the limit of a namespace; upper and lower case are the same one."""
        folded = namespace.lower()
        for name, limit in self.teams.items():
            if name.lower() == folded:
                return limit
        return self.default


NO_QUOTAS: Final = Quotas()


@dataclass(frozen=True)
class Usage:
    """What a namespace holds and has spoken for, in bytes; a blob counts once in a namespace."""

    namespace: str
    held: int  # in some commit
    reserved: int  # uploaded or announced, and not yet committed
    limit: int | None


class QuotaError(HubError):
    """More than the namespace may hold: 403 with a message for people."""

    def __init__(self, usage: Usage, asked: int) -> None:
        super().__init__(
            403,
            f"Storage quota of {usage.namespace} exceeded: {readable(asked)} more asked for, "
            f"{readable(usage.held)} held and {readable(usage.reserved)} reserved "
            f"of {readable(usage.limit or 0)}. Delete what is not needed, or ask the operator",
            "StorageQuotaExceeded",
        )


def readable(count: int) -> str:
    """Return a number of bytes as people read it: 1.5 GiB."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while abs(size) >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    if units[0] == "bytes":
        return f"{count} byte{'' if count == 1 else 's'}"
    return f"{size:.1f} {units[0]}"
