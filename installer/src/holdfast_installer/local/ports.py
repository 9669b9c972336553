"""Loopback ports: the usual ones where they are free, the same ones at the next start."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from holdfast_installer.local.services import DEFAULT_PORTS, LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterable


def choose(names: Iterable[str], before: dict[str, int], ours: frozenset[int]) -> dict[str, int]:
    """Return a port for each name. `before` is kept where it can be; `ours` are in use by us."""
    chosen: dict[str, int] = {}
    for name in names:
        taken = set(chosen.values())
        usual = DEFAULT_PORTS[name.partition("-")[0]]
        candidates = [before[name]] if name in before else []
        candidates += range(usual, usual + 20)
        free = (
            port for port in candidates if port not in taken and (port in ours or is_free(port))
        )
        chosen[name] = next(free, 0) or _any_free(taken)
    return chosen


def is_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def _any_free(taken: set[int]) -> int:
    while True:
        with socket.create_server((LOOPBACK, 0)) as server:
            port = int(server.getsockname()[1])
        if port not in taken:
            return port
