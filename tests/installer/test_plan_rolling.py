"""What a plan makes of units that serve already: they stay, are replaced in place, or go."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from site_parts import COMMIT, DATA, GIB, MODEL, example_site, facts, manifest

from holdfast_installer import plan_command
from holdfast_installer.converge.unit_files import unit_files
from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.survey import facts as f
from holdfast_installer.survey import parse
from holdfast_installer.survey.commands import SCRIPTS

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = (DATA / "site-example.yml").read_text()
OLD = "0b" * 20


def plan(
    text: str = EXAMPLE, there: dict[str, tuple[f.ServedUnit, ...]] | None = None, **first: object
) -> Plan:
    """Plan a site whose serving hosts have these units; `first` changes facts of serving-1."""
    there = there or {}
    hosts = tuple(
        facts(name, replicas=there.get(name, ()), **(first if name == "serving-1" else {}))
        for name in ("control-1", "serving-1", "serving-2")
    )
    survey = f.Survey(site="quickstart", taken_at="2026-11-20T08:00:00Z", hosts=hosts)
    return make_plan(example_site(text), survey, manifest())


def standing(made: Plan) -> dict[str, tuple[f.ServedUnit, ...]]:
    """Return what a survey finds when a plan was applied."""
    return {
        name: tuple(
            f.ServedUnit(unit=one.unit, model=one.model, commit=one.commit, port=one.port)
            for one in host.replicas
        )
        for name, host in made.hosts.items()
    }


def old(number: int, port: int = 8400, generation: str = "-0123abcd") -> f.ServedUnit:
    return f.ServedUnit(
        unit=f"holdfast-starter-{number}{generation}", model=MODEL, commit=OLD, port=port
    )


def test_a_plan_of_what_is_applied_already_replaces_nothing() -> None:
    first = plan()
    again = plan(there=standing(first))
    assert again.hosts["serving-1"].replicas == first.hosts["serving-1"].replicas
    for host in again.hosts.values():
        assert (host.replacements, host.others, host.retiring) == ((), (), ())
    assert again.pools[0].serving == again.pools[0].workers


def test_what_changes_stands_beside_what_it_replaces_on_the_other_port() -> None:
    made = plan(there={"serving-1": (old(0),)})
    host = made.hosts["serving-1"]
    (replacement,) = host.replacements
    assert replacement.beside
    assert [one.unit for one in replacement.replaces] == ["holdfast-starter-0-0123abcd"]
    assert replacement.url == "https://serving-1.quickstart.internal:8500"
    assert [one.port for one in host.replicas] == [8500]
    assert made.pools[0].serving == ("https://serving-1.quickstart.internal:8400",)
    assert made.pools[0].workers == (
        "https://serving-1.quickstart.internal:8500",
        "https://serving-2.quickstart.internal:8400",
    )
    # the other replica is new, and joins as soon as it answers
    assert [one.host for one in made.pools[0].joining] == ["serving-2"]


def test_a_unit_named_before_there_were_generations_is_replaced() -> None:
    made = plan(there={"serving-1": (old(0, generation=""),)})
    assert made.hosts["serving-1"].replacements[0].replaces[0].unit == "holdfast-starter-0"


def test_the_ports_let_through_are_the_same_before_and_after_a_replacement() -> None:
    rolled = plan(there={"serving-1": (old(0),)})
    after = plan(there=standing(rolled))
    assert rolled.hosts["serving-1"].firewall == after.hosts["serving-1"].firewall
    assert rolled.hosts["control-1"].firewall == after.hosts["control-1"].firewall


def test_without_room_for_both_the_old_one_goes_first() -> None:
    tight = f.Memory(total_bytes=32 * GIB, available_bytes=3 * GIB)
    made = plan(
        there={"serving-1": (old(0),)},
        memory=tight,
        releases=f.Releases(current="abc", installed=("abc",)),
    )
    assert not made.hosts["serving-1"].replacements[0].beside


def test_an_interruption_is_told_beforehand() -> None:
    tight = f.Memory(total_bytes=32 * GIB, available_bytes=3 * GIB)
    installed = f.Releases(current="abc", installed=("abc",))
    one = EXAMPLE.replace("replicas: 2", "replicas: 1")
    alone = plan(one, there={"serving-1": (old(0),)}, memory=tight, releases=installed)
    (note,) = [note for note in alone.notes if note.name == "interruption"]
    assert "holdfast/starter" in note.detail
    assert note.host == "serving-1"
    two = plan(
        there={"serving-1": (old(0),), "serving-2": (old(1),)}, memory=tight, releases=installed
    )
    assert not [note for note in two.notes if note.name == "interruption"]


def test_an_interrupted_replacement_goes_on_with_both_generations_there() -> None:
    rolled = plan(there={"serving-1": (old(0),)})
    new = standing(rolled)["serving-1"]
    again = plan(there={"serving-1": (old(0), *new)})
    host = again.hosts["serving-1"]
    assert [one.unit for one in host.replicas] == [new[0].unit]
    assert [one.port for one in host.replicas] == [8500]
    (replacement,) = host.replacements
    assert replacement.unit == new[0].unit
    assert set(again.pools[0].serving) == {
        "https://serving-1.quickstart.internal:8400",
        "https://serving-1.quickstart.internal:8500",
    }


def test_a_third_generation_takes_a_port_only_when_one_is_free() -> None:
    two = (old(0), old(0, 8500, "-4567abcd"))
    host = plan(there={"serving-1": two}).hosts["serving-1"]
    (replacement,) = host.replacements
    assert not replacement.beside
    assert len(replacement.replaces) == 2
    assert host.replicas[0].port == 8400


def test_fewer_replicas_let_go_of_the_rest() -> None:
    there = standing(plan())
    made = plan(EXAMPLE.replace("replicas: 2", "replicas: 1"), there=there)
    assert [one.unit for one in made.hosts["serving-2"].retiring] == [there["serving-2"][0].unit]
    assert made.hosts["serving-1"].retiring == ()
    assert len(made.pools[0].serving) == 2
    assert len(made.pools[0].workers) == 1


def test_more_replicas_move_nothing() -> None:
    one = EXAMPLE.replace("replicas: 2", "replicas: 1")
    made = plan(one.replace("replicas: 1", "replicas: 4"), there=standing(plan(one)))
    first = plan(one).hosts["serving-1"].replicas[0]
    assert first in made.hosts["serving-1"].replicas
    assert [len(host.replicas) for host in made.hosts.values()] == [0, 2, 2]
    assert [host.replacements for host in made.hosts.values()] == [(), (), ()]


def test_another_option_makes_another_unit() -> None:
    text = EXAMPLE.replace("max_model_len: 512", "max_model_len: 256")
    made = plan(text, there=standing(plan()))
    assert len(made.hosts["serving-1"].replacements) == 1
    assert len(made.hosts["serving-2"].replacements) == 1


def test_a_release_that_writes_other_units_rolls_too() -> None:
    hosts = tuple(facts(name) for name in ("control-1", "serving-1", "serving-2"))
    survey = f.Survey(site="quickstart", taken_at="2026-11-20T08:00:00Z", hosts=hosts)
    units = {
        make_plan(example_site(), survey, manifest(), unit_files=digest)
        .hosts["serving-1"]
        .replicas[0]
        .unit
        for digest in ("", unit_files(), "other")
    }
    assert len(units) == 3
    assert unit_files() == unit_files()


def test_the_models_cache_counts_as_the_site_says() -> None:
    more = plan(EXAMPLE.replace("max_model_len: 512", "kv_cache_memory_bytes: 3221225472"))
    assert more.hosts["serving-1"].memory_bytes - plan().hosts["serving-1"].memory_bytes == 2 * GIB
    assert "VLLM_CPU_KVCACHE_SPACE" not in more.hosts["serving-1"].replicas[0].env


def test_models_of_different_sizes_do_not_overcommit_a_host() -> None:
    second = """
  - {id: org/other, source: /models/other, pool: cpu, replicas: 2, teams: [research],
     vllm: {max_model_len: 64, kv_cache_memory_bytes: 32212254720}}
teams:"""
    text = EXAMPLE.replace("\nteams:", second)
    again = [one.model_copy(update={"name": "org/other"}) for one in manifest().of_kind("model")]
    both = manifest(artifacts=(*manifest().artifacts, *again))
    hosts = tuple(facts(name) for name in ("control-1", "serving-1", "serving-2"))
    survey = f.Survey(site="quickstart", taken_at="2026-11-20T08:00:00Z", hosts=hosts)
    made = make_plan(example_site(text), survey, both)
    assert {(one.name, one.host) for one in made.blockers} == {
        ("memory", "serving-1"),
        ("memory", "serving-2"),
    }
    assert "2 replicas" in made.blockers[0].detail


def test_the_survey_reads_what_the_role_wrote(tmp_path: Path) -> None:
    (tmp_path / "one-0-0123abcd.yml").write_text('model: /x\nport: 8401\nhost: "::1"\n')
    (tmp_path / "one-0-0123abcd.env").write_text("HOME=/x\nCUDA_VISIBLE_DEVICES=0,3\n")
    (tmp_path / "one-0-0123abcd.json").write_text(
        f'{{\n  "hub": "https://hub",\n  "model": "org/one",\n  "commit": "{COMMIT}",\n  "x": 1\n}}'
    )
    (tmp_path / "half-1.json").write_text("{}")
    script = SCRIPTS["replicas"].replace("/etc/holdfast/vllm", str(tmp_path))
    done = subprocess.run(
        ["sh", "-ec", script], capture_output=True, text=True, check=True, timeout=10
    )
    assert parse.replicas(done.stdout.splitlines()) == (
        f.ServedUnit(
            unit="one-0-0123abcd", model="org/one", commit=COMMIT, port=8401, devices=("0", "3")
        ),
    )


def test_a_host_without_units_has_none() -> None:
    assert parse.replicas(["@@there"]) == ()
    with pytest.raises(KeyError):
        parse.replicas([""])


def test_people_are_told_what_takes_whose_place(capsys: pytest.CaptureFixture[str]) -> None:
    text = EXAMPLE.replace("replicas: 2", "replicas: 1")
    made = plan(text, there={"serving-1": (old(0),), "serving-2": (old(1),)})
    plan_command._render(made)
    said = capsys.readouterr().err
    assert "replaces holdfast-starter-0-0123abcd, beside it first" in said
    assert "holdfast-starter-1-0123abcd is drained and stopped" in said
