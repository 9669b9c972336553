"""holdfast-trust as Ansible and people run it: options, the answer, the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from holdfast_trust.cli import main
from holdfast_trust.ledger import read, verify
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

DOCS = Path(__file__).parents[2] / "docs/capabilities"


@dataclass
class Command:
    url: str
    ledger: Path

    def run(self, *arguments: str, code: int = 0) -> Result:
        environment = {
            "HOLDFAST_TRUST_DATABASE": self.url,
            "HOLDFAST_TRUST_LEDGER": str(self.ledger),
            "HOLDFAST_TRUST_ACTOR": "lin@ops",
        }
        done = CliRunner(env=environment).invoke(main, arguments)
        assert done.exit_code == code, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)


@pytest.fixture
def trust(database_url: str, tmp_path: Path) -> Command:
    command = Command(database_url, tmp_path / "ledger")
    assert command.json("init") == {"changed": True}
    return command


@pytest.fixture
def sqlite(tmp_path: Path) -> Command:
    command = Command(f"sqlite:///{tmp_path}/identity.db", tmp_path / "ledger")
    command.run("init")
    return command


def test_a_site_is_set_up_used_and_cleared(trust: Command) -> None:
    assert trust.json("init") == {"changed": False}
    assert trust.json("team", "add", "research")["changed"]
    assert trust.json("user", "add", "ada", "--team", "research")["changed"]
    assert trust.json("user", "add", "ada") == {
        "changed": False,
        "name": "ada",
        "kind": "user",
        "teams": [],
    }
    assert trust.json("service", "add", "gateway")["changed"]
    assert trust.json("team", "member", "add", "research", "gateway")["changed"]
    assert trust.json("team", "list") == [
        {
            "name": "research",
            "members": ["ada", "gateway"],
            "roles": {"ada": "read", "gateway": "read"},
        }
    ]
    assert trust.json("team", "member", "add", "research", "gateway", "--role", "write")["changed"]
    assert trust.json("team", "member", "remove", "research", "gateway")["changed"]
    issued = trust.json("token", "issue", "ada", "--name", "laptop", "--expires", "12h")
    store = TrustStore(trust.url, cache_seconds=0)
    assert store.authenticate(issued["token"])
    assert [each["name"] for each in trust.json("user", "list")] == ["ada"]
    assert [each["name"] for each in trust.json("service", "list")] == ["gateway"]
    (listed,) = trust.json("token", "list", "ada")
    assert (listed["state"], listed["last_four"]) == ("valid", issued["token"][-4:])
    assert trust.json("token", "revoke", listed["id"])["changed"]
    assert not trust.json("token", "revoke", listed["id"])["changed"]
    assert store.examine(issued["token"]) == "revoked"
    assert trust.json("token", "revoke", "--principal", "ada")["changed"]
    assert trust.json("user", "disable", "ada")["changed"]
    assert not trust.json("user", "disable", "ada")["changed"]
    assert trust.json("user", "enable", "ada")["changed"]
    assert trust.json("service", "disable", "gateway")["changed"]
    assert trust.json("service", "enable", "gateway")["changed"]
    store.close()
    report = trust.json("ledger", "verify")
    assert (report["ok"], report["entries"]) == (True, report["covered"])
    assert {record["event"]["actor"] for record in read(trust.ledger)} == {"lin@ops"}
    # House rule: an event that is not documented fails.
    text = (DOCS / "identity.md").read_text(encoding="utf-8")
    done = {record["event"]["action"] for record in read(trust.ledger)}
    assert len(done) == 14
    assert {action for action in done if f"`{action}`" not in text} == set()


def test_a_secret_is_shown_once_and_alone_on_standard_output(sqlite: Command) -> None:
    sqlite.run("user", "add", "ada")
    done = sqlite.run("token", "issue", "ada")
    secret = done.stdout.strip()
    assert secret.startswith("hft_")
    assert "not shown again" in done.stderr
    for command in (["token", "list"], ["user", "list"], ["ledger", "verify"]):
        assert secret not in sqlite.run(*command).stdout


def test_users_tokens_expire_and_services_do_not_unless_told(sqlite: Command) -> None:
    sqlite.run("user", "add", "ada")
    sqlite.run("service", "add", "gateway")
    day = 86400
    user = sqlite.json("token", "issue", "ada")["expires_at"]
    shorter = sqlite.json("token", "issue", "gateway", "--expires", "89d")["expires_at"]
    assert 0 < user - shorter < 2 * day
    assert sqlite.json("token", "issue", "gateway", "--name", "b")["expires_at"] is None
    never = sqlite.json("token", "issue", "ada", "--name", "b", "--expires", "never")
    assert never["expires_at"] is None


def test_a_site_bounds_the_life_of_users_tokens_and_exempts_services(sqlite: Command) -> None:
    sqlite.run("user", "add", "ada")
    sqlite.run("service", "add", "gateway")
    bound = ("--max-lifetime", "720h", "token", "issue")
    month = 720 * 3600
    usual = sqlite.json(*bound, "ada")["expires_at"] - time.time()
    assert month - 60 < usual <= month + 1
    assert sqlite.json(*bound, "ada", "--name", "b", "--expires", "1h")["expires_at"]
    for longer in ("721h", "never"):
        refused = sqlite.run(*bound, "ada", "--name", "c", "--expires", longer, code=1)
        assert "longer than this site permits" in refused.stderr
        assert "--expires 720h" in refused.stderr
    assert sqlite.json(*bound, "gateway")["expires_at"] is None
    assert [row["name"] for row in sqlite.json("token", "list", "ada")] == ["b", "default"]


def test_a_token_file_is_written_once_and_again_only_when_it_no_longer_holds(
    trust: Command, tmp_path: Path
) -> None:
    trust.run("service", "add", "gateway")
    trust.run("service", "add", "registry")
    path = tmp_path / "token"
    issue = ("token", "issue", "gateway", "--name", "unit", "--output", str(path))
    first = trust.json(*issue)
    assert first["changed"]
    assert "token" not in first
    assert path.stat().st_mode & 0o777 == 0o600
    secret = path.read_text()
    assert secret not in trust.run(*issue).stdout
    assert trust.json(*issue) == {
        "changed": False,
        "token_id": first["token_id"],
        "output": str(path),
    }
    assert path.read_text() == secret

    trust.run("token", "revoke", first["token_id"])
    second = trust.json(*issue)
    assert second["changed"], "a revoked one is replaced"
    assert path.read_text() != secret

    def must_ask_first(reason: str) -> None:
        before = path.read_text() if path.exists() else ""
        assert "has a valid token 'unit'" in trust.run(*issue, code=1).stderr, reason
        assert trust.json("token", "list", "gateway")[-1]["state"] == "valid"
        assert trust.json(*issue, "--rotate")["changed"], reason
        assert path.read_text() != before, reason
        assert not trust.json(*issue)["changed"], reason

    path.unlink()
    must_ask_first("file gone")
    path.write_text("torn")
    must_ask_first("file torn")
    path.write_text(trust.json("token", "issue", "registry", "--name", "unit")["token"])
    must_ask_first("another's token")
    path.write_text(trust.json("token", "issue", "gateway", "--name", "other")["token"])
    must_ask_first("another name's token")
    assert [each.name for each in tmp_path.glob(".*.new")] == []


def test_a_new_file_does_not_end_a_token_that_works_elsewhere(
    sqlite: Command, tmp_path: Path
) -> None:
    sqlite.run("user", "add", "ada")
    issue = ("token", "issue", "ada", "--output")
    sqlite.run(*issue, str(tmp_path / "first"))
    refused = sqlite.run(*issue, str(tmp_path / "second"), code=1)
    assert "--rotate" in refused.stderr
    assert not (tmp_path / "second").exists()
    store = TrustStore(sqlite.url)
    assert store.authenticate((tmp_path / "first").read_text().strip())
    store.close()


def test_where_a_token_file_cannot_be_written_no_token_is_issued(
    sqlite: Command, tmp_path: Path
) -> None:
    sqlite.run("service", "add", "gateway")
    path = tmp_path / "missing" / "token"
    done = sqlite.run("token", "issue", "gateway", "--output", str(path), code=1)
    assert "no token was issued" in done.stderr
    assert sqlite.json("token", "list") == []
    path.parent.mkdir()
    assert sqlite.json("token", "issue", "gateway", "--output", str(path))["changed"]


def test_a_token_lost_on_its_way_to_the_file_says_how_to_go_on(
    sqlite: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if self.name == ".token.new":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    sqlite.run("service", "add", "gateway")
    monkeypatch.setattr(Path, "replace", full)
    done = sqlite.run("token", "issue", "gateway", "--output", str(tmp_path / "token"), code=1)
    assert "a token was issued and lost" in done.stderr
    assert "--rotate" in done.stderr


def test_a_token_is_bound_to_verbs_teams_and_repositories(trust: Command) -> None:
    trust.run("team", "add", "research")
    trust.run("user", "add", "ada", "--team", "research")
    issue = ("token", "issue", "ada", "--name", "ci")
    bounds = ("--verb", "write", "--verb", "infer", "--team", "research", "--repo", "Research/Tiny")
    scope = {"verbs": ["write", "infer"], "teams": ["research"], "repositories": ["research/tiny"]}
    assert trust.json(*issue, *bounds)["scope"] == scope
    assert trust.json("token", "list")[0]["scope"] == scope
    listed = trust.run("token", "list").stdout
    assert "verbs=write,infer teams=research repositories=research/tiny" in listed
    assert trust.json(*issue, "--rotate")["scope"] == scope, "rotating gives no more than before"
    narrower = trust.json(*issue, "--rotate", "--verb", "read")["scope"]
    assert narrower == {"verbs": ["read"]}
    assert trust.json("token", "issue", "ada")["scope"] == {}
    assert trust.run("token", "list").stdout.splitlines()[-1].endswith("all")
    assert trust.json("token", "issue", "ada", "--name", "own", "--team", "ada")["changed"]


def test_an_agent_is_made_shown_and_ended(trust: Command, tmp_path: Path) -> None:
    trust.run("team", "add", "research")
    trust.run("user", "add", "ada", "--team", "research")
    words = ["agent", "create", "scout", "--for", "ada", "--hours-to-live", "8"]
    words += ["--model", "holdfast/Starter", "--hours", "22-06"]  # whatever the time is now
    made = trust.json(*words)
    assert made["token"].startswith("hft_")
    assert made["scope"] == {"verbs": ["infer"], "repositories": ["holdfast/starter"]}
    assert made["hours"] == "22:00-06:00"
    assert made["expires_at"] == pytest.approx(time.time() + 8 * 3600, abs=60)
    assert "at work" in trust.run(*words, code=1).stderr
    shown = trust.json("agent", "show", "scout")
    assert (shown["owner"], shown["state"], shown["owner_teams"]) == (
        "ada",
        "valid",
        {"research": "read"},
    )
    assert [each["id"] for each in shown["tokens"]] == [made["token_id"]]
    assert "22:00-06:00" in trust.run("agent", "show", "scout").stdout
    assert [each["name"] for each in trust.json("agent", "list", "--for", "ada")] == ["scout"]
    assert trust.json("agent", "end", "scout") == {"changed": True, "name": "scout"}
    assert trust.run("agent", "end", "scout").stdout == "agent scout was ended already\n"
    assert "no agent 'ada'" in trust.run("agent", "show", "ada", code=1).stderr
    file = tmp_path / "token"
    again = [*words, "--output", str(file)]
    assert "token" not in trust.json(*again)
    assert not trust.json(*again)["changed"]
    secret = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    trust.run("kill", "agent", "scout")  # what is stopped is not made anew either
    assert not trust.json(*again)["changed"]
    store = TrustStore(trust.url)
    assert store.examine(secret) == "stopped"
    store.close()


def test_a_site_bounds_the_life_of_agents(sqlite: Command) -> None:
    sqlite.run("user", "add", "ada")
    words = ["agent", "create", "scout", "--for", "ada", "--model", "a/b", "--hours-to-live"]
    done = sqlite.run("--max-lifetime", "4h", *words, "5", code=1)
    assert "bound tokens to 4 hours" in done.stderr
    sqlite.run(*words, "169", code=2)
    sqlite.run(*words, "0", code=2)
    sqlite.run(*words[:-1], code=2)
    sqlite.run("--max-lifetime", "4h", *words, "4")
    again = ["token", "issue", "scout", "--name", "second", "--expires", "never"]
    ends = {
        sqlite.json("--max-lifetime", longest, *again, "--rotate")["expires_at"] - time.time()
        for longest in ("2h", "never")
    }
    assert sorted(ends) == pytest.approx([2 * 3600, 4 * 3600], abs=60)


def test_things_are_stopped_listed_and_let_go(trust: Command) -> None:
    trust.run("team", "add", "research")
    trust.run("user", "add", "ada", "--team", "research")
    issued = trust.json("token", "issue", "ada")
    trust.run("agent", "create", "scout", "--for", "ada", "--hours-to-live", "1", "--model", "a/b")
    trust.run("service", "add", "crawler")
    named = {
        "agent": "scout",
        "key": issued["token_id"],
        "user": "ada",
        "service": "crawler",
        "team": "research",
        "model": "a/b",
    }
    for kind, name in named.items():
        assert trust.json("kill", kind, name, "--reason", "why not")["changed"]
        assert trust.run("kill", kind, name).stdout == f"{kind} {name} was stopped already\n"
    listed = trust.json("kill", "list")
    assert {each["kind"]: each["name"] for each in listed} == named
    assert {(each["by"], each["reason"]) for each in listed} == {("lin@ops", "why not")}
    assert "why not" in trust.run("kill", "list").stdout
    for kind, name in named.items():
        assert trust.json("kill", "lift", kind, name)["changed"]
    assert trust.json("kill", "list") == []
    assert len(trust.json("kill", "list", "--all")) == len(named)
    trust.run("kill", "lift", "world", "x", code=2)
    assert "no team 'x'" in trust.run("kill", "team", "x", code=1).stderr


def test_a_member_has_a_role_that_can_be_changed(trust: Command) -> None:
    trust.run("team", "add", "research")
    trust.run("user", "add", "ada")
    add = ("team", "member", "add", "research", "ada")
    assert trust.json(*add)["role"] == "read"
    assert trust.json(*add, "--role", "write") == {
        "changed": True,
        "team": "research",
        "principal": "ada",
        "role": "write",
    }
    assert trust.json(*add)["role"] == "write", "asking for no role changes none"
    assert not trust.json(*add, "--role", "write")["changed"]
    assert "ada:write" in trust.run("team", "list").stdout
    assert "research:write" in trust.run("user", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["user", "add", "Ada"], 1, "cannot name a user"),
        (["user", "add", "ada", "--team", "none"], 1, "next: holdfast-trust team add none"),
        (["user", "disable", "ada"], 1, "no user or service 'ada'"),
        (["token", "issue", "ada"], 1, "no user or service 'ada'"),
        (["token", "list", "ada"], 1, "no user or service 'ada'"),
        (["token", "revoke", "abc"], 1, "no token abc"),
        (["token", "revoke"], 2, "either a token's id or --principal"),
        (["token", "issue", "ada", "--expires", "soon"], 2, "not like 90d"),
        (["init", "--reader", "gateway"], 1, "only be named for PostgreSQL"),
        (["ledger", "verify", "nowhere"], 1, "public key cannot be read"),
        (["token", "issue", "ada", "--verb", "fly"], 2, "'fly' is not one of"),
        (["token", "issue", "ada", "--repo", "research"], 1, "org/* for all of org"),
        (["team", "member", "add", "none", "ada", "--role", "king"], 2, "'king' is not one of"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_mistakes_say_what_and_what_next(
    sqlite: Command, arguments: list[str], code: int, said: str
) -> None:
    done = sqlite.run(*arguments, code=code)
    assert said in done.stderr
    assert done.stdout == ""


def test_what_was_done_elsewhere_is_noted(sqlite: Command) -> None:
    told = sqlite.json("ledger", "note", "model.scale", "model=org/one", "why=a = b", "before=1")
    *_, last = read(sqlite.ledger)
    assert last["index"] == told["index"]
    assert last["event"] == {
        "action": "model.scale",
        "actor": "lin@ops",
        "noted": True,
        "model": "org/one",
        "why": "a = b",
        "before": "1",
    }
    for wrong in (
        ("scale",),
        ("Model.scale",),
        ("model.scale", "bare"),
        ("model.scale", "a=1", "a=2"),
        ("model.scale", "actor=eve"),
        ("model.scale", "noted="),
    ):
        sqlite.run("ledger", "note", *wrong, code=2)
    *_, still = read(sqlite.ledger)
    assert still["index"] == told["index"]


def test_changes_without_a_ledger_are_refused(sqlite: Command, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from holdfast_trust.cli import main; main()", "user", "add", "a"],
        env={"HOLDFAST_TRUST_DATABASE": f"sqlite:///{tmp_path}/identity.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "HOLDFAST_TRUST_LEDGER" in done.stderr
    assert sqlite.json("user", "list") == []


def test_a_tampered_ledger_is_refused_with_findings(sqlite: Command, tmp_path: Path) -> None:
    sqlite.run("user", "add", "ada")
    note = tmp_path / "witness.txt"
    note.write_text(sqlite.run("ledger", "checkpoint").stdout)
    key = (sqlite.ledger / "key.pub").read_text()
    kept = ("ledger", "verify", "--checkpoint", str(note), "--public-key", key)
    assert sqlite.json(*kept)["anchored"]
    path = sqlite.ledger / "entries.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"principal":"ada"', b'"principal":"eve"'))
    done = sqlite.run(*kept, "--json", code=3)
    report = json.loads(done.stdout)
    assert not report["ok"]
    assert {each["name"] for each in report["findings"]} == {"checkpoint"}
    assert "NOT ok" in sqlite.run(*kept, code=3).stdout
    assert not verify(sqlite.ledger).ok


def test_services_may_read_but_not_write_what_is_granted(
    postgresql: Callable[[], str], tmp_path: Path
) -> None:
    trust = Command(postgresql(), tmp_path / "ledger")
    owner = TrustStore(trust.url)
    with owner._engine.begin() as connection:
        connection.exec_driver_sql('CREATE ROLE "holdfast-reader" NOLOGIN')
    assert trust.json("init", "--reader", "holdfast-reader")["changed"]
    assert not trust.json("init", "--reader", "holdfast-reader")["changed"]
    trust.run("user", "add", "ada")
    with owner._engine.connect() as connection:
        connection.exec_driver_sql('SET ROLE "holdfast-reader"')
        assert connection.exec_driver_sql("SELECT name FROM principal").scalar() == "ada"
        with pytest.raises(Exception, match="permission denied"):
            connection.exec_driver_sql("UPDATE principal SET generation = 0")
    owner.close()


def _commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def test_every_command_is_documented_and_speaks_json() -> None:
    text = "".join(
        (DOCS / name).read_text(encoding="utf-8")
        for name in ("identity.md", "ledger.md", "agents.md", "kill.md")
    )
    found = dict(_commands(main))
    assert len(found) == 31
    assert {path for path in found if f"holdfast-trust {path}" not in text} == set()
    for path, command in found.items():
        options = {option for each in command.params for option in each.opts}
        assert "--json" in options, path
        assert {each for each in options if each.startswith("--") and each not in text} == set()
        assert command.help, path
