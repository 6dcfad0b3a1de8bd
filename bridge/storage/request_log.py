"""The request log as its writer sees it: rows go in, in batches, and old ones go out, a few at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from bridge.storage.request_file import open_to_write
from bridge.storage.request_schema import Row, insert

ROWS_AT_ONCE: Final = 999 // len(Row._fields)
"""In one statement: older SQLite takes 999 values. The interpreter's lock is free while it runs, and has to be won back
from the loop after it, once for all these rows.
"""
DELETED_AT_ONCE: Final = 500
"""Rows in one transaction: some ten milliseconds for which no other process writes."""

_COUNT: Final = (
    "INSERT INTO kept (gateway, rows) VALUES (?, ?) ON CONFLICT (gateway) DO UPDATE SET rows = rows + excluded.rows"
)
_UNCOUNT: Final = "UPDATE kept SET rows = rows - ? WHERE gateway = ?"
_FORGET: Final = "DELETE FROM kept WHERE gateway = ? AND rows <= 0"
_OLDEST: Final = "SELECT seq, gateway FROM requests WHERE gateway = ? ORDER BY seq LIMIT ?"
_BEFORE: Final = "SELECT seq, gateway FROM requests WHERE id < ? ORDER BY id LIMIT ?"


class Bound(NamedTuple):
    """How many rows a gateway may have; 0 is any number."""

    rows: int = 0
    stops: bool = False
    """At so many no new one is kept; else the oldest goes."""


class RequestLog:
    """One process's hand on the file. Other processes may have theirs; a thread at a time.

    Whatever raises sqlite3.Error has changed nothing.
    """

    def __init__(self, path: Path) -> None:
        """Raises LogUnusable."""
        self._path = path
        self._connection = open_to_write(path)
        self._identity = _identity(path)

    def append(self, rows: Sequence[Row], bounds: Mapping[str, Bound]) -> Counter[str]:
        """All of them but those that a gateway's bound stops: how many that are, by gateway.

        They go to the system's memory before the disk: of a process that is killed none is lost, of a machine that
        loses power the last may be.
        """
        with self._transaction():
            stopped: Counter[str] = Counter()
            kept = list(self._within(rows, bounds, stopped))
            for start in range(0, len(kept), ROWS_AT_ONCE):
                self._insert(kept[start : start + ROWS_AT_ONCE])
            self._connection.executemany(_COUNT, Counter(row.gateway for row in kept).items())
        return stopped

    def delete_oldest(self, gateway: str, most: int) -> bool:
        """A few of those that the gateway has beyond `most`. Whether there may be more."""
        if self._kept(gateway) <= most:
            return False
        with self._transaction():
            surplus = self._kept(gateway) - most
            return self._delete(_OLDEST, gateway, min(max(surplus, 0), DELETED_AT_ONCE))

    def delete_before(self, row_id: str) -> bool:
        """A few of the rows whose id sorts before this one. Whether there may be more."""
        if not self._connection.execute(_BEFORE, (row_id, 1)).fetchone():
            return False
        with self._transaction():
            return self._delete(_BEFORE, row_id, DELETED_AT_ONCE)

    def is_gone(self) -> bool:
        """Whether the file was moved or removed: what is written now, nobody would find."""
        return _identity(self._path) != self._identity

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.rollback()
            raise

    def _insert(self, rows: Sequence[Row]) -> None:
        self._connection.execute(insert(len(rows)), tuple(chain.from_iterable(rows)))

    def _within(self, rows: Sequence[Row], bounds: Mapping[str, Bound], stopped: Counter[str]) -> Iterable[Row]:
        room = {name: self._room(name, bound) for name, bound in bounds.items() if bound.rows and bound.stops}
        if not room:
            return rows
        return (row for row in rows if row.gateway not in room or _goes_in(row.gateway, room, stopped))

    def _room(self, gateway: str, bound: Bound) -> int:
        return max(bound.rows - self._kept(gateway), 0)

    def _kept(self, gateway: str) -> int:
        found = self._connection.execute("SELECT rows FROM kept WHERE gateway = ?", (gateway,)).fetchone()
        return found[0] if found else 0

    def _delete(self, select: str, by: str, most: int) -> bool:
        found = self._connection.execute(select, (by, most)).fetchall()
        self._connection.executemany("DELETE FROM requests WHERE seq = ?", ((seq,) for seq, _ in found))
        gone = Counter(gateway for _, gateway in found)
        self._connection.executemany(_UNCOUNT, ((rows, gateway) for gateway, rows in gone.items()))
        self._connection.executemany(_FORGET, ((gateway,) for gateway in gone))
        return len(found) == DELETED_AT_ONCE


def _goes_in(gateway: str, room: dict[str, int], stopped: Counter[str]) -> bool:
    if not room[gateway]:
        stopped[gateway] += 1
        return False
    room[gateway] -= 1
    return True


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
