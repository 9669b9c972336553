from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from site_parts import DATA, example_site

from holdfast_installer.cli import main
from holdfast_installer.errors import HoldfastError
from holdfast_installer.model import verifying
from holdfast_installer.status.hosts import Checked, HostStatus, Replica, SiteStatus, Unit

if TYPE_CHECKING:
    from holdfast_installer.site import Site

COMMIT = "c" * 40
UNIT = "holdfast-vllm@tiny-0.service"


@pytest.fixture
def site() -> Site:
    return example_site((DATA / "site-example.yml").read_text())


def chain(verdict: str = "pass") -> dict[str, Any]:
    link = {"name": "manifest", "verdict": verdict, "detail": "2 files [signed]", "fix": "restore"}
    return {"model": "org/tiny", "commit": COMMIT, "links": [link]}


def status(state: str = "active", *problems: str, commit: str = COMMIT, problem: str = "") -> Any:
    unit = Unit(unit=UNIT, state=state, result="", restarts=0, since="", said=())
    checked = Checked(
        model="org/tiny", commit=commit, path="/m", checked="now", seconds=1, problems=problems
    )
    replica = Replica(unit=UNIT, model="org/tiny", commit=commit)
    host = HostStatus(name="serving-1", units=(unit,), replicas=(replica,), models=(checked,))
    unread = (HostStatus(name="serving-2", problem=problem),) if problem else ()
    return SiteStatus(site="s", taken_at="now", hosts=(host, *unread), findings=())


@pytest.mark.parametrize(
    ("seen", "verdict", "detail"),
    [
        (status(), "pass", f"on serving-1 ({UNIT})"),
        (status(commit="d" * 40), "not-applicable", "nowhere"),
        (status("inactive", "w was altered"), "fail", f"({UNIT}) is inactive: w was altered"),
        (status("active", "w was altered"), "fail", "is active: w was altered"),
        (status(problem="no route"), "inconclusive", "serving-2 was not read: no route"),
    ],
)
def test_where_it_is_served_is_a_link_of_the_chain(seen: Any, verdict: str, detail: str) -> None:
    link = verifying.served(chain(), seen)
    assert link["verdict"] == verdict
    assert detail in link["detail"]


def answering(
    monkeypatch: pytest.MonkeyPatch, site: Site, code: int, answer: str, seen: Any = None
) -> list[list[str]]:
    """Have the registry and the hosts answer; return what the registry was asked."""
    asked: list[list[str]] = []

    def run(_: Site, words: list[str]) -> tuple[int, str, str]:
        asked.append(words)
        return code, answer, "Error: there is none\n"

    monkeypatch.setattr(verifying, "run_registry", run)
    monkeypatch.setattr(verifying, "take_status", lambda _: seen or status())
    monkeypatch.setattr("holdfast_installer.model.provenance_command.load_site", lambda _: site)
    return asked


@pytest.mark.parametrize(
    ("verdict", "code"), [("pass", 0), ("attested", 0), ("fail", 3), ("inconclusive", 3)]
)
def test_the_command_ends_with_3_where_a_link_does_not_hold(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    site: Site,
    verdict: str,
    code: int,
) -> None:
    asked = answering(monkeypatch, site, code, json.dumps(chain(verdict)))
    with pytest.raises(SystemExit) as ended:
        main(["model", "verify", "org/tiny", "--json"])
    assert (ended.value.code or 0) == code
    assert asked == [["model", "verify", "org/tiny", "--json"]]
    document = json.loads(capsys.readouterr().out)
    assert [link["name"] for link in document["links"]] == ["manifest", "served"]
    answering(monkeypatch, site, code, json.dumps(chain(verdict)))
    with pytest.raises(SystemExit):
        main(["model", "verify", "org/tiny"])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "2 files [signed]" in shown.err
    assert ("next: restore" in shown.err) == (code == 3)


@pytest.mark.parametrize(("code", "answer"), [(1, ""), (0, "no JSON"), (3, "")])
def test_a_registry_that_proves_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, site: Site, code: int, answer: str
) -> None:
    answering(monkeypatch, site, code, answer)
    with pytest.raises(HoldfastError, match="there is none"):
        verifying.verify(site, "org/none", dataset=False)


def test_replicate_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    words: list[list[str]] = []

    def forward(_: Site, given: list[str]) -> int:
        words.append(given)
        return 3

    monkeypatch.setattr("holdfast_installer.model.provenance_command.forward", forward)
    monkeypatch.setattr("holdfast_installer.model.provenance_command.load_site", lambda _: site)
    with pytest.raises(SystemExit) as ended:
        main(["model", "replicate", "--to", "/media/x", "--at-most", "public", "--repo", "a/b"])
    assert ended.value.code == 3
    assert words == [["replicate", "--to", "/media/x", "--at-most", "public", "--repo", "a/b"]]
