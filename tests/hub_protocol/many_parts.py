"""Thousands of repositories, put into the tables as publishing would have put them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from holdfast_hub_protocol import listings, schema

if TYPE_CHECKING:
    import sqlalchemy as sa

BASE = datetime(2026, 1, 1, tzinfo=UTC)
NAMESPACES = 20
COMMON, RARE = "license:mit", "language:xx"


def name_of(number: int) -> str:
    return f"org-{number % NAMESPACES:02d}/model-{number:06d}"


def tags_of(number: int) -> list[str]:
    found = [COMMON] if number % 2 else ["license:apache-2.0"]
    found += ["safetensors"] if number % 3 else ["gguf"]
    found += [RARE] if number % 500 == 7 else []
    return found


def row_of(number: int) -> dict[str, Any]:
    """Return a repository's row; those of odd number are of class `odd`, others `even`."""
    namespace, name = name_of(number).split("/")
    return {
        "id": number + 1,
        "namespace": namespace,
        "name": name,
        "folded": f"{namespace}/{name}",
        "created_at": BASE + timedelta(minutes=number),
        "updated_at": BASE + timedelta(minutes=number * 7919 % 1_000_003),
        "downloads": number * 31 % 1000 if number % 3 == 0 else 0,
        "likes": number % 7 if number % 5 == 0 else 0,
        "trending_score": number % 11,
        "gated": "auto" if number % 1000 == 3 else "",
        "access_class": "odd" if number % 2 else "even",
    }


def fill(engine: sa.Engine, first: int, end: int, kind: str = "model") -> None:
    """Add repositories `first` to `end`."""
    repositories: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    terms: list[dict[str, Any]] = []
    for number in range(first, end):
        tags, key = tags_of(number), number + 1
        repositories.append({"kind": kind, **row_of(number)})
        task = "text-generation" if number % 4 else "fill-mask"
        rows.append(
            {
                "repository_id": key,
                "tags": [*tags, task],
                "pipeline_tag": task,
                "parameters": number * 1_000_000,
            }
        )
        wanted = {listings.tag_term(tag) for tag in (*tags, task)} | {listings.task_term(task)}
        wanted |= listings.name_terms(name_of(number))
        place = listings.place_of(*name_of(number).split("/"))
        terms += [
            {"kind": kind, "term": term, "place": place, "repository_id": key}
            for term in sorted(wanted)
        ]
    with engine.begin() as connection:
        connection.execute(schema.repositories.insert(), repositories)
        connection.execute(listings.listings.insert(), rows)
        connection.execute(listings.terms.insert(), terms)
