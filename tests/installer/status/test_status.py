from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from site_parts import DATA, example_site

from holdfast_installer.audit.evidence import Observation
from holdfast_installer.cli import main
from holdfast_installer.site import TeamPool
from holdfast_installer.status import hosts
from holdfast_installer.status.hosts import take_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_installer.site import Site

Look = dict[str, Any]
COMMIT = "c" * 40


def unit(name: str, state: str = "active", *said: str, result: str = "success") -> Look:
    return {
        "unit": name,
        "state": state,
        "result": result,
        "restarts": 0,
        "since": "Fri 2026-11-20 08:00:00 UTC",
        "said": list(said),
    }


def answer(*units: Look, model: str = "", problems: tuple[str, ...] = ()) -> Look:
    serving = [each["unit"] for each in units if each["unit"].startswith("holdfast-vllm@")]
    note = {
        "model": model,
        "commit": COMMIT,
        "path": "/models",
        "checked": "2026-11-20T08:00:00Z",
        "seconds": 1.5,
        "problems": list(problems),
    }
    return {
        "units": list(units),
        "replicas": [{"unit": each, "model": model, "commit": COMMIT} for each in serving],
        "models": [note] if model else [],
    }


@pytest.fixture
def site() -> Site:
    return example_site((DATA / "site-example.yml").read_text())


@pytest.fixture
def answering(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, Look | str]], None]:
    """Have hosts answer, or say why they do not."""

    def set_up(answers: dict[str, Look | str]) -> None:
        def look(name: str) -> Observation:
            said = answers.get(name, answer(unit("nginx.service")))
            problem = said if isinstance(said, str) else ""
            return Observation(
                control="status",
                vantage="host",
                host=name,
                taken_at="2026-11-20T08:00:00Z",  # type: ignore[arg-type]  # pydantic reads it
                script="",
                seen=None if problem else said,  # type: ignore[arg-type]
                problem=problem,
            )

        monkeypatch.setattr(
            hosts, "on_hosts", lambda _, __, ___, asked: tuple(look(name) for name in asked)
        )

    assert site.models
    return set_up


def replicas_of(site: Site, problems: tuple[str, ...] = (), **changed: Any) -> dict[str, Look]:
    """Return answers in which each model has its replicas, on the first host of its pool."""
    answers: dict[str, Look] = {}
    for model in site.models:
        host = site.in_pool(model.pool)[0].name
        units = [
            unit(f"holdfast-vllm@{host}-{n}.service", **changed) for n in range(model.replicas)
        ]
        answers[host] = answer(*units, model=model.id, problems=problems)
    return answers


def test_a_site_that_runs_has_no_findings(
    site: Site, answering: Callable[[dict[str, Any]], None]
) -> None:
    answering(replicas_of(site))
    seen = take_status(site)
    assert seen.findings == ()
    assert {host.name for host in seen.hosts} == {host.name for host in site.hosts}


def test_replicas_of_every_pool_are_missed(
    site: Site, answering: Callable[[dict[str, Any]], None]
) -> None:
    model = site.models[0]
    further = TeamPool(pool="other", replicas=3, teams=model.teams)
    answering(replicas_of(site))
    changed = model.model_copy(update={"pools": (further,)})
    found = take_status(site.model_copy(update={"models": (changed, *site.models[1:])})).findings
    told = f"{model.replicas} of {model.replicas + 3} replicas run"
    assert [finding.detail for finding in found if finding.name == model.id] == [told]


def test_a_standby_that_does_not_run_is_missed(
    site: Site, answering: Callable[[dict[str, Any]], None]
) -> None:
    model = site.models[0]
    answering(replicas_of(site))
    changed = model.model_copy(update={"standby": 1})
    found = take_status(site.model_copy(update={"models": (changed, *site.models[1:])})).findings
    told = f"{model.replicas} of {model.replicas + 1} replicas run"
    assert [finding.detail for finding in found if finding.name == model.id] == [told]


def test_a_model_that_was_altered_is_named_with_its_reason(
    site: Site, answering: Callable[[dict[str, Any]], None]
) -> None:
    why = "model.safetensors was altered: it is sha256:1, planned sha256:2"
    answers = replicas_of(site, (why,), state="inactive", result="exec-condition")
    answering(answers)
    found = take_status(site).findings
    assert [finding.verdict for finding in found] == ["fail"] * len(found)
    down = [finding for finding in found if finding.name.startswith("holdfast-vllm@")]
    assert down
    for finding in down:
        assert f"is not served: inactive (exec-condition): {why}" in finding.detail
        assert finding.fix == "holdfast apply"
    total = [finding for finding in found if finding.name == site.models[0].id]
    assert total[0].detail == f"0 of {site.models[0].replicas} replicas run"


def test_a_unit_that_failed_shows_the_end_of_its_log(
    site: Site, answering: Callable[[dict[str, Any]], None]
) -> None:
    control = site.with_role("control")[0].name
    answers = replicas_of(site)
    broken = unit("nginx.service", "failed", "one", "two", "three", "four", result="exit-code")
    old = answers.get(control, answer())
    answers[control] = {**old, "units": [*old["units"], broken]}
    answering(answers)
    (finding,) = take_status(site).findings
    assert (finding.name, finding.host) == ("nginx.service", control)
    assert finding.detail == "failed (exit-code): two / three / four"
    assert finding.fix == "journalctl -u nginx.service"


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ("Host cannot be reached", "Host cannot be reached"),
        ({"units": "?"}, "its answer is not what was asked for"),
        ({"units": [], "replicas": [], "models": []}, "none of Holdfast's units is here"),
    ],
)
def test_a_host_that_is_not_seen_is_a_finding(
    site: Site, answering: Callable[[dict[str, Any]], None], said: Any, detail: str
) -> None:
    answers: dict[str, Any] = replicas_of(site)
    control = site.with_role("control")[0].name
    answers[control] = said
    answering(answers)
    found = [finding for finding in take_status(site).findings if finding.host == control]
    assert detail in found[0].detail


def test_the_command_prints_json_and_refuses_with_findings(
    site: Site,
    answering: Callable[[dict[str, Any]], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("holdfast_installer.status.command.load_site", lambda _: site)
    answering(replicas_of(site, ("altered",), state="inactive"))
    with pytest.raises(SystemExit) as ended:
        main(["status", "--site", "site.yml", "--json"])
    assert ended.value.code == 3
    document = json.loads(capsys.readouterr().out)
    assert document["findings"]
    assert {host["name"] for host in document["hosts"]} == {host.name for host in site.hosts}
    answering(replicas_of(site))
    with pytest.raises(SystemExit) as ended:
        main(["status", "--site", "site.yml"])
    assert not ended.value.code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "whole at 2026-11-20T08:00:00Z" in shown.err.replace("\n", "") or "whole" in shown.err
