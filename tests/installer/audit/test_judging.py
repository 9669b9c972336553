"""Every probe's judgement must be able to fail: each test here is one way in which it does."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast_installer.audit.evidence import Observation
from holdfast_installer.audit.probes import egress, names, packages, telemetry, transport

if TYPE_CHECKING:
    from pydantic import JsonValue

WAYS = ["tcp/ipv4 192.0.2.1:7007", "udp/ipv4 192.0.2.1:7007", "tcp/ipv6 x:7007", "udp/ipv6 x:7007"]


def look(seen: JsonValue, host: str = "a", problem: str = "") -> Observation:
    return Observation(
        control="X",
        vantage="host",
        host=host,
        taken_at=datetime.now(UTC),
        script="00",
        seen=seen,
        problem=problem,
    )


def attempts(*outcomes: str) -> list[JsonValue]:
    return [
        {"target": way, "outcome": outcome, "detail": ""}
        for way, outcome in zip(WAYS, outcomes, strict=True)
    ]


def egress_seen(*outcomes: str, before: int = 10, after: int = 14, **more: JsonValue) -> JsonValue:
    return {
        "attempts": attempts(*outcomes),
        "drops_before": before,
        "drops_after": after,
        "recorded": [],
        **more,
    }


QUIET = ("silent", "refused", "silent", "refused")


def test_egress_passes_when_dropped_counted_and_controlled() -> None:
    assert egress.judge(look(egress_seen(*QUIET)), "").verdict == "pass"


@pytest.mark.parametrize(
    ("seen", "flaw", "verdict"),
    [
        (egress_seen("answered", "refused", "silent", "refused"), "", "fail"),
        (egress_seen("silent", "refused", "silent", "answered"), "", "fail"),
        (egress_seen(*QUIET, recorded=["udp 198.18.1.11"]), "", "fail"),
        (egress_seen(*QUIET, before=-1, after=-1), "", "fail"),
        (egress_seen(*QUIET, after=13), "", "inconclusive"),
        (egress_seen("silent", "refused", "no-route", "no-route"), "", "inconclusive"),
        (egress_seen(*QUIET, recorded=None), "", "inconclusive"),
        (egress_seen(*QUIET), "the canary is down", "inconclusive"),
    ],
    ids=[
        "tcp4 out",
        "udp6 out",
        "seen by the canary",
        "no filter",
        "too few drops",
        "no route",
        "no record",
        "no control",
    ],
)
def test_egress_does_not_pass(seen: JsonValue, flaw: str, verdict: str) -> None:
    assert egress.judge(look(seen), flaw).verdict == verdict


def test_egress_control_needs_all_four_ways_and_the_record() -> None:
    whole = egress_seen(*["answered"] * 4, recorded=["tcp"])
    assert egress.control_flaw(look(whole)) == ""
    assert egress.control_flaw(None)
    assert egress.control_flaw(look(None, problem="it broke"))
    assert egress.control_flaw(look(egress_seen(*["answered"] * 4, recorded=[])))
    assert egress.control_flaw(
        look(egress_seen("answered", "answered", "answered", "silent", recorded=["tcp"]))
    )


def names_seen(outcome: str = "refused", **more: JsonValue) -> JsonValue:
    return {
        "resolver": "198.18.1.11",
        "inside": ["answered", "NOERROR, 1 records"],
        "attempts": [{"target": "udp 198.18.1.11:53", "outcome": outcome, "detail": "REFUSED"}],
        "recorded": [],
        **more,
    }


def test_names_pass_when_refused_and_unseen() -> None:
    assert names.judge(look(names_seen()), "").verdict == "pass"


@pytest.mark.parametrize(
    ("seen", "flaw", "verdict"),
    [
        (names_seen("answered"), "", "fail"),
        (names_seen(recorded=["198.18.1.11"]), "", "fail"),
        (names_seen(resolver=""), "", "fail"),
        (names_seen(inside=["silent", "no answer"]), "", "inconclusive"),
        (names_seen(recorded=None), "", "inconclusive"),
        (names_seen(), "no witness", "inconclusive"),
    ],
    ids=["answered", "seen", "no resolver", "resolver dead", "no record", "no control"],
)
def test_names_do_not_pass(seen: JsonValue, flaw: str, verdict: str) -> None:
    assert names.judge(look(seen), flaw).verdict == verdict


def certificate(days: int) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "probe")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    return base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()


def transport_seen(*, works: bool = True, **more: JsonValue) -> JsonValue:
    listener: dict[str, JsonValue] = {
        "address": "0.0.0.0",
        "port": 443,
        "plain": "HTTP/1.0 400 Bad Request",
        "tls": "TLSv1.3",
        "old_tls": "refused (TLSV1_ALERT_PROTOCOL_VERSION)",
        **more,
    }
    return {"listeners": [listener], "old_tls_works": works}


def test_transport_passes_when_only_tls_is_spoken() -> None:
    assert transport.judge(look(transport_seen()), "").verdict == "pass"
    demanding = transport_seen(tls="refused (TLSV13_ALERT_CERTIFICATE_REQUIRED)", plain="closed")
    assert transport.judge(look(demanding), "").verdict == "pass"
    lasting = transport_seen(certificate=certificate(days=60))
    assert transport.judge(look(lasting), "").verdict == "pass"


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (transport_seen(plain="HTTP/1.1 200 OK", tls="closed (x)"), "fail"),
        (transport_seen(plain="HTTP/1.1 301 Moved Permanently"), "fail"),
        (transport_seen(plain="HTTP/1.1 404 Not Found"), "fail"),
        (transport_seen(plain="not HTTP", tls="closed (x)"), "fail"),
        (transport_seen(old_tls="TLSv1.1"), "fail"),
        (transport_seen(works=False), "inconclusive"),
        ({"listeners": [], "old_tls_works": True}, "inconclusive"),
        (transport_seen(certificate=certificate(days=29)), "fail"),
        (transport_seen(certificate=certificate(days=-1)), "fail"),
    ],
    ids=[
        "plain",
        "redirect",
        "plain 404",
        "no tls",
        "old tls",
        "untested",
        "nothing",
        "ends soon",
        "ended",
    ],
)
def test_transport_does_not_pass(seen: JsonValue, verdict: str) -> None:
    assert transport.judge(look(seen), "").verdict == verdict


def telemetry_seen(
    attempts: int | None = 0, *, active: str = "active", tokens: int = 2
) -> JsonValue:
    return {
        "units": [{"unit": "u", "active": active, "started": "now", "attempts": attempts}],
        "control_counted": True,
        "generated": [{"url": "https://a", "model": "m", "tokens": tokens, "problem": ""}],
    }


def test_telemetry_passes_when_silent_counted_and_generating() -> None:
    assert telemetry.judge(look(telemetry_seen()), "").verdict == "pass"


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (telemetry_seen(3), "fail"),
        (telemetry_seen(None), "inconclusive"),
        (telemetry_seen(-1), "inconclusive"),
        (telemetry_seen(active="failed"), "inconclusive"),
        (telemetry_seen(tokens=0), "inconclusive"),
        ({"units": [], "control_counted": True, "generated": []}, "inconclusive"),
        (
            {
                "units": [{"unit": "u", "active": "active", "started": "", "attempts": 0}],
                "control_counted": False,
                "generated": [],
            },
            "inconclusive",
        ),
    ],
    ids=[
        "attempts",
        "no baseline",
        "reloaded",
        "down",
        "no answer",
        "no unit",
        "control uncounted",
    ],
)
def test_telemetry_does_not_pass(seen: JsonValue, verdict: str) -> None:
    assert telemetry.judge(look(seen), "").verdict == verdict


def packages_seen(*taken: str, sources: tuple[str, ...] = ("holdfast.sources: x",)) -> JsonValue:
    trials: dict[str, JsonValue] = {
        name: {"accepted": name in taken, "said": ""}
        for name in ("published", "altered", "unsigned", "stranger")
    }
    return {"sources": list(sources), "trials": trials}


def test_packages_pass_when_only_the_published_is_taken() -> None:
    assert packages.judge(look(packages_seen("published")), "").verdict == "pass"


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (packages_seen("published", "altered"), "fail"),
        (packages_seen("published", "unsigned"), "fail"),
        (packages_seen("published", "stranger"), "fail"),
        (packages_seen("published", sources=("a: x", "b: y")), "fail"),
        (packages_seen("published", sources=()), "fail"),
        (packages_seen("published", sources=("a: deb [trusted=yes] x",)), "fail"),
        (packages_seen(), "inconclusive"),
        ({"sources": ["a: x"], "trials": {}}, "inconclusive"),
    ],
    ids=["altered", "unsigned", "stranger", "two", "none", "trusted", "refuses all", "no index"],
)
def test_packages_do_not_pass(seen: JsonValue, verdict: str) -> None:
    assert packages.judge(look(seen), "").verdict == verdict
