"""Gateways of a site: numbered, with ports that nobody else has."""

from __future__ import annotations

import pytest
from site_parts import DATA, example_site, manifest, survey

from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.plan.ports import wanted
from holdfast_installer.survey import facts as f

EXAMPLE = (DATA / "site-example.yml").read_text()


def plan(count: int | None) -> Plan:
    text = EXAMPLE if count is None else f"{EXAMPLE}\ngateways: {count}\n"
    return make_plan(example_site(text), survey(), manifest())


def test_there_are_two_so_that_one_serves_while_the_other_restarts() -> None:
    assert [(one.number, one.name, one.port) for one in plan(None).gateways] == [
        (1, "gateway-1", 8111),
        (2, "gateway-2", 8112),
    ]


@pytest.mark.parametrize("count", [1, 2, 9])
def test_no_two_services_of_a_host_want_the_same_port(count: int) -> None:
    made = plan(count)
    for host in made.hosts.values():
        wants = [(one.protocol, one.port) for one in wanted(host, made.pools, made.gateways)]
        assert len(wants) == len(set(wants))


def test_a_gateways_port_that_is_taken_bars_the_apply() -> None:
    site, seen = example_site(EXAMPLE), survey()
    control = seen.hosts[0].model_copy(
        update={
            "listeners": (
                f.Listener(
                    protocol="tcp", address="127.0.0.1", port=8112, process="x", unit="x.service"
                ),
            )
        }
    )
    changed = seen.model_copy(update={"hosts": (control, *seen.hosts[1:])})
    made = make_plan(site, changed, manifest())
    assert [(one.name, one.host) for one in made.blockers] == [("port", "control-1")]
    assert "8112 is taken by x.service" in made.blockers[0].detail
