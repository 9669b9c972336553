from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import event, insert, inspect, select, update

from holdfast_trust import database, tokens
from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import Ledger, read
from holdfast_trust.principals import Principal
from holdfast_trust.scopes import EVERYTHING, NOTHING, Scope, checked_scope, read_scope
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from pathlib import Path


def events(ledger: Ledger) -> list[str]:
    return [record["event"]["action"] for record in read(ledger.path)]


def test_a_token_proves_who_it_was_issued_to(store: TrustStore) -> None:
    store.add_team("alpha")
    store.add_user("ada", ("research", "alpha"))
    issued = store.issue_token("ada", "laptop")
    principal = store.authenticate(issued.secret)
    assert principal is not None
    assert (principal.kind, principal.name, principal.teams) == (
        "user",
        "ada",
        ("alpha", "research"),
    )
    assert principal.token_id == issued.token_id
    assert store.still_valid(principal)


def test_a_service_without_a_team_is_known_too(store: TrustStore) -> None:
    store.add_service("serving-1")
    principal = store.authenticate(store.issue_token("serving-1").secret)
    assert principal is not None
    assert (principal.kind, principal.teams) == ("service", ())


def test_wrong_tokens_prove_nobody_and_say_why(store: TrustStore) -> None:
    store.add_user("ada")
    secret = store.issue_token("ada").secret
    assert store.examine(tokens.mint()) == "unknown"
    assert store.examine(secret[:-1] + ("a" if secret[-1] != "a" else "b")) == "mistyped"
    assert store.examine("") == "unknown"
    assert store.examine("\ud800 not even text") == "unknown"
    assert store.authenticate(tokens.mint()) is None


def test_the_secret_is_nowhere_in_the_database_or_on_the_ledger(
    store: TrustStore, ledger: Ledger, tmp_path: Path
) -> None:
    store.add_user("ada")
    issued = store.issue_token("ada")
    assert issued.secret not in repr(issued)
    assert issued.secret not in str(store.tokens())
    assert store.tokens()[0]["last_four"] == issued.secret[-4:]
    assert issued.secret.encode() not in (ledger.path / "entries.jsonl").read_bytes()
    for file in tmp_path.glob("identity.db*"):
        assert issued.secret.encode() not in file.read_bytes()
    with store._engine.connect() as connection:
        row = connection.execute(select(database.tokens)).one()
    assert issued.secret not in str(row)
    assert row.digest == tokens.digest(issued.secret)


def test_an_expired_token_is_refused_even_from_the_cache(database_url: str) -> None:
    store = TrustStore(database_url, cache_seconds=1.0)
    store.create_schema()
    store.add_user("ada")
    issued = store.issue_token("ada", lifetime_seconds=1)
    principal = store.authenticate(issued.secret)
    assert principal is not None
    time.sleep(max(0.0, (issued.expires_at or 0) - time.time()) + 0.01)
    assert store.examine(issued.secret) == "expired"
    assert not store.still_valid(principal)
    assert store.tokens()[0]["state"] == "expired"
    store.close()


def test_setting_the_clock_back_gives_no_token_a_longer_life(
    store: TrustStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_user("ada")
    issued = store.issue_token("ada", lifetime_seconds=1)
    principal = store.authenticate(issued.secret)
    assert principal is not None
    time.sleep(max(0.0, (issued.expires_at or 0) - time.time()) + 0.01)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 60)
    assert store.examine(issued.secret) == "expired"
    assert not store.still_valid(principal)
    monkeypatch.setattr(time, "time", lambda: real() + 10**9)
    assert store.examine(issued.secret) == "expired"


def test_a_clock_that_was_ahead_for_a_while_ends_nothing_for_good(
    store: TrustStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_user("ada")
    secret = store.issue_token("ada", lifetime_seconds=3600).secret
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    assert store.examine(secret) == "expired"
    monkeypatch.setattr(time, "time", real)
    assert store.authenticate(secret)


def test_by_a_clock_before_its_issue_no_token_that_expires_holds(
    store: TrustStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_user("ada")
    expiring = store.issue_token("ada", "a", lifetime_seconds=3600)
    endless = store.issue_token("ada", "b")
    real = time.time
    for behind, held in ((240, True), (360, False)):
        monkeypatch.setattr(time, "time", lambda behind=behind: real() - behind)
        restarted = TrustStore(database_url, cache_seconds=0)
        found = restarted.examine(expiring.secret)
        assert isinstance(found, Principal) if held else found == "early"
        assert restarted.authenticate(endless.secret), "what never expires needs no clock"
        restarted.close()


def test_a_revoked_token_ends_at_once_where_it_was_revoked(store: TrustStore) -> None:
    store.add_user("ada")
    issued = store.issue_token("ada")
    principal = store.authenticate(issued.secret)
    assert principal is not None
    assert store.revoke_token(issued.token_id)
    assert store.examine(issued.secret) == "revoked"
    assert not store.still_valid(principal)
    assert not store.revoke_token(issued.token_id)


def test_what_was_signed_for_a_token_ends_with_it(store: TrustStore) -> None:
    store.add_user("ada", {"research": "write"})
    issued = store.issue_token("ada", scope=checked_scope(["read"]))
    recalled = store.recall(issued.token_id)
    assert recalled == store.authenticate(issued.secret)
    assert store.recall("00") is None
    assert store.token_named(issued.token_id)[0] == "default"
    store.revoke_token(issued.token_id)
    assert store.recall(issued.token_id) is None
    with pytest.raises(TrustError, match="no token 00"):
        store.token_named("00")


def test_a_team_and_a_user_are_looked_up_by_name(store: TrustStore) -> None:
    store.add_user("ada", {"research": "write"})
    store.add_service("ci", ("research",))
    store.add_team("idle")
    assert store.members_of("research") == {"ada": "write"}
    assert store.members_of("idle") == {}
    assert store.members_of("none") is None
    assert store.teams_of("ada") == {"research": "write"}
    assert store.teams_of("ci") is None


def test_raising_the_generation_ends_every_token_and_no_one_elses(store: TrustStore) -> None:
    store.add_user("ada")
    store.add_user("ben")
    old = [store.issue_token("ada", name).secret for name in ("one", "two")]
    bens = store.issue_token("ben").secret
    store.revoke_all("ada")
    assert [store.examine(secret) for secret in old] == ["revoked", "revoked"]
    assert store.authenticate(bens)
    assert store.authenticate(store.issue_token("ada", "one").secret)


def test_a_disabled_user_has_no_way_in_and_old_tokens_stay_dead(store: TrustStore) -> None:
    store.add_user("ada")
    issued = store.issue_token("ada")
    assert store.set_disabled("ada", disabled=True)
    assert store.examine(issued.secret) == "disabled"
    with pytest.raises(TrustError, match="disabled"):
        store.issue_token("ada", "again")
    assert store.set_disabled("ada", disabled=False)
    assert not store.set_disabled("ada", disabled=False)
    assert store.examine(issued.secret) == "revoked"
    assert store.authenticate(store.issue_token("ada").secret)


def test_a_valid_token_is_not_replaced_by_accident(store: TrustStore) -> None:
    store.add_user("ada")
    first = store.issue_token("ada", "laptop")
    with pytest.raises(TrustError, match="has a valid token 'laptop'"):
        store.issue_token("ada", "laptop")
    second = store.issue_token("ada", "laptop", rotate=True)
    assert second.token_id != first.token_id, "an id names one secret"
    assert [each["id"] for each in store.tokens()] == [second.token_id]
    assert store.recall(first.token_id) is None
    assert store.examine(first.secret) == "unknown"
    assert store.authenticate(second.secret)


def test_a_rotated_token_ends_what_the_old_one_began(store: TrustStore) -> None:
    store.add_user("ada")
    principal = store.authenticate(store.issue_token("ada").secret)
    assert principal is not None
    store.issue_token("ada", rotate=True)
    assert not store.still_valid(principal)
    assert not store.still_valid(Principal(principal.id, "user", "ada"))


def test_a_given_secret_must_be_long_and_nobody_elses(store: TrustStore) -> None:
    store.add_user("ada")
    store.add_user("ben")
    with pytest.raises(TrustError, match="too short") as caught:
        store.issue_token("ada", secret="tooshort")
    assert "tooshort" not in str(caught.value)
    assert store.issue_token("ada", secret="sixteen-letters!").changed
    assert not store.issue_token("ada", secret="sixteen-letters!").changed
    with pytest.raises(TrustError, match="another token"):
        store.issue_token("ben", secret="sixteen-letters!")


def test_adding_again_changes_nothing(store: TrustStore, ledger: Ledger) -> None:
    assert store.add_user("ada", ("research",))
    before = len(events(ledger))
    assert not store.add_user("ada", ("research",))
    assert not store.add_user("ada")
    assert not store.add_team("research")
    assert not store.add_member("research", "ada")
    assert len(events(ledger)) == before


def test_teams_are_joined_and_left(store: TrustStore) -> None:
    store.add_user("ada")
    assert store.add_member("research", "ada")
    assert store.teams() == [{"name": "research", "members": ["ada"], "roles": {"ada": "read"}}]
    assert store.remove_member("research", "ada")
    assert not store.remove_member("research", "ada")
    assert store.teams() == [{"name": "research", "members": [], "roles": {}}]
    principal = store.authenticate(store.issue_token("ada").secret)
    assert principal is not None
    assert principal.teams == ()


def test_a_role_is_given_kept_and_changed(store: TrustStore, ledger: Ledger) -> None:
    store.add_team("alpha")
    assert store.add_user("ada", {"research": "write", "alpha": None})
    secret = store.issue_token("ada").secret

    def roles() -> dict[str, str]:
        principal = store.authenticate(secret)
        assert principal is not None
        return dict(principal.roles)

    assert roles() == {"research": "write", "alpha": "read", "ada": "admin"}
    assert not store.add_user("ada", ("research",)), "joining again takes no role away"
    assert not store.add_member("research", "ada")
    assert store.add_member("research", "ada", "contribute")
    assert not store.set_role("research", "ada", "contribute")
    assert store.set_role("research", "ada", "admin")
    assert roles()["research"] == store.role_in("research", "ada") == "admin"
    assert events(ledger).count("team.member.role") == 2
    with pytest.raises(TrustError, match="no such role"):
        store.add_member("research", "ada", "owner")  # type: ignore[arg-type]
    store.add_user("ben")
    with pytest.raises(TrustError, match="ben is not in research"):
        store.set_role("research", "ben", "write")
    assert store.role_in("research", "ben") is None


def test_a_service_has_no_namespace_of_its_own(store: TrustStore) -> None:
    store.add_service("gateway", ("research",))
    principal = store.authenticate(store.issue_token("gateway").secret)
    assert principal is not None
    assert principal.roles == {"research": "read"}


def test_nobody_shares_a_name_with_a_team(store: TrustStore) -> None:
    for add in (store.add_user, store.add_service):
        with pytest.raises(TrustError, match="there is a team 'research' already"):
            add("research")
    store.add_user("ada")
    with pytest.raises(TrustError, match="there is a user or service 'ada' already"):
        store.add_team("ada")


def test_where_a_name_was_shared_the_team_owns_what_bears_it(store: TrustStore) -> None:
    store.add_user("ada")
    secret = store.issue_token("ada").secret
    with store._engine.execution_options(writes=True).begin() as connection:
        connection.execute(insert(database.teams).values(name="ada", created_at=0))
    principal = store.authenticate(secret)
    assert principal is not None
    assert principal.roles == {}


def test_a_token_counts_only_the_teams_it_is_bound_to(store: TrustStore) -> None:
    store.add_team("alpha")
    store.add_user("ada", {"research": "write", "alpha": "admin"})

    def bound(*teams: str) -> Principal:
        issued = store.issue_token("ada", rotate=True, scope=checked_scope(teams=teams))
        found = store.authenticate(issued.secret)
        assert found is not None
        return found

    assert bound("research").teams == ("research",)
    assert bound("research").roles == {"research": "write"}
    assert bound("ada").roles == {"ada": "admin"}
    assert bound("ada", "alpha").roles == {"ada": "admin", "alpha": "admin"}
    store.add_team("later")
    assert bound("later").roles == {}
    with pytest.raises(TrustError, match="no team 'nowhere'"):
        bound("nowhere")


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        (None, EVERYTHING),
        ('{"verbs": ["read"]}', Scope(verbs=("read",))),
        ("", NOTHING),
        ("{", NOTHING),
        ("{}", NOTHING),
        ("[]", NOTHING),
        ("3", NOTHING),
        ('{"verbs": []}', NOTHING),
        ('{"verbs": null}', NOTHING),
        ('{"verbs": "read"}', NOTHING),
        ('{"verbs": ["fly"]}', NOTHING),
        ('{"verbs": ["read"], "hours": [9]}', NOTHING),
        ('{"repositories": ["x"]}', NOTHING),
        ('{"teams": [7]}', NOTHING),
    ],
)
def test_a_stored_scope_is_what_it_says_or_nothing(text: str | None, scope: Scope) -> None:
    assert read_scope(text) == scope


def test_rotating_keeps_the_scope_and_giving_one_changes_it(store: TrustStore) -> None:
    store.add_user("ada")
    narrow = checked_scope(["read"], repositories=["a/b", "A/b", "c/*"])
    assert store.issue_token("ada", scope=narrow).scope == narrow
    assert narrow.repositories == ("a/b", "c/*")
    assert store.issue_token("ada", rotate=True).scope == narrow
    assert store.issue_token("ada", rotate=True, scope=EVERYTHING).scope == EVERYTHING
    given = "sixteen-letters!"
    assert store.issue_token("ada", secret=given, rotate=True, scope=narrow).changed
    principal = store.authenticate(given)
    assert principal is not None
    assert store.issue_token("ada", secret=given, rotate=True, scope=EVERYTHING).changed
    assert not store.issue_token("ada", secret=given, rotate=True, scope=EVERYTHING).changed
    assert not store.still_valid(principal), "what was begun with other rights ends"


def test_lists_tell_users_from_services(store: TrustStore) -> None:
    store.add_user("ada", ("research",))
    store.add_service("gateway")
    assert [each["name"] for each in store.principals()] == ["ada", "gateway"]
    (user,) = store.principals("user")
    assert (user["teams"], user["disabled"]) == (["research"], False)
    assert store.kind_of("gateway") == "service"


def test_a_name_is_one_principals(store: TrustStore) -> None:
    store.add_user("ada")
    with pytest.raises(TrustError, match="ada is a user already"):
        store.add_service("ada")
    with pytest.raises(TrustError, match="not a service but a user"):
        store.set_disabled("ada", disabled=True, kind="service")


@pytest.mark.parametrize("name", ["", "Ada", "a b", "-ada", "ada-", "a" * 64, "a/b", "ädä", "a\n"])
def test_names_that_could_be_mistaken_are_refused(store: TrustStore, name: str) -> None:
    for add in (store.add_user, store.add_service, store.add_team):
        with pytest.raises(TrustError, match="cannot name"):
            add(name)


def test_the_missing_are_named_with_the_command_that_adds_them(store: TrustStore) -> None:
    with pytest.raises(TrustError, match="no user or service 'ada'"):
        store.issue_token("ada")
    with pytest.raises(TrustError, match="no token 00") as caught:
        store.revoke_token("00")
    assert caught.value.next_command == "holdfast-trust token list"
    store.add_user("ada")
    with pytest.raises(TrustError, match="holdfast-trust team add nowhere"):
        store.add_member("nowhere", "ada")


def test_every_change_is_on_the_ledger_with_its_actor(store: TrustStore, ledger: Ledger) -> None:
    store.add_user("ada", ("research",))
    issued = store.issue_token("ada", "laptop")
    store.revoke_token(issued.token_id)
    store.revoke_all("ada")
    store.set_disabled("ada", disabled=True)
    assert events(ledger) == [
        "identity.init",
        "team.add",
        "user.add",
        "team.member.add",
        "token.issue",
        "token.revoke",
        "token.revoke-all",
        "user.disable",
    ]
    assert {record["event"]["actor"] for record in read(ledger.path)} == {"tester"}


def test_a_change_that_fails_is_neither_made_nor_recorded(
    store: TrustStore, ledger: Ledger
) -> None:
    before = events(ledger)
    with pytest.raises(TrustError, match="no team"):
        store.add_user("ada", ("research", "nowhere"))
    assert store.principals() == []
    assert events(ledger) == before


def test_a_change_that_cannot_be_recorded_does_not_happen(
    store: TrustStore, ledger: Ledger
) -> None:
    ledger.close()
    with pytest.raises(TrustError, match="the ledger is closed"):
        store.add_user("ada")
    assert store.principals() == []


def test_many_at_once_add_one_user_and_lose_no_member(database_url: str) -> None:
    store = TrustStore(database_url)
    store.create_schema()
    store.add_team("research")
    results: list[bool] = []
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            results.append(store.add_user("ada"))
            store.add_user(f"user-{number}", ("research",))
        except TrustError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert results.count(True) == 1
    assert len(store.principals()) == 13
    assert len(store.teams()[0]["members"]) == 12  # type: ignore[arg-type]  # a list of names
    store.close()


def test_proof_takes_one_query_by_an_index_and_none_from_the_cache(store: TrustStore) -> None:
    store.add_user("ada", ("research",))
    secret = store.issue_token("ada").secret
    seen: list[str] = []

    @event.listens_for(store._engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    assert store.authenticate(secret)
    queries = [statement for statement in seen if not statement.startswith("BEGIN")]
    assert len(queries) == 1
    seen.clear()
    assert store.authenticate(secret)
    assert seen == []


async def test_async_proof_agrees(store: TrustStore) -> None:
    store.add_user("ada")
    secret = store.issue_token("ada").secret
    assert await store.authenticate_async(secret) == store.authenticate(secret)
    assert await store.authenticate_async(tokens.mint()) is None


def test_a_cache_longer_than_a_second_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="within a second"):
        TrustStore(f"sqlite:///{tmp_path}/x.db", cache_seconds=1.5)


def test_a_database_without_tables_names_the_command(database_url: str) -> None:
    store = TrustStore(database_url)
    with pytest.raises(TrustError, match="cannot be used") as caught:
        store.authenticate(tokens.mint())
    assert caught.value.next_command.endswith(" init")
    store.close()


OLD_SCHEMA = """
CREATE TABLE trust_schema (version INTEGER NOT NULL PRIMARY KEY);
INSERT INTO trust_schema VALUES (1);
CREATE TABLE principal (id INTEGER NOT NULL PRIMARY KEY, kind VARCHAR(16) NOT NULL,
  name VARCHAR(63) NOT NULL UNIQUE, generation INTEGER NOT NULL, created_at BIGINT NOT NULL,
  disabled_at BIGINT);
CREATE TABLE team (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(63) NOT NULL UNIQUE,
  created_at BIGINT NOT NULL);
CREATE TABLE membership (
  principal_id INTEGER NOT NULL REFERENCES principal (id) ON DELETE CASCADE,
  team_id INTEGER NOT NULL REFERENCES team (id) ON DELETE CASCADE,
  PRIMARY KEY (principal_id, team_id));
CREATE INDEX ix_membership_team_id ON membership (team_id);
CREATE TABLE token (id VARCHAR(16) NOT NULL PRIMARY KEY,
  principal_id INTEGER NOT NULL REFERENCES principal (id) ON DELETE CASCADE,
  name VARCHAR(63) NOT NULL, digest VARCHAR(64) NOT NULL UNIQUE, last_four VARCHAR(4) NOT NULL,
  generation INTEGER NOT NULL, principal_generation INTEGER NOT NULL, created_at BIGINT NOT NULL,
  expires_at BIGINT, revoked_at BIGINT, UNIQUE (principal_id, name));
INSERT INTO principal VALUES (1, 'user', 'ada', 1, 1700000000, NULL);
INSERT INTO team VALUES (1, 'research', 1700000000);
INSERT INTO membership VALUES (1, 1);
"""  # as the first release made it, by way of SQLAlchemy


def _columns(store: TrustStore) -> dict[str, set[tuple[str, bool]]]:
    seen = inspect(store._engine)
    return {
        table: {(column["name"], column["nullable"]) for column in seen.get_columns(table)}
        for table in seen.get_table_names()
    }


def test_a_database_of_the_first_release_is_brought_up_to_date(
    database_url: str, tmp_path: Path
) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        store = TrustStore(database_url, ledger=ledger, actor="tester")
        secret = tokens.mint()
        with store._engine.execution_options(writes=True).begin() as connection:
            for statement in OLD_SCHEMA.split(";\n"):
                if statement.strip():
                    connection.exec_driver_sql(statement)
            connection.exec_driver_sql(
                "INSERT INTO token VALUES ('abc', 1, 'laptop', "
                f"'{tokens.digest(secret)}', 'wxyz', 1, 1, 1700000000, NULL, NULL)"
            )
        with pytest.raises(TrustError, match="cannot be used") as caught:
            store.authenticate(secret)
        assert caught.value.next_command.endswith(" init")
        assert store.create_schema()
        assert not store.create_schema()
        ada = store.authenticate(secret)
        assert ada is not None
        assert (ada.teams, ada.roles, ada.scope) == (
            ("research",),
            {"research": "read", "ada": "admin"},
            EVERYTHING,
        )
        assert store.add_member("research", "ada", "write")
        assert store.issue_token("ada", "laptop", rotate=True, scope=checked_scope(["read"]))
        assert events(ledger)[0] == "identity.init"
        migrated = _columns(store)
        with store._engine.execution_options(writes=True).begin() as connection:
            database.metadata.drop_all(connection)
        assert store.create_schema()
        assert _columns(store) == migrated
        store.close()


def test_a_database_of_another_release_is_left_alone(store: TrustStore) -> None:
    assert not store.create_schema()
    with store._engine.execution_options(writes=True).begin() as connection:
        connection.execute(update(database.schema_version).values(version=99))
    with pytest.raises(TrustError, match="has schema 99; this release knows 3"):
        store.create_schema()


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite://", "sqlite:///:memory:", "mysql://root:secret@host/x"]
)
def test_databases_we_do_not_know_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(TrustError) as caught:
        TrustStore(url)
    assert "secret" not in str(caught.value)


def test_sqlite_files_are_private_from_the_start(tmp_path: Path) -> None:
    store = TrustStore(f"sqlite:///{tmp_path}/deep/identity.db")
    store.create_schema()
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "deep").iterdir()} == {0o600}
    with pytest.raises(TrustError, match="readers can only be named for PostgreSQL"):
        store.create_schema(("gateway",))
    store.close()


def test_a_sqlite_file_that_is_something_else_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is not a database, it is a text file" * 100)
    store = TrustStore(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(TrustError, match="not a database"):
        store.create_schema()
    store.close()


def test_foreign_keys_hold_in_sqlite(tmp_path: Path) -> None:
    store = TrustStore(f"sqlite:///{tmp_path}/x.db")
    store.create_schema()
    with store._engine.connect() as connection, pytest.raises(Exception, match="FOREIGN KEY"):
        connection.exec_driver_sql("INSERT INTO membership VALUES (7, 7, 'read', '')")
    store.close()
    with sqlite3.connect(tmp_path / "x.db") as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    plain.close()


def test_a_stricter_bound_shortens_users_tokens_that_are_out_and_no_services(
    store: TrustStore, ledger: Ledger
) -> None:
    day = 86400
    store.add_user("ada")
    store.add_service("gateway")
    store.issue_token("ada", "long", lifetime_seconds=90 * day)
    store.issue_token("ada", "endless")
    short = store.issue_token("ada", "short", lifetime_seconds=day).expires_at
    store.issue_token("gateway")
    scope = checked_scope(["infer"], [], ["a/b"])
    store.create_agent("scout", "ada", lifetime_seconds=7 * day, scope=scope)
    assert store.bound_user_tokens(30 * day) == 2
    assert store.bound_user_tokens(30 * day) == 0
    left = {row["name"]: row for row in store.tokens()}
    for name in ("long", "endless"):
        assert left[name]["expires_at"] == cast("int", left[name]["created_at"]) + 30 * day
    assert left["short"]["expires_at"] == short
    assert left["default"]["expires_at"] is None
    shortened = [
        record["event"]["name"]
        for record in read(ledger.path)
        if record["event"]["action"] == "token.shorten"
    ]
    assert sorted(shortened) == ["endless", "long"]
    assert store.bound_user_tokens(day) == 3
    agents = store.tokens("scout")[0]
    assert agents["expires_at"] == cast("int", agents["created_at"]) + day
