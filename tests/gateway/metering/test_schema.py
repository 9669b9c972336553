"""The tables of the previous release are brought on; those of a newer one are refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from metering_parts import NOON, row
from sqlalchemy import create_engine, inspect, select, text

from holdfast_gateway.metering.reports import Question, sums
from holdfast_gateway.metering.schema import VERSION, SchemaError
from holdfast_gateway.metering.usage import USAGE, UsageStore

# As the release before wrote it, which kept no version.
FIRST = """
CREATE TABLE usage (
    request_id VARCHAR(64) NOT NULL PRIMARY KEY, time {moment} NOT NULL,
    principal VARCHAR(128) NOT NULL, principal_kind VARCHAR(16) NOT NULL, team VARCHAR(128),
    model VARCHAR(256) NOT NULL, endpoint VARCHAR(64) NOT NULL, stream BOOLEAN NOT NULL,
    status INTEGER NOT NULL, state VARCHAR(16) NOT NULL, prompt_tokens INTEGER,
    cached_tokens INTEGER, completion_tokens INTEGER, ttft_ms FLOAT, duration_ms FLOAT NOT NULL
)
"""


def first_release(database: str) -> None:
    engine = create_engine(database)
    moment = "DATETIME" if engine.dialect.name == "sqlite" else "TIMESTAMP WITH TIME ZONE"
    with engine.begin() as connection:
        connection.execute(text(FIRST.format(moment=moment)))
        connection.execute(text("CREATE INDEX usage_by_time ON usage (time)"))
        connection.execute(text("CREATE INDEX usage_by_principal ON usage (principal, time)"))
        connection.execute(
            text(
                "INSERT INTO usage VALUES ('old', '2026-01-19 08:00:00.000000', 'ada', 'user', "
                "'research', 'org/model', '/v1/completions', true, 200, 'done', 3, 0, 2, 1.5, 9.0)"
            )
        )
    engine.dispose()


def test_rows_of_the_previous_release_are_kept(database: str) -> None:
    first_release(database)
    store = UsageStore(database)
    store.create_schema()
    store.create_schema()  # and a second time it is a look
    store.insert([row("new", session="s")])
    with store.engine.connect() as connection:
        found = {
            each.request_id: each for each in connection.execute(select(USAGE).order_by("time"))
        }
        (total,) = sums(connection, Question(by=()))
    assert (found["old"].prompt_tokens, found["old"].session, found["old"].cost) == (3, None, None)
    assert found["new"].session == "s"
    assert (total.requests, total.prompt_tokens) == (2, 10)
    store.close()


def test_an_old_table_becomes_like_a_new_one(database: str, tmp_path: object) -> None:
    first_release(database)
    old, new = UsageStore(database), UsageStore(f"sqlite:///{tmp_path}/new.db")
    shapes = []
    for store in (old, new):
        store.create_schema()
        look = inspect(store.engine)
        columns = {each["name"]: each["nullable"] for each in look.get_columns("usage")}
        indexes = {each["name"]: each["column_names"] for each in look.get_indexes("usage")}
        shapes.append((columns, indexes, set(look.get_table_names())))
        store.close()
    assert shapes[0] == shapes[1]


def test_a_newer_table_is_refused_and_left_alone(store: UsageStore) -> None:
    with store.engine.begin() as connection:
        connection.execute(text(f"UPDATE usage_schema SET version = {VERSION + 1}"))
    with pytest.raises(SchemaError, match=f"version {VERSION + 1}, this release knows {VERSION}"):
        store.create_schema()
    with store.engine.connect() as connection:
        assert connection.scalar(text("SELECT version FROM usage_schema")) == VERSION + 1


def test_several_gateways_may_begin_at_once(database: str) -> None:
    first_release(database)
    stores = [UsageStore(database) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda store: store.create_schema(), stores))
    stores[0].insert([row("r", time=NOON)])
    assert stores[1].known(["r", "old"]) == {"r", "old"}
    for store in stores:
        store.close()
