"""Listings: `/api/models` with search, author, filters, sort, limit, properties and pages."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol import errors, expansion, schema, visibility
from holdfast_hub_protocol.endpoints import account_endpoint
from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_hub_protocol.information import describe
from holdfast_hub_protocol.listings import listings, tag_term, task_term
from holdfast_hub_protocol.popularity import decode_moment
from holdfast_hub_protocol.selection import Mark, Question, select
from holdfast_hub_protocol.tree import decode_cursor, encode_cursor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.datastructures import QueryParams
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, Visit
    from holdfast_hub_protocol.records import Repository

PAGE: Final = 100
MAX_PAGE: Final = 1000
MAX_PAGE_WITH_FILES: Final = 100
MAX_FILTERS: Final = 50
_SORTS: Final = {
    "lastModified": "updated_at",
    "last_modified": "updated_at",
    "createdAt": "created_at",
    "created_at": "created_at",
    "downloads": "downloads",
    "likes": "likes",
    "trendingScore": "trending_score",
    "trending_score": "trending_score",
    "likes7d": "trending_score",
}
# What older clients ask for apart from `filter`; tags of models are bare.
_TAG_KEYS: Final = {
    "model": {"library": "", "language": "", "tags": "", "trained_dataset": "dataset:"},
    "dataset": {
        "tags": "",
        **{
            key: f"{key}:"
            for key in (
                *("language", "language_creators", "multilinguality", "size_categories"),
                *("task_categories", "task_ids"),
            )
        },
    },
}
# What an application can load, as far as a tag tells.
_APPS: Final = {
    **dict.fromkeys(("llama.cpp", "ollama", "lmstudio", "lm-studio", "jan", "koboldcpp"), "gguf"),
    **dict.fromkeys(("vllm", "sglang", "tgi", "text-generation-inference"), "safetensors"),
}
_OF_CARD: Final = ("model-index", "widgetData", "mask_token")
_COUNT: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)([KMBT]?)", re.IGNORECASE)
_TIMES: Final = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the route of the listing."""
    listing = functools.partial(catalogue, kind=kind)
    return [Route(f"/api/{kind}s", account_endpoint(hub, "list", listing), methods=["GET"])]


def catalogue(visit: Visit, kind: str) -> Response:
    """Answer with the repositories that the caller may see."""
    query = visit.request.query_params
    wanted = expansion.wanted(query, kind)
    files = visit.flag("full") or "siblings" in wanted
    limit = visit.count("limit", PAGE, MAX_PAGE_WITH_FILES if files else MAX_PAGE)
    terms = _terms(query, kind)
    if terms is None:
        headers = {"X-HF-Warning": "listing; no inference provider or such app serves these models"}
        return JSONResponse([], headers=headers)
    sort = query.get("sort")
    if sort and sort not in _SORTS:
        raise errors.bad_request(f"cannot sort by {sort!r}")
    with visit.hub.metadata.engine.connect() as connection:
        reach = visibility.reach(visit.hub, connection, visit.caller, kind)
        if author := _text(query.get("author", "")):
            reach = reach.within([author])
        bounds = visit.hub.authorizer.bounds(visit.caller)
        if bounds is not None:
            reach = reach.within(bound.partition("/")[0] for bound in bounds)
        question = Question(
            kind=kind,
            reach=reach,
            limit=limit + 1,
            bounds=bounds,
            terms=terms,
            texts=[text for value in query.getlist("search") if (text := _text(value).strip())],
            gated=_flag(query, "gated"),
            parameters=_parameters(query.get("num_parameters")),
            sort=_SORTS[sort] if sort else None,
            # What is sorted by a value begins with the highest unless asked otherwise.
            descending=bool(sort) and query.get("direction", "-1") == "-1",
        )
        if query.get("cursor"):
            question = replace(question, after=_decode_mark(query["cursor"], question))
        found = _seen(visit, connection, question)
        items = _items(visit, connection, [each for each, _ in found[:limit]], wanted)
    headers = {}
    if len(found) > limit:
        headers = visit.next_link(_encode_mark(found[limit - 1][1]))
    visit.details["count"] = len(items)
    return JSONResponse(items, headers=headers)


def _seen(
    visit: Visit, connection: sa.Connection, question: Question
) -> list[tuple[Repository, Mark]]:
    """Return the page with one more, each decided on: a class out of date hides, it never shows."""
    found: list[tuple[Repository, Mark]] = []
    while len(found) < question.limit:
        page = select(connection, question)
        repositories = {
            each.key: each
            for each in visit.hub.metadata.repositories_by_key([key for key, _ in page])
        }
        asked = [repositories[key] for key, _ in page if key in repositories]
        readable = {each.key for each in visit.hub.authorizer.readable(visit.caller, asked)}
        found += [(repositories[key], mark) for key, mark in page if key in readable]
        if len(page) < question.limit:
            break
        question = replace(question, after=page[-1][1])
    return found[: question.limit]


def _items(
    visit: Visit,
    connection: sa.Connection,
    repositories: Sequence[Repository],
    wanted: Sequence[str],
) -> list[dict[str, Any]]:
    full = visit.flag("full")
    card = full or visit.flag("cardData") or "cardData" in wanted
    config = full or visit.flag("config") or "config" in wanted
    facts = card or config or bool({"safetensors", *_OF_CARD}.intersection(wanted))
    table = listings
    query = sa.select(*table.c)
    if facts:
        query = query.add_columns(schema.snapshots.c.facts).outerjoin(
            schema.snapshots, schema.snapshots.c.id == table.c.snapshot_id
        )
    keys = [repository.key for repository in repositories]
    rows = {
        row.repository_id: row
        for row in connection.execute(query.where(table.c.repository_id.in_(keys)))
    }
    items = []
    for repository in repositories:
        document = describe(repository, None) | expansion.of_counts(repository)
        if row := rows.get(repository.key):
            document |= {"sha": row.oid, "tags": row.tags}
            document |= {
                key: value
                for key in ("pipeline_tag", "library_name")
                if (value := getattr(row, key)) is not None
            }
            if facts and row.facts:
                document |= _of_facts(row.facts, card=card, config=config, wanted=wanted)
        items.append(document)
    if full or {"siblings", "usedStorage", "mainSize"}.intersection(wanted):
        _add_files(connection, items, [rows.get(key) for key in keys])
    if wanted:
        return [{key: item[key] for key in ("_id", "id", *wanted) if key in item} for item in items]
    left_out = {"spaces", "usedStorage", "mainSize", "downloadsAllTime"}
    return [{k: value for k, value in item.items() if k not in left_out} for item in items]


def _of_facts(
    facts: Mapping[str, Any], *, card: bool, config: bool, wanted: Sequence[str]
) -> dict[str, Any]:
    keys = {
        *(["cardData"] if card else []),
        *(["config"] if config else []),
        *(["safetensors"] if "safetensors" in wanted else []),
    }
    found = {key: facts[key] for key in sorted(keys) if key in facts}
    return found | (expansion.of_card(facts) if wanted else {})


def _add_files(
    connection: sa.Connection, items: Sequence[dict[str, Any]], rows: Sequence[Any]
) -> None:
    table = schema.entries
    snapshots = {row.snapshot_id for row in rows if row and row.snapshot_id is not None}
    files: dict[int, list[Any]] = {}
    query = sa.select(table.c.snapshot_id, table.c.path, table.c.sha256, table.c.size)
    for entry in connection.execute(
        query.where(table.c.snapshot_id.in_(snapshots), table.c.sha256.is_not(None)).order_by(
            table.c.snapshot_id, table.c.path
        )
    ):
        files.setdefault(entry.snapshot_id, []).append(entry)
    for item, row in zip(items, rows, strict=True):
        mine = files.get(row.snapshot_id, []) if row else []
        item["siblings"] = [{"rfilename": entry.path} for entry in mine]
        item["usedStorage"] = sum({entry.sha256: entry.size for entry in mine}.values())
        item["mainSize"] = sum(entry.size for entry in mine)


def _terms(query: QueryParams, kind: str) -> list[str] | None:
    """Return what all must be tagged with; None if nothing here can be what is asked for."""
    if query.get("inference") or query.get("inference_provider"):
        return None
    tags = [tag for value in query.getlist("filter") for tag in value.split(",")]
    for key, prefix in _TAG_KEYS.get(kind, {}).items():
        for value in query.getlist(key):
            tags += [tag if tag.startswith(prefix) else prefix + tag for tag in value.split(",")]
    apps = [app for value in query.getlist("apps") for app in value.lower().split(",") if app]
    if any(app not in _APPS for app in apps):
        return None
    tags += [_APPS[app] for app in apps]
    found = [tag_term(_text(tag).strip()) for tag in tags if tag.strip()]
    found += [task_term(_text(task)) for task in query.getlist("pipeline_tag") if task]
    if len(found) > MAX_FILTERS:
        raise errors.bad_request(f"more than {MAX_FILTERS} filters")
    return list(dict.fromkeys(found))


def _flag(query: QueryParams, name: str) -> bool | None:
    text = query.get(name, "").lower()
    return {"true": True, "1": True, "false": False, "0": False}.get(text)


def _parameters(text: str | None) -> tuple[int | None, int | None] | None:
    """Read `min:6B,max:128B`, either part of it, or one count."""
    if not text:
        return None
    found: dict[str, int] = {}
    for part in text.split(","):
        bound, colon, number = part.strip().rpartition(":")
        match = _COUNT.fullmatch(number)
        if match is None or (colon and bound not in {"min", "max"}):
            raise errors.bad_request('"num_parameters" must be like min:6B,max:128B')
        count = int(float(match[1]) * _TIMES[match[2].upper()])
        found |= {bound: count} if colon else {"min": count, "max": count}
    return found.get("min"), found.get("max")


def _text(value: str) -> str:
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise errors.bad_request("not text in the query")
    return value


def _encode_mark(mark: Mark) -> str:
    value = mark.value.isoformat() if isinstance(mark.value, datetime) else mark.value
    return encode_cursor(json.dumps([value, mark.namespace, mark.name]))


def _decode_mark(cursor: str, question: Question) -> Mark:
    try:
        value, namespace, name = json.loads(decode_cursor(cursor))
        RepositoryId(question.kind, namespace, name)
        return Mark(_value(value, question.sort), namespace, name)
    except (ValueError, TypeError, AttributeError, BadIdentifierError, RecursionError):
        raise errors.bad_request("malformed cursor") from None


def _value(value: object, sort: str | None) -> datetime | int | None:
    if sort is None:
        return None
    if sort.endswith("_at"):
        return decode_moment(str(value))
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("not a count")
    return value
