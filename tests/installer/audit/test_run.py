"""A probe that breaks is told as an error of its own hosts; the others are judged all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from site_parts import example_site

from holdfast_installer.audit import run
from holdfast_installer.audit.probes import egress, transport
from holdfast_installer.audit.probes.judgement import Judgement

if TYPE_CHECKING:
    from holdfast_installer.audit.evidence import Observation
    from holdfast_installer.site import Host, Site


class Broken:
    """A probe that meets a host which prints something else than it should."""

    CONTROL = "BRK-00"
    NEEDS_CANARY = False

    def __init__(self, problem: Exception) -> None:
        self.problem = problem

    def hosts(self, site: Site) -> tuple[Host, ...]:
        return site.hosts

    def observe(self, site: Site, nonce: str) -> tuple[Observation, ...]:
        del site, nonce
        raise self.problem

    def control_flaw(self, control: Observation | None) -> str:
        del control
        return ""

    def judge(self, look: Observation, flaw: str) -> Judgement:
        del look, flaw
        return Judgement("pass", "never asked")


@pytest.mark.parametrize("problem", [KeyError("workers"), ValueError("not JSON"), OSError("gone")])
def test_a_probe_that_breaks_is_an_error_on_each_of_its_hosts(
    monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    site = example_site()
    monkeypatch.setattr(run, "PROBES", (Broken(problem),))
    result = run.audit(site)
    assert [one.verdict for one in result.verdicts] == ["error"] * len(site.hosts)
    assert all(type(problem).__name__ in one.detail for one in result.verdicts)
    assert len(result.observations) == len(site.hosts)


def test_a_control_of_another_shape_is_a_flaw_and_not_the_end() -> None:
    site = example_site()
    broken = Broken(OSError("x"))
    looks = run._observe(broken, site, "n")
    control = looks[0].model_copy(update={"host": run.OPERATOR, "seen": {"odd": 1}, "problem": ""})
    assert "shape" in run._flaw(egress, control)
    assert {one.verdict for one in run.verdicts_of(egress, site, (*looks, control))} <= {
        "error",
        "not-run",
    }
    assert run._flaw(transport, control) == ""
