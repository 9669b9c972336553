"""A canary goes on to a rollout, or is taken back with the site as it was."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from site_parts import DATA, MODEL, example_site, facts, manifest

from holdfast_installer.converge.run import Applied
from holdfast_installer.errors import HoldfastError, Refused
from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.serving import canary as canaries
from holdfast_installer.serving import rollout_command, scale_command
from holdfast_installer.serving.canary import CAPABILITIES, Canary, choose, only
from holdfast_installer.serving.converging import REPLICAS, REVISION
from holdfast_installer.serving.judging import Asked, Counters
from holdfast_installer.site_file import load_site
from holdfast_installer.survey import facts as f

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast_installer.site import Site

EXAMPLE = (DATA / "site-example.yml").read_text()
OLD = "0b" * 20
GOOD = Asked(ttft=(0.2, 0.2), errors=(), answers=("a",))
BAD = Asked(ttft=(0.2,), errors=("HTTP 500: boom",), answers=())


def old(number: int, port: int = 8400) -> f.ServedUnit:
    return f.ServedUnit(
        unit=f"holdfast-starter-{number}-0123abcd", model=MODEL, commit=OLD, port=port
    )


def plan(site: Site, *, memory: bool = True, begun: tuple[f.ServedUnit, ...] = ()) -> Plan:
    there = {"serving-1": (old(0), *begun), "serving-2": (old(1),)}
    changes: dict[str, object] = {}
    if not memory:
        changes["memory"] = f.Memory(total_bytes=2**35, available_bytes=2**30)
        changes["releases"] = f.Releases(current="a", installed=("a",))
    hosts = tuple(
        facts(name, replicas=there.get(name, ()), **changes)
        for name in ("control-1", "serving-1", "serving-2")
    )
    survey = f.Survey(site="quickstart", taken_at="2026-11-20T08:00:00Z", hosts=hosts)
    return make_plan(site, survey, manifest())


@dataclass
class Played:
    """What a command did to a site that is only played."""

    folder: Path
    canary: Asked = GOOD
    live: list[tuple[Counters, Counters]] = field(default_factory=list)
    memory: bool = True
    applied: list[tuple[tuple[str, ...], Plan]] = field(default_factory=list)
    changed: list[tuple[str, ...]] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    recorded: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    fail: str = ""
    locked: int = 0

    @property
    def site(self) -> Path:
        return self.folder / "site.yml"

    def run(self, *words: str) -> tuple[int, Any]:
        command = rollout_command.rollout if words[0] == "rollout" else scale_command.scale
        arguments = [*words[1:], "--site", str(self.site), "--json"]
        done = CliRunner().invoke(command, arguments, catch_exceptions=False)
        return done.exit_code, json.loads(done.stdout) if done.stdout else None

    def converge(
        self, site: Site, made: Plan, bundle: Path, journal: Path, capabilities: tuple[str, ...]
    ) -> Applied:
        del bundle
        if self.fail == "lock":
            raise Refused("Another apply is running on this site; nothing was touched.", ())
        if self.fail == "apply":
            raise HoldfastError("Apply did not finish.")
        self.applied.append((capabilities, made))
        return Applied(
            site=site.name, release="x", check=False, outcome="done", changed={},
            failed_hosts={}, seconds=1.0, journal=journal / "one",
        )  # fmt: skip

    def run_on(self, _: Site, host: Any, command: list[str], *, given: str = "") -> Any:
        if "workers.py" in command[1]:
            self.changed.append((command[4], command[6]))
        elif "SUFFIXES" in given:
            assert self.locked, "no apply may meddle while a unit is taken away"
            self.retired.append(f"{command[2]} on {host.name}")
        elif "rounds" in given:
            if self.fail == "ask":
                raise KeyboardInterrupt
            return _done({"canary": self.canary.model_dump(), "serving": GOOD.model_dump()})
        else:
            one, other = self.live.pop(0)
            return _done({"canary": one.model_dump(), "serving": other.model_dump()})
        return _done({})

    @contextlib.contextmanager
    def lock(self, site: Site, control: Any) -> Iterator[None]:
        assert (site.name, control.name) == ("quickstart", "control-1")
        self.locked += 1
        yield
        self.locked -= 1

    def record(self, _: Site, action: str, **fields: object) -> None:
        if self.fail == "record":
            raise HoldfastError("It cannot be put on the site's ledger.")
        self.recorded.append((action, fields))


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """Play the hosts: plans are made of units that stand, applies and scripts are noted."""
    state = Played(tmp_path)
    state.site.write_text(EXAMPLE)

    for module in (rollout_command, scale_command):
        monkeypatch.setattr(module, "record", state.record)
        monkeypatch.setattr(module, "planned", lambda site, _: plan(site, memory=state.memory))
        monkeypatch.setattr(module, "converged", state.converge)
    monkeypatch.setattr(canaries, "run_on", state.run_on)
    monkeypatch.setattr(canaries, "LOOK_SECONDS", 0)
    monkeypatch.setattr(canaries, "ApplyLock", state.lock)
    return state


def _done(answer: object) -> Any:
    class Done:
        returncode = 0
        stdout = json.dumps(answer, default=str)
        stderr = ""

    return Done()


def canary_of(made: Plan) -> Canary:
    found = choose(example_site(), made, MODEL)
    assert found is not None
    return found


def test_the_canary_stands_beside_and_everything_else_stays() -> None:
    made = plan(example_site())
    canary = canary_of(made)
    assert (canary.host.name, canary.control.name) == ("serving-1", "control-1")
    assert canary.url == "https://serving-1.quickstart.internal:8500"
    assert canary.old == "https://serving-1.quickstart.internal:8400"
    alone = only(made, canary.unit)
    assert [one.unit for one in alone.hosts["serving-1"].replicas] == [canary.unit]
    assert alone.hosts["serving-2"].replicas == ()
    for name, host in alone.hosts.items():
        assert (host.replacements, host.retiring) == ((), ())
        # whose settings the role leaves where they are
        assert host.others == made.hosts[name].others
    assert alone.pools[0].joining == ()
    assert alone.pools[0].serving == made.pools[0].serving


def test_units_of_other_models_and_on_standby_stay_as_they_are() -> None:
    text = EXAMPLE.replace("replicas: 2", "replicas: 1\n    standby: 1")
    first = make_plan(
        example_site(text),
        f.Survey(
            site="quickstart",
            taken_at="2026-11-20T08:00:00Z",
            hosts=tuple(facts(name) for name in ("control-1", "serving-1", "serving-2")),
        ),
        manifest(),
    )
    (standby,) = first.hosts["serving-2"].replicas
    assert standby.standby
    unit = f.ServedUnit(unit=standby.unit, model=MODEL, commit=standby.commit, port=standby.port)
    hosts = (
        facts("control-1"),
        facts("serving-1", replicas=(old(0),)),
        facts("serving-2", replicas=(unit,)),
    )
    survey = f.Survey(site="quickstart", taken_at="2026-11-20T08:00:00Z", hosts=hosts)
    made = make_plan(example_site(text), survey, manifest())
    alone = only(made, canary_of(made).unit)
    assert [one.unit for one in alone.hosts["serving-2"].replicas] == [standby.unit]


def test_without_room_there_is_no_canary() -> None:
    with pytest.raises(Refused, match="no room for a canary"):
        choose(example_site(), plan(example_site(), memory=False), MODEL)


def test_a_canary_that_holds_goes_on_to_the_rest(played: Played) -> None:
    code, told = played.run("rollout", MODEL, "--revision", "v2")
    assert (code, told["outcome"], told["findings"]) == (0, "rolled out", [])
    assert [capabilities for capabilities, _ in played.applied] == [CAPABILITIES, REVISION]
    assert load_site(played.site).models[0].revision == "v2"
    assert played.retired == []
    (line,) = (played.folder / "journal/rollouts.jsonl").read_text().splitlines()
    assert json.loads(line)["figures"] == told["figures"]


def test_what_cannot_be_recorded_is_not_done(played: Played) -> None:
    played.fail = "record"
    for words in (("rollout", MODEL), ("scale", MODEL, "1")):
        with pytest.raises(HoldfastError, match="ledger"):
            played.run(*words)
    assert played.applied == []
    assert played.site.read_text() == EXAMPLE


def test_a_canary_that_is_worse_is_taken_back_and_the_site_is_as_it_was(played: Played) -> None:
    played.canary = BAD
    with pytest.raises(HoldfastError, match="did worse") as worse:
        played.run("rollout", MODEL, "--revision", "v2")
    assert worse.value.exit_code == 1
    assert "prompt-errors: canary 0.5, serving 0, allowed 0: HTTP 500: boom" in worse.value.cause
    assert played.site.read_text() == EXAMPLE
    assert [capabilities for capabilities, _ in played.applied] == [CAPABILITIES]
    url = "https://serving-1.quickstart.internal:8500"
    assert played.changed == [("remove", url)]
    (retired,) = played.retired
    assert retired.endswith(" on serving-1")
    (line,) = (played.folder / "journal/rollouts.jsonl").read_text().splitlines()
    assert json.loads(line)["outcome"] == "taken back"
    assert [(action, fields.get("outcome")) for action, fields in played.recorded] == [
        ("model.canary", None),
        ("model.rollout", "taken back"),
    ]


@pytest.mark.parametrize("fault", ["apply", "ask"])
def test_whatever_ends_it_early_takes_the_canary_back(played: Played, fault: str) -> None:
    played.fail = fault
    try:
        code, _ = played.run("rollout", MODEL)
    except HoldfastError:
        code = 1
    assert code == 1
    assert len(played.retired) == 1
    assert played.site.read_text() == EXAMPLE


def test_another_apply_keeps_what_it_started(played: Played) -> None:
    played.fail = "lock"
    with pytest.raises(Refused, match="Another apply"):
        played.run("rollout", MODEL)
    assert played.retired == played.changed == []


def counted(requests: float, errors: float = 0) -> Counters:
    return Counters(requests=requests, errors=errors, ttft={"0.1": requests, "+Inf": requests})


def test_users_requests_are_given_and_taken_away_again(played: Played) -> None:
    played.live = [(counted(5), counted(900)), (counted(60, 3), counted(960))]
    with pytest.raises(HoldfastError, match="did worse"):
        played.run("rollout", MODEL, "--live", "600")
    assert [verb for verb, _ in played.changed] == ["add", "remove"]
    assert len(played.retired) == 1


def test_only_a_canary_is_judged_and_taken_back(played: Played) -> None:
    code, told = played.run("rollout", MODEL, "--revision", "v2", "--canary-only")
    assert (code, told["outcome"]) == (0, "canary holds")
    assert played.site.read_text() == EXAMPLE
    assert len(played.applied) == len(played.retired) == 1


def test_scaling_writes_the_number_and_applies_what_it_needs(played: Played) -> None:
    code, told = played.run("scale", MODEL, "1")
    assert code == 0
    assert (told["before"], told["after"], told["done"]) == (2, 1, True)
    assert told["stopping"] == {"serving-2": ["holdfast-starter-1-0123abcd"]}
    assert load_site(played.site).models[0].replicas == 1
    assert [capabilities for capabilities, _ in played.applied] == [REPLICAS]
    (line,) = (played.folder / "journal/scale.jsonl").read_text().splitlines()
    assert json.loads(line)["after"] == 1
    assert played.recorded == [
        ("model.scale", {"model": MODEL, "before": 2, "after": 1, "why": "by command"})
    ]


def test_a_dry_run_touches_nothing(played: Played) -> None:
    code, told = played.run("scale", MODEL, "3", "--dry-run")
    assert code == 0
    assert (told["after"], told["done"]) == (3, False)
    assert [len(units) for units in told["starting"].values()] == [2, 1]
    assert played.site.read_text() == EXAMPLE
    assert played.applied == []
    assert not (played.folder / "journal").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("scale", MODEL),
        ("scale", MODEL, "2", "--auto"),
        ("scale", MODEL, "2", "--apply"),
        ("scale", MODEL, "0"),
        ("scale", MODEL, "--auto", "--min", "3", "--max", "2"),
    ],
)
def test_what_contradicts_itself_is_a_usage_error(played: Played, words: tuple[str, ...]) -> None:
    assert played.run(*words)[0] == 2
    assert played.applied == []
