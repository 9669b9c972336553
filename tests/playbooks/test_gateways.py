"""What edge and gateways are told must fit together, and what is not wanted must be found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.holdfast.platform.plugins.modules import strays

ROLES = Path(__file__).parents[2] / "playbooks/ansible_collections/holdfast/platform/roles"


def defaults(role: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    return found


def edge() -> str:
    text = (ROLES / "edge/templates/haproxy.cfg.j2").read_text()
    return text[text.index("\nbackend api") : text.index("\nbackend console")]


def number(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    assert len(found) == 1, pattern
    return int(found[0])


def test_a_leaving_gateway_serves_until_the_edge_has_noticed_and_a_new_one_is_back() -> None:
    """Both at once would be an outage: back within one check, gone after three, open for longer."""
    inter = number(r"inter (\d+)ms", edge()) / 1000
    fall, rise = number(r"fall (\d+)", edge()), number(r"rise (\d+)", edge())
    noticed_at_the_earliest, at_the_latest = (fall - 1) * inter, fall * inter
    assert rise * inter < noticed_at_the_earliest
    assert defaults("gateway")["gateway_leave_seconds"] >= 2 * at_the_latest


def test_the_edge_sends_no_more_connections_than_a_gateway_accepts() -> None:
    """A gateway that accepts no more answers no health check either."""
    from holdfast_gateway import server

    assert defaults("edge")["edge_gateway_connections"] < server._CONNECTIONS


def test_it_is_the_edge_that_closes_idle_connections() -> None:
    """Else a request could be written to a connection that the gateway closes meanwhile."""
    from holdfast_gateway import server

    text = (ROLES / "edge/templates/haproxy.cfg.j2").read_text()
    assert number(r"timeout http-keep-alive (\d+)s", text) < server._IDLE_MILLISECONDS / 1000 / 2


def test_nothing_that_was_read_is_sent_again() -> None:
    assert re.findall(r"retry-on (.*)", edge()) == ["conn-failure"]


def test_an_old_edge_lives_longer_than_the_streams_of_a_gateway() -> None:
    last = defaults("edge")["edge_last_stream_seconds"]
    assert last > defaults("gateway")["gateway_drain_seconds"]


def test_units_that_run_or_are_enabled_are_found_by_their_pattern(tmp_path: Path) -> None:
    wants = tmp_path / "multi-user.target.wants"
    wants.mkdir()
    for name in ("holdfast-gateway@3.service", "holdfast-registry.service"):
        (wants / name).symlink_to("/dev/null")
    assert strays.enabled("holdfast-gateway*.service", tmp_path) == {"holdfast-gateway@3.service"}
    listing = (
        "holdfast-gateway@1.service loaded    active   running Holdfast gateway 1\n"
        "holdfast-gateway@4.service loaded    activating auto-restart Holdfast gateway 4\n"
        "holdfast-gateway@5.service not-found inactive dead    holdfast-gateway@5.service\n"
    )
    assert strays.loaded(listing) == {"holdfast-gateway@1.service", "holdfast-gateway@4.service"}
