"""The program that the identities module runs, against a real identity database."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from holdfast_trust.ledger import Ledger, read
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

MODULES = (
    Path(__file__).parents[2] / "playbooks/ansible_collections/holdfast/platform/plugins/modules"
)


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program() -> str:
    return str(loaded(MODULES / "identities.py").PROGRAM)


@pytest.mark.parametrize(
    ("result", "no_log", "said"),
    [
        ({"told": ["ada leaves", "ben leaves"]}, False, "ada leaves\nben leaves"),
        ({"told": []}, False, ""),
        ({}, False, ""),
        ({"told": "text"}, False, ""),
        ({"told": ["a secret"]}, True, ""),
        ({"told": ["a secret"], "_ansible_no_log": True}, False, ""),
    ],
)
def test_what_a_module_tells_people_reaches_the_events(
    result: dict[str, Any], said: str, *, no_log: bool
) -> None:
    callback = loaded(MODULES.parent / "callback/holdfast_events.py")
    done = SimpleNamespace(result=result, task=SimpleNamespace(no_log=no_log))
    assert callback._told(done) == said


@dataclass
class Site:
    folder: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/identity.db"

    def apply(
        self,
        teams: Mapping[str, list[str]],
        services: Mapping[str, list[str]],
        *,
        check: bool = False,
    ) -> dict[str, Any]:
        (self.folder / "tokens").mkdir(exist_ok=True)
        wanted = {
            "database": self.url,
            "ledger": str(self.folder / "ledger"),
            "tokens": str(self.folder / "tokens"),
            "token_max_hours": 720,
            "readers": [],
            "teams": [{"name": name, "users": users} for name, users in teams.items()],
            "services": [{"name": name, "teams": each} for name, each in services.items()],
            "check": check,
        }
        done = subprocess.run(
            [sys.executable, "-I", "-c", program()],
            input=json.dumps(wanted),
            capture_output=True,
            text=True,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def members(self) -> dict[str, object]:
        store = TrustStore(self.url)
        found = {str(team["name"]): team["members"] for team in store.teams()}
        store.close()
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_who_the_file_drops_leaves_and_who_came_by_a_command_stays(site: Site) -> None:
    teams = {"research": ["ada", "ben"], "other": ["ada"], "serving": []}
    hosts = {"serving-1": ["serving"], "serving-2": ["serving"]}
    assert site.apply(teams, hosts) == {"changed": True, "left": []}
    assert site.apply(teams, hosts) == {"changed": False, "left": []}
    with Ledger(site.folder / "ledger") as ledger:
        store = TrustStore(site.url, ledger=ledger)
        store.add_user("eve", {"research": "write"})
        store.set_role("research", "ada", "admin")
        store.close()
    fewer = {"research": ["ada"], "other": ["ada"], "serving": []}
    left = [["research", "ben"], ["serving", "serving-2"]]
    one = {"serving-1": ["serving"]}
    before = site.members()
    assert site.apply(fewer, one, check=True) == {"changed": True, "left": left}
    assert site.members() == before
    assert site.apply(fewer, one) == {"changed": True, "left": left}
    assert site.apply(fewer, one) == {"changed": False, "left": []}
    assert site.members() == {
        "research": ["ada", "eve"],
        "other": ["ada"],
        "serving": ["serving-1"],
    }
    store = TrustStore(site.url)
    assert store.role_in("research", "ada") == "admin", "the file gives no roles and takes none"
    store.close()
    removed = [
        record["event"]
        for record in read(site.folder / "ledger")
        if record["event"]["action"] == "team.member.remove"
    ]
    assert [(each["team"], each["principal"], each["actor"]) for each in removed] == [
        ("research", "ben", "holdfast apply"),
        ("serving", "serving-2", "holdfast apply"),
    ]


def test_who_comes_back_into_the_file_comes_back_into_the_team(site: Site) -> None:
    site.apply({"research": ["ada"]}, {})
    site.apply({"research": []}, {})
    assert site.members() == {"research": []}
    assert site.apply({"research": ["ada"]}, {})["changed"]
    assert site.members() == {"research": ["ada"]}


def test_a_team_that_the_file_drops_keeps_only_who_came_by_a_command(site: Site) -> None:
    site.apply({"research": ["ada"]}, {})
    assert site.apply({}, {})["left"] == [["research", "ada"]]
    assert site.members() == {"research": []}


def test_a_services_lost_token_file_is_written_anew(site: Site) -> None:
    site.apply({"serving": []}, {"serving-1": ["serving"]})
    path = site.folder / "tokens" / "serving-1"
    before = path.read_text()
    path.unlink()
    assert site.apply({"serving": []}, {"serving-1": ["serving"]})["changed"]
    assert path.read_text() != before
    assert path.stat().st_mode & 0o777 == 0o600
