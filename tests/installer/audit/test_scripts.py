"""What the scripts that run on hosts make of what they meet, tried on real sockets."""

from __future__ import annotations

import importlib.util
import json
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import holdfast_installer.audit

if TYPE_CHECKING:
    from types import ModuleType

SCRIPTS = Path(holdfast_installer.audit.__file__).parent / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"audit_script_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer_once(rcode: int, answers: int) -> int:
    """Answer one DNS question on a loopback port; return the port."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        with server:
            query, sender = server.recvfrom(512)
            server.sendto(
                query[:2] + struct.pack(">5H", 0x8180 | rcode, 1, answers, 0, 0) + query[12:],
                sender,
            )

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("rcode", "answers", "outcome"),
    [(0, 1, "answered"), (3, 0, "absent"), (0, 0, "absent"), (5, 0, "refused"), (2, 0, "refused")],
    ids=["an address", "no such name", "no such record", "refused", "failed"],
)
def test_only_a_resolver_that_did_not_look_refuses(rcode: int, answers: int, outcome: str) -> None:
    port = answer_once(rcode, answers)
    assert script("names").ask("127.0.0.1", port, "x.example.org", "udp")[0] == outcome


@pytest.mark.parametrize(("protocol", "kind"), [("tcp", "SOCK_STREAM"), ("udp", "SOCK_DGRAM")])
def test_a_refusal_from_afar_is_an_answer(protocol: str, kind: str) -> None:
    with socket.socket(socket.AF_INET, getattr(socket, kind)) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert script("egress").attempt("ipv4", protocol, "127.0.0.1", port, "n") == (
        "answered",
        "ECONNREFUSED",
    )


def listing(packets: int) -> str:
    return json.dumps({"nftables": [{"metainfo": {}}, {"counter": {"packets": packets}}]})


@pytest.mark.parametrize(("counted", "left"), [(0, 0), (1, 0), (4, 3)])
def test_only_the_probes_own_packet_is_accounted_for(counted: int, left: int) -> None:
    telemetry: Any = script("telemetry")
    before = 7
    baseline = telemetry.packets(telemetry.accounted(listing(before), counted))
    assert before + counted - baseline == left
