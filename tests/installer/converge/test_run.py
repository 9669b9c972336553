from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
import site_parts
from click.testing import CliRunner

from holdfast_installer.cli import main
from holdfast_installer.console import progress
from holdfast_installer.converge.command import apply
from holdfast_installer.converge.events import Event
from holdfast_installer.converge.run import Applied, _Bars, capability_names, complain
from holdfast_installer.errors import Finding, HoldfastError, Refused

if TYPE_CHECKING:
    from pathlib import Path


def applied(
    folder: Path, outcome: Literal["done", "failed", "interrupted"], **failed: str
) -> Applied:
    failed_hosts = {name.replace("_", "-"): why for name, why in failed.items()}
    return Applied(
        site="s",
        release="0" * 12,
        check=False,
        outcome=outcome,
        changed={"control-1": 1, **dict.fromkeys(failed_hosts, 0)},
        failed_hosts=failed_hosts,
        seconds=1.0,
        journal=folder,
    )


def test_a_failure_names_host_task_and_the_way_on(tmp_path: Path) -> None:
    ended = applied(
        tmp_path, "failed", serving_1="dns: Run the resolver: it says\nport 53 is taken"
    )
    with pytest.raises(HoldfastError) as caught:
        complain(ended, site_parts.example_site())
    said = str(caught.value)
    assert caught.value.exit_code == 1
    assert said.startswith(
        "Apply did not finish on serving-1; finished as far as they could: control-1"
    )
    assert "; not begun: serving-2." in said
    assert (
        "  why:   serving-1: dns: Run the resolver: it says\n           port 53 is taken\n" in said
    )
    assert str(tmp_path / "ansible.log") in said
    assert "run the same apply again" in said


def test_a_failure_that_names_no_host_points_to_the_log(tmp_path: Path) -> None:
    ended = applied(tmp_path, "failed").model_copy(update={"changed": {}})
    with pytest.raises(HoldfastError, match=r"not finish on the site\.") as caught:
        complain(ended, site_parts.example_site())
    assert "the file says why" in str(caught.value)


def test_a_long_complaint_keeps_how_it_began_and_how_it_ended(tmp_path: Path) -> None:
    why = "role: task: " + "x" * 4000 + " the point of it"
    with pytest.raises(HoldfastError) as caught:
        complain(applied(tmp_path, "failed", serving_1=why), site_parts.example_site())
    assert "role: task:" in caught.value.cause
    assert caught.value.cause.endswith("the point of it")
    assert len(caught.value.cause) < 1000


def test_an_interrupted_apply_says_that_the_next_goes_on(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="Apply was interrupted") as caught:
        complain(applied(tmp_path, "interrupted"), site_parts.example_site())
    assert "it goes on where this one stopped" in caught.value.next_command


def test_an_apply_that_ended_well_has_nothing_to_complain_of(tmp_path: Path) -> None:
    complain(applied(tmp_path, "done"), site_parts.example_site())


def test_brackets_in_what_a_host_says_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress() as display:
        bars = _Bars(display, {"a-1": 2})
        display.console.file = None  # what is captured now, not when the console was made
        for event in ("ok", "failed"):
            bars.saw(
                Event(time=1, event=event, host="a-1", role="dns", task="[/x]", msg="[/tmp/y] [z]")
            )
    assert "a-1 dns: [/x]: [/tmp/y] [z]" in capsys.readouterr().err


def test_what_a_task_tells_people_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    told = "ada would leave the team research: the site no longer names them there"
    with progress() as display:
        bars = _Bars(display, {"a-1": 2})
        display.console.file = None
        bars.saw(Event(time=1, event="ok", host="a-1", role="identity", task="one", msg=told))
    assert f"a-1: identity: {told}" in capsys.readouterr().err


def test_a_refusal_shows_its_hosts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        finding = Finding(name="port", verdict="fail", host="control-1", detail="[/run/x] is there")
        raise Refused("1 blocker.", (finding,))

    monkeypatch.setattr("holdfast_installer.cli.main_group.main", refuse)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 3
    assert "fail  port [control-1]: [/run/x] is there" in capsys.readouterr().err


def test_capabilities_are_the_roles_of_the_playbook() -> None:
    assert {"bundle", "dns", "egress", "gateway", "vllm"} <= capability_names()


def test_an_unknown_capability_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    site = tmp_path / "site.yml"
    site.write_text((site_parts.DATA / "site-example.yml").read_text())
    done = CliRunner().invoke(apply, ["--site", str(site), "--capability", "gatewy"])
    assert done.exit_code == 2
    assert "no capability gatewy; there are base_system, bundle," in done.output
