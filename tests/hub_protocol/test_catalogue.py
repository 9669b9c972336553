"""Listings: every filter, sort and page beside what a plain search of all would find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import many_parts
import pytest
import sqlalchemy as sa
from crowd_parts import Crowded, crowded
from many_parts import COMMON, RARE, name_of, row_of, tags_of

from holdfast_hub_protocol import schema, selection
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.records import Repository
from holdfast_hub_protocol.tree import encode_cursor

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import World

COUNT = 1000
Number = int


@pytest.fixture(scope="module")
def many(module_world: World) -> Crowded:
    many_parts.fill(module_world.metadata.engine, 0, COUNT)
    people = ("all", "half", "one", "none", "bound")
    return crowded(module_world, **dict.fromkeys(people, Verb.READ))


@pytest.fixture
def hub(many: Crowded) -> Crowded:
    """Somebody sees all, somebody the namespaces of even number, somebody one of them."""
    many.crowd.hidden = hidden
    many.crowd.bound = {"bound": (name_of(7), name_of(8), "org-19/*")}
    many.crowd.asked = 0
    return many


def hidden(name: str, repository: Repository) -> bool:
    namespace = int(repository.id.namespace.rpartition("-")[2])
    return {"half": namespace % 2 == 1, "one": namespace != 18, "none": True}.get(name, False)


def sees(name: str, number: Number) -> bool:
    if name == "bound":
        return number in {7, 8} or name_of(number).startswith("org-19/")
    return not hidden(name, _repository(number))


def _repository(number: Number) -> Repository:
    return Repository(number, RepositoryId.parse(name_of(number)), many_parts.BASE, many_parts.BASE)


def listed(hub: Crowded, query: str, name: str = "all", limit: int = 1000) -> list[str]:
    """Follow the pages as clients do."""
    path: str | None = f"/api/models?{query}&limit={limit}"
    found: list[str] = []
    while path is not None:
        answer = hub.ask(name, "GET", path)
        assert answer.status_code == 200, answer.text
        found += [item["id"] for item in answer.json()]
        path = answer.links["next"]["url"] if "next" in answer.links else None
    return found


FILTERS: dict[str, Callable[[Number], bool]] = {
    "": lambda _: True,
    f"filter={COMMON}": lambda n: COMMON in tags_of(n),
    f"filter={RARE}": lambda n: RARE in tags_of(n),
    f"filter={COMMON}&filter=gguf": lambda n: {COMMON, "gguf"} <= set(tags_of(n)),
    f"filter={COMMON},GGUF&filter=": lambda n: {COMMON, "gguf"} <= set(tags_of(n)),
    "filter=absent": lambda _: False,
    "author=org-08": lambda n: name_of(n).startswith("org-08/"),
    "author=ORG-08": lambda n: name_of(n).startswith("org-08/"),
    "author=org": lambda _: False,
    "search=000777": lambda n: "000777" in name_of(n),
    "search=08/Model-0000": lambda n: "08/model-0000" in name_of(n),
    "search=77": lambda n: "77" in name_of(n),
    "search=g-": lambda _: True,
    "search=08/": lambda n: name_of(n).startswith("org-08/"),
    "search=99": lambda n: "99" in name_of(n),
    "search=zz": lambda _: False,
    "search=9~": lambda _: False,
    "search=%C3%A4": lambda _: False,
    "search=org-1&search=00013": lambda n: "org-1" in name_of(n) and "00013" in name_of(n),
    "search=model-000777x": lambda _: False,
    "search=%25": lambda _: False,
    "search=model": lambda _: True,
    "search=-1": lambda n: "-1" in name_of(n),
    "search=org-1&filter=gguf": lambda n: "org-1" in name_of(n) and "gguf" in tags_of(n),
    "search=0009&search=0099&search=l-00099": lambda n: n // 10 == 99,
    "search=rg-1/model-0003": lambda _: False,
    "search=3/model-0003&author=org-13": lambda n: n % 20 == 13 and 300 <= n < 400,
    f"search={'model-000' * 40}": lambda _: False,
    "gated=True": lambda n: row_of(n)["gated"] != "",
    "gated=false": lambda n: row_of(n)["gated"] == "",
    "pipeline_tag=fill-mask": lambda n: n % 4 == 0,
    "num_parameters=min:0.5B": lambda n: n >= 500,
    "num_parameters=max:10M": lambda n: n <= 10,
    "num_parameters=min:0.5B,max:600M": lambda n: 500 <= n <= 600,
    "apps=vllm": lambda n: "safetensors" in tags_of(n),
    "apps=llama.cpp&author=org-03": lambda n: "gguf" in tags_of(n) and n % 20 == 3,
    f"library=gguf&language=xx&filter={RARE}": lambda _: False,
    "tags=gguf&search=org-03": lambda n: "gguf" in tags_of(n) and n % 20 == 3,
}
SORTS = {
    "": None,
    "sort=lastModified": "updated_at",
    "sort=createdAt": "created_at",
    "sort=downloads": "downloads",
    "sort=likes": "likes",
    "sort=trendingScore": "trending_score",
}


def expected(query: str, sort: str, name: str) -> list[str]:
    found = [n for n in range(COUNT) if FILTERS[query](n) and sees(name, n)]
    if SORTS[sort] is None:
        return sorted(map(name_of, found))
    ordered = sorted(found, key=lambda n: (row_of(n)[SORTS[sort]], name_of(n)), reverse=True)
    return [name_of(n) for n in ordered]


@pytest.mark.parametrize("few", [selection.FEW, 5])
@pytest.mark.parametrize("query", FILTERS)
def test_filters_find_what_a_plain_search_finds(
    hub: Crowded, query: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: sorted at once, or read in the order of the listing."""
    monkeypatch.setattr(selection, "FEW", few)
    for name in ("all", "half", "one", "none", "bound"):
        assert listed(hub, query, name) == expected(query, "", name), name


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("query", ["", f"filter={COMMON}", f"filter={RARE}", "author=org-08"])
def test_pages_go_on_where_the_last_one_ended(
    hub: Crowded, query: str, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for few in (selection.FEW, 5):
        monkeypatch.setattr(selection, "FEW", few)
        for name, limit in (("all", 270), ("half", 190), ("one", 7), ("bound", 20)):
            found = listed(hub, f"{query}&{sort}", name, limit)
            assert found == expected(query, sort, name), (name, limit, few)


def test_the_other_direction(hub: Crowded) -> None:
    for name in ("all", "half", "one"):
        found = listed(hub, "sort=downloads&direction=1", name, 100)
        assert found == expected("", "sort=downloads", name)[::-1]


def test_one_decision_for_each_class_and_row_shown(hub: Crowded) -> None:
    assert len(listed(hub, "", "one", 50)) == COUNT // 20
    pages = -(-COUNT // 20 // 50)
    assert hub.crowd.asked <= pages * (many_parts.NAMESPACES + 51)


def test_repositories_without_a_class_are_decided_on_one_by_one(hub: Crowded) -> None:
    table = schema.repositories
    engine = hub.hub.metadata.engine

    def classes(value: str | sa.ColumnElement[str]) -> None:
        with engine.begin() as connection:
            connection.execute(
                table.update().where(table.c.namespace == "org-18").values(access_class=value)
            )

    classes("")
    hub.crowd.hidden = lambda name, each: name == "one" and not each.id.name.endswith("8")
    try:
        found = listed(hub, "author=org-18", "one", 5)
        assert found == [each for each in expected("", "", "one") if each.endswith("8")]
    finally:
        classes("even")


def test_a_class_out_of_date_hides_and_never_shows(hub: Crowded) -> None:
    """The sample of a class may be seen, and another row of it not."""
    hub.crowd.hidden = lambda name, each: name == "one" and each.id.name >= "model-0005"
    assert listed(hub, "", "one") == sorted(map(name_of, range(500)))


@pytest.mark.parametrize(
    "query",
    [
        *("sort=size", "limit=0", "limit=x", "limit=-1", "expand=foo", "expand=sha&expand=foo"),
        *("num_parameters=big", "num_parameters=min:1X", "num_parameters=over:1B", "search=%00"),
        *("filter=a%00", "author=%00", "&".join(f"filter=tag-{n}" for n in range(60))),
    ],
)
def test_odd_questions_are_refused(hub: Crowded, query: str) -> None:
    answer = hub.ask("all", "GET", f"/api/models?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.headers["x-error-code"] == "BadRequest"


@pytest.mark.parametrize("sort", ["", "downloads", "createdAt"])
def test_forged_cursors_are_refused_or_harmless(hub: Crowded, sort: str) -> None:
    for text in (
        *("", "[]", "null", '"x"', "[1,2,3]", '[null,"a","b","c"]', '["x","org","name"]'),
        *('[1e400,"a","b"]', '[true,"a","b"]', '[-1,"a","b"]', f'[{1 << 64},"a","b"]'),
        *('["0001-01-01T00:00:00+14:00","a","b"]', '["9999-12-31T23:59:59-14:00","a","b"]'),
        *('["2026-01-01","a","b"]', '["2026-01-01T00:00:00+00:00","a","b"]'),
        *('["9999-99-99","a","b"]', '[5,"a/b","c"]', '[5,"a","\\u0000"]', "[" * 5000),
    ):
        path = f"/api/models?sort={sort}&cursor={encode_cursor(text)}"
        status = hub.ask("all", "GET", path).status_code
        assert status in {200, 400}, text
    assert hub.ask("all", "GET", "/api/models?cursor=%%%").status_code == 400


def test_what_nothing_here_can_be_is_said(hub: Crowded) -> None:
    for query in ("inference=warm", "inference_provider=all", "apps=draw-things"):
        answer = hub.ask("all", "GET", f"/api/models?{query}")
        assert answer.json() == []
        assert answer.headers["x-hf-warning"].startswith("listing; ")


def test_work_does_not_grow_with_the_number(hub: Crowded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing touches as many rows among four times as many repositories."""
    hub.crowd.bound = {"bound": ("org-19/*",)}
    monkeypatch.setattr(selection, "FEW", 50)  # what is more than a few here is so before, too
    before = {question: _work(hub, *question) for question in QUESTIONS}
    many_parts.fill(hub.hub.metadata.engine, COUNT, 4 * COUNT)
    try:
        for question, work in before.items():
            after = _work(hub, *question)
            assert after <= work * 1.6 + 50, (question, work, after)
    finally:
        with hub.hub.metadata.engine.begin() as connection:  # the rest goes with it
            connection.execute(schema.repositories.delete().where(schema.repositories.c.id > COUNT))


QUESTIONS = [
    *(("all", f"{sort}&limit=50") for sort in SORTS),
    *(("one", f"{sort}&limit=50") for sort in SORTS),
    *(("all", f"deep&{sort}&limit=900") for sort in SORTS),
    ("half", "sort=downloads&limit=50"),
    ("all", f"filter={COMMON}&sort=lastModified&limit=50"),
    ("all", "author=org-08&sort=likes&limit=50"),
    ("all", "search=000777"),
    ("all", "search=absent"),
    ("all", "search=zz"),
    # Their names gather: far from the first page of all, or after all others.
    ("all", "search=org-1&limit=50"),
    ("all", "search=org-1&filter=gguf&limit=50"),
    ("half", "search=g-18/mod&limit=20"),
    ("all", "author=org-13&filter=gguf&limit=10"),
    # None that they see has it; others' are not read.
    ("half", f"filter={COMMON}&limit=50"),
    ("none", "search=model&limit=50"),
    ("bound", "sort=downloads&limit=20"),
]


def _work(hub: Crowded, name: str, query: str) -> int:
    """Return a measure of what the database does for a listing that is asked for again."""
    path = f"/api/models?{query}"
    if query.startswith("deep&"):  # a page far from the first one
        path = hub.ask(name, "GET", path).links["next"]["url"].replace("limit=900", "limit=50")
    hub.ask(name, "GET", path)
    engine = hub.hub.metadata.engine
    measure = _sqlite_steps if engine.dialect.name == "sqlite" else _postgresql_rows
    return measure(engine, lambda: hub.ask(name, "GET", path))


def _sqlite_steps(engine: sa.Engine, ask: Callable[[], object]) -> int:
    """Count, in tens, the steps of SQLite's virtual machine."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def begin(connection: Any, *_: object) -> None:
        connection.set_progress_handler(step, 10)

    def end(connection: Any, *_: object) -> None:
        connection.set_progress_handler(None, 0)

    for moment, listener in (("checkout", begin), ("checkin", end)):
        sa.event.listen(engine, moment, listener)
    try:
        ask()
    finally:
        for moment, listener in (("checkout", begin), ("checkin", end)):
            sa.event.remove(engine, moment, listener)
    return steps


def _postgresql_rows(engine: sa.Engine, ask: Callable[[], object]) -> int:
    """Count the rows that all nodes of all plans of a request touch."""
    asked: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith(("SELECT", "WITH")):
            asked.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        ask()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
        plans = [
            connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
            ).scalar_one()
            for statement, parameters in asked
        ]
    return sum(_rows(plan[0]["Plan"]) for plan in plans)


def _rows(node: dict[str, Any]) -> int:
    removed = node.get("Rows Removed by Filter", 0)
    own = (node["Actual Rows"] + removed) * node["Actual Loops"]
    return int(own) + sum(map(_rows, node.get("Plans", [])))
