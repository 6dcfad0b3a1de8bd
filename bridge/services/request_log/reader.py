"""Read the request log page by page, so that no writer waits for a reader and memory stays bounded."""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bridge.protocol.ids import uuid7
from bridge.services.request_log.damage import LogUnusable
from bridge.services.request_log.database import open_to_read, open_to_update

PAGE_ROWS: Final = 200
"""Rows read by one query, without bodies. Bodies may be large and are read row by row."""

RowDict = dict[str, Any]
"""A row as a mapping of column names to values."""

_BODIES: Final = ("request_head", "response_head")
_HAS_METADATA: Final = (
    "EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = ? AND "
    "CASE type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST(value AS TEXT) END = ?)"
)


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Conditions on a row; None accepts any value."""

    gateway: str | None = None
    provider: str | None = None
    model: str | None = None
    status: range | None = None
    success: bool | None = None
    since_ms: int | None = None
    """Milliseconds since 1970."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Required values by key, as JSON writes them; a string without its quotation marks."""

    def conditions(self) -> Iterator[tuple[str, tuple[object, ...]]]:
        for column in ("gateway", "provider", "model", "success"):
            if (value := getattr(self, column)) is not None:
                yield f"{column} = ?", (value,)
        if self.status is not None:
            yield "status_code BETWEEN ? AND ?", (self.status[0], self.status[-1])
        if self.since_ms is not None:
            yield "id >= ?", (first_id(self.since_ms),)
        for pair in self.metadata.items():
            yield _HAS_METADATA, pair


class RequestReader:
    """Reads one file. Every method raises LogUnusable on any fault of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_to_read(path)
        self._connection.row_factory = sqlite3.Row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._connection.close()

    def newest(self, row_filter: LogFilter, limit: int) -> list[RowDict]:
        """Return at most `limit` of the newest rows, without bodies; the newest is the last."""
        return list(self._select("id < ?", ("~",), row_filter, "id DESC", limit))[::-1]

    def rows_between(self, after_seq: int, to_seq: int, row_filter: LogFilter) -> Iterator[RowDict]:
        """Yield the rows after `after_seq` up to `to_seq`, without bodies, in the order of writing."""
        while page := list(self._select("seq > ? AND seq <= ?", (after_seq, to_seq), row_filter, "seq", PAGE_ROWS)):
            yield from page
            after_seq = page[-1]["seq"]

    def last_seq(self) -> int:
        """Return the `seq` of the row that was written last; 0 if there is none."""
        ((last,),) = self._execute("SELECT max(seq) FROM requests", ())
        return last or 0

    def rows(self, row_filter: LogFilter, limit: int | None) -> Iterator[RowDict]:
        """Yield rows with bodies from the oldest on. Rows written meanwhile are included if they sort after these."""
        remaining, last_id = limit, ""
        while page := list(
            self._select("id > ?", (last_id,), row_filter, "id", min(PAGE_ROWS, remaining or PAGE_ROWS))
        ):
            for row in page:
                yield row | self._bodies(row["id"])
            last_id = page[-1]["id"]
            if remaining is not None and not (remaining := remaining - len(page)):
                return

    def row(self, row_id: str) -> RowDict | None:
        """Return the row with its bodies, or None."""
        found = next(self._select("id = ?", (row_id,), LogFilter(), "id", 1), None)
        return found and found | self._bodies(row_id)

    def _bodies(self, row_id: str) -> RowDict:
        rows = self._execute(f"SELECT {', '.join(_BODIES)} FROM requests WHERE id = ?", (row_id,))  # noqa: S608 - own
        return next((dict(row) for row in rows), dict.fromkeys(_BODIES))

    def _select(
        self, where: str, at: tuple[object, ...], row_filter: LogFilter, order: str, limit: int
    ) -> Iterator[RowDict]:
        conditions = [(where, at), *row_filter.conditions()]
        condition = " AND ".join(text for text, _ in conditions)
        values = (value for _, values in conditions for value in values)
        columns = ", ".join(self._columns())
        query = f"SELECT {columns} FROM requests WHERE {condition} ORDER BY {order} LIMIT ?"  # noqa: S608 - constants
        return map(dict, self._execute(query, (*values, limit)))

    def _columns(self) -> list[str]:
        """Return the columns of the file, whose schema may be older or newer, without the large bodies."""
        names = (row["name"] for row in self._execute("PRAGMA table_xinfo(requests)", ()))
        return [name for name in names if name not in _BODIES]

    def _execute(self, query: str, values: tuple[object, ...]) -> Iterator[sqlite3.Row]:
        try:
            yield from self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise LogUnusable(f"{self._path}: {error}") from None


def first_id(since_ms: int) -> str:
    """Return an id that sorts before those of events that began at that time or later, and after all others."""
    return uuid7(since_ms, 0)


def rate(path: Path, row_id: str, changes: Mapping[str, object]) -> bool:
    """Update columns of a row. Return True if the row exists. Raises LogUnusable."""
    connection = open_to_update(path)
    columns = ", ".join(f"{column} = ?" for column in changes)
    try:
        cursor = connection.execute(f"UPDATE requests SET {columns} WHERE id = ?", (*changes.values(), row_id))  # noqa: S608 - own names
        return cursor.rowcount == 1
    except sqlite3.Error as error:
        raise LogUnusable(f"{path}: {error}") from None
    finally:
        connection.close()
