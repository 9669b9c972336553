"""One who sends slowly, many times at once, keeps up nobody but themselves."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import httpx
from registry_parts import ADA, SEED, run_registry

from holdfast_hub_protocol.threads import SENDERS

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "hft_cleo-who-is-in-no-hurry"


def send_slowly(port: int, token: str) -> socket.socket:
    """Begin a request whose body never comes."""
    slow = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = (
        "POST /api/repos/create HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n{{"
    )
    slow.sendall(head.encode())
    return slow


def test_slow_senders_keep_up_nobody_else(tmp_path: Path) -> None:
    users = [*SEED["users"], {"name": "cleo", "tokens": [{"secret": OTHER}]}]
    seed = SEED | {"users": users}
    with (
        run_registry(tmp_path, "--jurisdiction", "de", seed=seed) as registry,
        contextlib.ExitStack() as slow,
    ):
        port = int(registry.url.rpartition(":")[2])
        for _ in range(SENDERS + 10):
            slow.enter_context(send_slowly(port, ADA))
        answer = httpx.post(
            f"{registry.url}/api/repos/create",
            json={"name": "quick", "type": "model"},
            headers={"Authorization": f"Bearer {OTHER}"},
            timeout=20,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
