"""Many repositories without uploading them: a few are seeded, and their rows copied.

The copies differ in name and dates and share their files, cards and readers with what they were
copied from; what listings are answered from, and each commit's manifest, are made by the registry's
own code.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.holdings import holdings
from holdfast_hub_protocol.listings import index_missing
from holdfast_model_registry.commit_manifest import record_missing
from holdfast_model_registry.readers import access
from holdfast_model_registry.storage import Locations, open_storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Row = dict[str, Any]
_KINDS = ("llama", "mistral", "qwen", "gemma", "bert", "whisper", "phi", "falcon")
_LICENCES = ("mit", "apache-2.0", "bsd-3-clause")
_TASKS = ("text-generation", "fill-mask", "automatic-speech-recognition")
_BATCH = 2_000
# What belongs to a repository, those first that others point at.
_TABLES = (schema.snapshots, schema.entries, schema.commits, schema.refs, access, holdings)


def templates(folder: Path) -> dict[str, Path]:
    """Write small models with cards that differ; three quarters are of the team `research`."""
    models = {}
    for number, (kind, licence) in enumerate(itertools.product(_KINDS, _LICENCES)):
        path = folder / f"{kind}-{number}"
        path.mkdir(parents=True)
        card = {
            "license": licence,
            "pipeline_tag": _TASKS[number % len(_TASKS)],
            "tags": [kind, f"benchmark-{number % 2}"],
            "language": ["en", "de", "fr"][: 1 + number % 3],
        }
        (path / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n# {kind}\n")
        (path / "config.json").write_text(json.dumps({"model_type": kind}))
        models[f"{'elsewhere' if number % 4 == 3 else 'research'}/{path.name}"] = path
    return models


def populate(data: Path, count: int) -> None:
    """Copy the repositories that are there until there are so many."""
    storage = open_storage(Locations(data))
    engine = storage.metadata.engine
    with engine.begin() as connection:
        patterns = _patterns(connection)
        following: dict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1_000_000))
        for first in range(len(patterns), count, _BATCH):
            rows: dict[sa.Table, list[Row]] = defaultdict(list)
            for number in range(first, min(first + _BATCH, count)):
                _copy(patterns[number % len(patterns)], number, following, rows)
            for table in (schema.repositories, *_TABLES):
                if rows[table]:
                    connection.execute(table.insert(), rows[table])
    index_missing(engine)
    record_missing(engine, storage.key)
    with engine.begin() as connection:
        connection.execute(sa.text("ANALYZE"))
    storage.close()


def _patterns(connection: sa.Connection) -> list[tuple[Row, dict[sa.Table, list[Row]]]]:
    patterns = []
    for row in connection.execute(sa.select(schema.repositories)).mappings().all():
        of_it: dict[sa.Table, list[Row]] = {}
        for table in _TABLES:
            found = sa.select(table)
            if "repository_id" in table.c:
                found = found.where(table.c.repository_id == row["id"])
            else:  # entries belong to a snapshot
                mine = [snapshot["id"] for snapshot in of_it[schema.snapshots]]
                found = found.where(table.c.snapshot_id.in_(mine))
            of_it[table] = [dict(each) for each in connection.execute(found).mappings()]
        patterns.append((dict(row), of_it))
    return patterns


def _copy(
    pattern: tuple[Row, dict[sa.Table, list[Row]]],
    number: int,
    following: dict[str, Iterator[int]],
    rows: dict[sa.Table, list[Row]],
) -> None:
    row, of_it = pattern
    # Names gather by kind, as people name models; licences and dates are spread over them.
    name = f"{row['name'].partition('-')[0]}-{number}"
    date = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number * 7919 % 400_000)
    repository = next(following["repositories"])
    new: dict[tuple[str, int], int] = {("repository_id", row["id"]): repository}
    changed = {
        "id": repository,
        "name": name,
        "folded": f"{row['namespace']}/{name}".lower(),
        "created_at": date,
        "updated_at": date,
        "downloads": number * 104_729 % 1_000_003,
        "likes": number % 997,
    }
    rows[schema.repositories].append(row | changed)
    for table, found in of_it.items():
        for each in found:
            made = dict(each)
            if "id" in made:
                made["id"] = next(following[table.name])
                new[f"{table.name.removesuffix('s')}_id", each["id"]] = made["id"]
            for column in ("repository_id", "snapshot_id", "commit_id"):
                if column in made:
                    made[column] = new[column, made[column]]
            rows[table].append(made)
