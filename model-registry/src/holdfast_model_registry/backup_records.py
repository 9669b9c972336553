"""The rows of every table as lines of JSON: written, verified to their last line, and read back."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.holdings import holdings
from holdfast_hub_protocol.lfs.parts import parts
from holdfast_hub_protocol.staging import staged
from holdfast_hub_protocol.upgrades import VERSION
from holdfast_model_registry.check import verified
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.gc import unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT: Final = 1
_ROWS: Final = 1000  # inserted at once
# What is under way, or true of this disk only.
_LEFT_OUT: Final = frozenset(
    table.name for table in (schema.schema_version, staged, parts, verified, unreachable)
)


@dataclass
class Summary:
    """What a file of records says of itself, once all of it was read."""

    schema: int
    rows: int = 0
    needed: dict[str, int] = field(default_factory=dict)  # blobs: SHA-256 -> size


def write(connection: sa.Connection, path: Path) -> int:
    """Write the rows of all tables, durably; return how many there were."""
    _require_known(connection)
    digest = hashlib.sha256()
    count = 0
    with path.open("xb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6) as file:

        def line(document: object) -> None:
            text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            digest.update(text)
            file.write(text)

        made = datetime.now(UTC).isoformat(timespec="seconds")
        line({"format": FORMAT, "schema": VERSION, "made": made})
        for table in _tables():
            line({"table": table.name, "columns": [column.name for column in table.columns]})
            query = sa.select(table).order_by(*table.primary_key.columns)
            with connection.execute(query, execution_options={"yield_per": _ROWS}) as rows:
                for row in rows:
                    line([_encoded(value) for value in row])
                    count += 1
        last = {"rows": count, "sha256": digest.hexdigest()}
        file.write(json.dumps(last).encode() + b"\n")
        file.close()
        raw.flush()
        os.fsync(raw.fileno())
    return count


def needed_blobs(connection: sa.Connection) -> dict[str, int]:
    """Return the blobs that rows speak of, with their sizes."""
    entries = schema.entries
    query = sa.union(
        sa.select(holdings.c.sha256, holdings.c.size),
        sa.select(entries.c.sha256, entries.c.size).where(entries.c.sha256.is_not(None)),
    )
    return {row.sha256: row.size for row in connection.execute(query)}


def verify(path: Path) -> Summary:
    """Read a file to its end; RegistryError unless it is whole and of a known format."""
    summary = Summary(schema=0)
    for table, row in _lines(path, summary):
        if table is holdings or table is schema.entries:
            values = dict(zip(table.columns.keys(), row, strict=True))
            if values["sha256"] is not None:
                summary.needed[values["sha256"]] = values["size"]
    return summary


def read(connection: sa.Connection, path: Path) -> int:
    """Insert the rows of a file into empty tables; return how many there were."""
    summary = Summary(schema=0)
    lines = _lines(path, summary)
    # What opening a database writes into it is in the backup too.
    for table in reversed(_tables()):
        connection.execute(table.delete())
    waiting = next(lines, None)
    while waiting is not None:
        table = waiting[0]
        columns = list(table.columns)
        rows = [_decoded(columns, waiting[1])]
        waiting = None
        for following in islice(lines, _ROWS):
            if following[0] is not table:
                waiting = following
                break
            rows.append(_decoded(columns, following[1]))
        connection.execute(table.insert(), rows)
        if waiting is None:
            waiting = next(lines, None)
    _go_on_counting(connection)
    return summary.rows


def has_rows(engine: sa.Engine) -> bool:
    """Tell whether a database has a repository."""
    with engine.connect() as connection:
        return bool(
            connection.execute(sa.select(sa.exists().select_from(schema.repositories))).scalar()
        )


def _tables() -> list[sa.Table]:
    return [table for table in schema.metadata.sorted_tables if table.name not in _LEFT_OUT]


def _require_known(connection: sa.Connection) -> None:
    known = {table.name for table in schema.metadata.sorted_tables}
    unknown = sorted(set(sa.inspect(connection).get_table_names()) - known)
    if unknown:
        raise RegistryError(
            "the database has tables that this release does not know",
            cause=", ".join(unknown),
            next_command="back up with the release that serves it",
        )


def _lines(path: Path, summary: Summary) -> Iterator[tuple[sa.Table, list[Any]]]:
    """Yield every row with its table; RegistryError where the file breaks off or is changed."""
    tables = {table.name: table for table in _tables()}
    digest = hashlib.sha256()
    table: sa.Table | None = None
    whole = False
    try:
        with gzip.open(path, "rb") as file:
            for text in file:
                document = json.loads(text)
                if isinstance(document, dict) and "sha256" in document:
                    right = {"rows": summary.rows, "sha256": digest.hexdigest()}
                    whole = document == right
                    break
                digest.update(text)
                if isinstance(document, list):
                    if table is None:
                        raise ValueError("a row before its table")  # noqa: TRY301 - told below
                    summary.rows += 1
                    yield table, document
                elif "table" in document:
                    table = _table(tables, document)
                else:
                    summary.schema = _schema(document)
    except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    if not whole:
        raise _damaged(path, "it breaks off, or its last line is not of its rows")


def _table(tables: dict[str, sa.Table], document: dict[str, Any]) -> sa.Table:
    table = tables[document["table"]]
    if document["columns"] != table.columns.keys():
        raise ValueError(f"table {table.name} has other columns here")
    return table


def _schema(document: dict[str, Any]) -> int:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']}, this release knows {FORMAT}")
    return int(document["schema"])


def _damaged(path: Path, cause: str) -> RegistryError:
    return RegistryError(
        "the records of the backup cannot be used",
        where=str(path),
        cause=cause,
        next_command=f"ls {path.parent}, and restore another",
    )


def _encoded(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def _decoded(columns: list[sa.Column[Any]], row: list[Any]) -> dict[str, Any]:
    return {column.name: _value(column, value) for column, value in zip(columns, row, strict=True)}


def _value(column: sa.Column[Any], value: Any) -> Any:  # noqa: ANN401 - as the column has it
    if value is None:
        return None
    if isinstance(column.type, sa.DateTime):
        moment = datetime.fromisoformat(value)
        # SQLite keeps no offset; everything is written in UTC.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    if isinstance(column.type, sa.LargeBinary):
        return base64.b64decode(value, validate=True)
    return value


def _go_on_counting(connection: sa.Connection) -> None:
    """Let PostgreSQL number new rows after those that were put back."""
    if connection.dialect.name != "postgresql":
        return
    for table in _tables():
        key = table.autoincrement_column
        if key is None:
            continue
        name = sa.func.pg_get_serial_sequence(table.name, key.name)
        highest = sa.select(sa.func.coalesce(sa.func.max(key), 0) + 1).scalar_subquery()
        connection.execute(
            sa.select(sa.func.setval(name, highest, sa.false())).where(name.is_not(None))
        )
