"""The request log as its readers see it: page by page, so that no writer waits and no memory fills."""

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
"""A page is read in one go. With bodies of some MiB it is as long as they are: the reader takes one row at a time."""

RowDict = dict[str, Any]
"""A row by its columns."""

_BODIES: Final = ("request_head", "response_head")
_HAS_METADATA: Final = (
    "EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = ? AND "
    "CASE type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST(value AS TEXT) END = ?)"
)


@dataclass(frozen=True, slots=True)
class LogFilter:
    """What a row must be. None is anything."""

    gateway: str | None = None
    provider: str | None = None
    model: str | None = None
    status: range | None = None
    success: bool | None = None
    since_ms: int | None = None
    """Milliseconds since 1970."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """By key; a value as JSON writes it, a string without its quotation marks."""

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
    """Reads one file. Raises LogUnusable for whatever goes wrong with it, from the start on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_to_read(path)
        self._connection.row_factory = sqlite3.Row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._connection.close()

    def newest(self, row_filter: LogFilter, limit: int) -> list[RowDict]:
        """At most so many, without bodies; the newest is the last."""
        return list(self._select("id < ?", ("~",), row_filter, "id DESC", limit))[::-1]

    def rows_between(self, after_seq: int, to_seq: int, row_filter: LogFilter) -> Iterator[RowDict]:
        """Without bodies, in the order in which they were written."""
        while page := list(self._select("seq > ? AND seq <= ?", (after_seq, to_seq), row_filter, "seq", PAGE_ROWS)):
            yield from page
            after_seq = page[-1]["seq"]

    def last_seq(self) -> int:
        """Of the row that was written last; 0 before there was one."""
        ((last,),) = self._execute("SELECT max(seq) FROM requests", ())
        return last or 0

    def rows(self, row_filter: LogFilter, limit: int | None) -> Iterator[RowDict]:
        """From the oldest on, with their bodies. What is written meanwhile comes too, if it began after the last."""
        left, at = limit, ""
        while page := list(self._select("id > ?", (at,), row_filter, "id", min(PAGE_ROWS, left or PAGE_ROWS))):
            for row in page:
                yield row | self._bodies(row["id"])
            at = page[-1]["id"]
            if left is not None and not (left := left - len(page)):
                return

    def row(self, row_id: str) -> RowDict | None:
        """With its bodies."""
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
        """All that the file has, an older or a newer one's; but for the bodies, which are long."""
        names = (row["name"] for row in self._execute("PRAGMA table_xinfo(requests)", ()))
        return [name for name in names if name not in _BODIES]

    def _execute(self, query: str, values: tuple[object, ...]) -> Iterator[sqlite3.Row]:
        try:
            yield from self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise LogUnusable(f"{self._path}: {error}") from None


def first_id(since_ms: int) -> str:
    """Sorts before the ids of all that began at that time or later, and after all others."""
    return uuid7(since_ms, 0)


def rate(path: Path, row_id: str, changes: Mapping[str, object]) -> bool:
    """Write these columns of that row; whether it is there. Raises LogUnusable."""
    connection = open_to_update(path)
    columns = ", ".join(f"{column} = ?" for column in changes)
    try:
        done = connection.execute(f"UPDATE requests SET {columns} WHERE id = ?", (*changes.values(), row_id))  # noqa: S608 - own names
        return done.rowcount == 1
    except sqlite3.Error as error:
        raise LogUnusable(f"{path}: {error}") from None
    finally:
        connection.close()
