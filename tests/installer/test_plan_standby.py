"""Replicas that are kept warm: set up like any other, and sent nothing until they are needed."""

from __future__ import annotations

from site_parts import DATA, example_site, facts, manifest

from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.survey import facts as f

EXAMPLE = (DATA / "site-example.yml").read_text()
HOSTS = ("control-1", "serving-1", "serving-2")


def plan(
    replicas: int, standby: int, before: Plan | None = None, options: str = "max_model_len: 512"
) -> Plan:
    """Plan the example with so many; `before` was applied already."""
    text = EXAMPLE.replace("replicas: 2", f"replicas: {replicas}\n    standby: {standby}")
    text = text.replace("max_model_len: 512", options)
    hosts = tuple(
        facts(
            name,
            replicas=tuple(
                f.ServedUnit(unit=one.unit, model=one.model, commit=one.commit, port=one.port)
                for one in (before.hosts[name].replicas if before else ())
            ),
        )
        for name in HOSTS
    )
    survey = f.Survey(site="quickstart", taken_at="2026-11-20T08:00:00Z", hosts=hosts)
    return make_plan(example_site(text), survey, manifest())


def urls(made: Plan, *, standby: bool) -> set[str]:
    return {
        one.url for host in made.hosts.values() for one in host.replicas if one.standby is standby
    }


def test_a_standby_is_set_up_like_the_others_and_no_balancer_knows_it() -> None:
    made = plan(1, 1)
    (pool,) = made.pools
    assert len(urls(made, standby=True)) == 1
    assert set(pool.workers) == urls(made, standby=False)
    assert {one.url for one in pool.joining} == urls(made, standby=False)
    assert set(pool.serving) == urls(made, standby=False)
    warm = next(one for host in made.hosts.values() for one in host.replicas if one.standby)
    assert warm.port in {
        port for rule in made.hosts[warm.host].firewall.ingress for port in rule.ports
    }


def test_scaling_up_takes_the_standby_as_it_runs() -> None:
    before = plan(1, 1)
    after = plan(2, 1, before)
    (warm,) = urls(before, standby=True)
    assert warm in after.pools[0].workers
    assert warm in after.pools[0].serving, "it is listed before anything else is waited for"
    assert not any(host.replacements or host.retiring for host in after.hosts.values())
    assert urls(after, standby=True).isdisjoint(urls(before, standby=True))


def test_scaling_down_makes_the_last_one_the_standby() -> None:
    before = plan(2, 0)
    after = plan(1, 1, before)
    (pool,) = after.pools
    assert urls(after, standby=True) == set(before.pools[0].workers) - set(pool.workers)
    assert set(pool.serving) == set(pool.workers)
    assert not any(host.replacements or host.retiring for host in after.hosts.values())


def test_a_standby_that_changes_is_replaced_and_stays_one() -> None:
    before = plan(1, 1)
    after = plan(1, 1, before, "max_model_len: 1024")
    replaced = {
        each.url: each.standby for host in after.hosts.values() for each in host.replacements
    }
    assert replaced == dict.fromkeys(urls(after, standby=True), True) | dict.fromkeys(
        urls(after, standby=False), False
    )
    assert set(after.pools[0].serving) == urls(before, standby=False)


def test_memory_is_needed_for_a_standby_too() -> None:
    host = next(
        one.host for each in plan(1, 1).hosts.values() for one in each.replicas if one.standby
    )
    assert plan(1, 1).hosts[host].memory_bytes > plan(1, 0).hosts[host].memory_bytes
