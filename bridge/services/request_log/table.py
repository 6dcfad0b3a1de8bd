"""Write rows to the request log in batches, and delete old ones a few at a time."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from bridge.services.request_log.damage import identity
from bridge.services.request_log.database import open_to_write
from bridge.services.request_log.schema import LogRow, insert
from bridge.services.request_log.shares import Counts, RowQuota, Share, cut

_MAX_VALUES: Final = 999 if sqlite3.sqlite_version_info < (3, 32) else 32_766
"""Values that SQLite accepts in one statement (sqlite.org/limits.html)."""
ROWS_PER_INSERT: Final = min(64, _MAX_VALUES // len(LogRow._fields))
"""Rows in one statement. A statement releases the GIL and has to reacquire it from the event loop afterwards, so few
large statements are cheaper than many small ones.
"""
MAX_DELETED_ROWS: Final = 500
"""Rows deleted in one transaction, which blocks other writers for some ten milliseconds."""

_COUNT: Final = (
    "INSERT INTO kept (gateway, rows) VALUES (?, ?) ON CONFLICT (gateway) DO UPDATE SET rows = rows + excluded.rows"
)
_UNCOUNT: Final = "UPDATE kept SET rows = rows - ? WHERE gateway = ?"
_FORGET: Final = "DELETE FROM kept WHERE gateway = ? AND rows <= 0"
_SHARES: Final = "SELECT gateway, refused, token, rows FROM shares WHERE gateway = ?"
_COUNT_SHARE: Final = (
    "INSERT INTO shares (gateway, refused, token, rows) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (gateway, refused, token) DO UPDATE SET rows = rows + excluded.rows"
)
_FORGET_SHARE: Final = "DELETE FROM shares WHERE gateway = ? AND refused = ? AND token = ? AND rows <= 0"
_EMPTY_SHARE: Final = "UPDATE shares SET rows = 0 WHERE gateway = ? AND refused = ? AND token = ?"
_OLDEST: Final = "SELECT seq, gateway, refused, token FROM requests WHERE gateway = ? ORDER BY seq LIMIT ?"
_OLDEST_OF_SHARE: Final = (
    "SELECT seq, gateway, refused, token FROM requests"
    " WHERE gateway = ? AND refused = ? AND token IS ? ORDER BY seq LIMIT ?"
)
_BEFORE: Final = "SELECT seq, gateway, refused, token FROM requests WHERE id < ? ORDER BY id LIMIT ?"

_SelectedRow = tuple[int, str, int, str | None]
"""A row to delete: its `seq`, and the gateway, `refused` and token of its share."""


class RowBound(NamedTuple):
    """The number of rows that a gateway may have; 0 for any number."""

    rows: int = 0
    stops: bool = False
    """If true, a full gateway keeps no new rows; otherwise old rows are deleted as `shares` decides."""
    is_shared: bool = False
    """True if several tokens write rows."""


class RequestTable:
    """One process's connection to the file, for one thread at a time. Other processes may use the file as well.

    A method that raises sqlite3.Error has changed nothing.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises LogUnusable, LogFaulty and LogDamaged."""
        self._path = path
        self._connection = open_to_write(path)
        self.identity = identity(path)

    def append(self, rows: Sequence[LogRow], bounds: Mapping[str, RowBound]) -> Counter[str]:
        """Insert the rows except those that a gateway's bound stops. Return the number of stopped rows by gateway.

        A killed process loses no inserted row. A power failure may lose the last ones, because the operating system
        writes them to the disk later.
        """
        with self._transaction():
            stopped: Counter[str] = Counter()
            kept = list(self._within_bounds(rows, bounds, stopped))
            for start in range(0, len(kept), ROWS_PER_INSERT):
                self._insert(kept[start : start + ROWS_PER_INSERT])
            self._connection.executemany(_COUNT, Counter(row.gateway for row in kept).items())
            self._count_shares(Counter(map(_share, kept)))
        return stopped

    def delete_oldest(self, gateway: str, max_rows: int) -> bool:
        """Delete some of the gateway's rows beyond `max_rows`. Return True if there may be more."""
        if self._row_count(gateway) <= max_rows:
            return False
        with self._transaction():
            surplus = self._row_count(gateway) - max_rows
            if surplus <= 0:
                return False
            wanted = cut(self._shares(gateway), max_rows, MAX_DELETED_ROWS)
            if wanted is not None:
                found = [row for share in wanted.shares for row in self._oldest_of(share, wanted.rows)]
                self._delete(sorted(found)[: wanted.rows])
            else:  # an earlier version wrote rows that the shares do not count
                found = self._select(_OLDEST, gateway, min(surplus, MAX_DELETED_ROWS))
                self._delete(found)
                if not found:
                    return False
            return self._row_count(gateway) > max_rows

    def delete_before(self, row_id: str) -> bool:
        """Delete some of the rows whose id sorts before this one. Return True if there may be more."""
        if not self._connection.execute(_BEFORE, (row_id, 1)).fetchone():
            return False
        with self._transaction():
            found = self._select(_BEFORE, row_id, MAX_DELETED_ROWS)
            self._delete(found)
            return len(found) == MAX_DELETED_ROWS

    def is_replaced(self) -> bool:
        """Return True if the file was moved or removed, so that rows written now would be lost."""
        return identity(self._path) != self.identity

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

    def _insert(self, rows: Sequence[LogRow]) -> None:
        self._connection.execute(insert(len(rows)), tuple(chain.from_iterable(rows)))

    def _within_bounds(
        self, rows: Sequence[LogRow], bounds: Mapping[str, RowBound], stopped: Counter[str]
    ) -> Iterable[LogRow]:
        room = {
            name: RowQuota(self._shares(name), bound.rows, is_shared=bound.is_shared)
            for name, bound in bounds.items()
            if bound.rows and bound.stops
        }
        for row in rows:
            if row.gateway not in room or room[row.gateway].add(_share(row)):
                yield row
            else:
                stopped[row.gateway] += 1

    def _row_count(self, gateway: str) -> int:
        found = self._connection.execute("SELECT rows FROM kept WHERE gateway = ?", (gateway,)).fetchone()
        return found[0] if found else 0

    def _shares(self, gateway: str) -> Counts:
        found = self._connection.execute(_SHARES, (gateway,))
        return {Share(name, bool(refused), token): rows for name, refused, token, rows in found}

    def _count_shares(self, changes: Mapping[Share, int]) -> None:
        self._connection.executemany(_COUNT_SHARE, ((*share, rows) for share, rows in changes.items()))
        self._connection.executemany(_FORGET_SHARE, changes)

    def _oldest_of(self, share: Share, limit: int) -> list[_SelectedRow]:
        found = self._select(_OLDEST_OF_SHARE, share.gateway, share.refused, share.token or None, limit)
        if not found:  # the count is wrong: an earlier version has deleted these rows
            self._connection.execute(_EMPTY_SHARE, share)
            self._connection.execute(_FORGET_SHARE, share)
        return found

    def _select(self, select: str, *values: object) -> list[_SelectedRow]:
        return self._connection.execute(select, values).fetchall()

    def _delete(self, found: Sequence[_SelectedRow]) -> None:
        self._connection.executemany("DELETE FROM requests WHERE seq = ?", ((row[0],) for row in found))
        gone = Counter(gateway for _, gateway, _, _ in found)
        self._connection.executemany(_UNCOUNT, ((rows, gateway) for gateway, rows in gone.items()))
        self._connection.executemany(_FORGET, ((gateway,) for gateway in gone))
        shares = Counter(Share(gateway, bool(refused), token or "") for _, gateway, refused, token in found)
        self._count_shares({share: -rows for share, rows in shares.items()})


def _share(row: LogRow) -> Share:
    return Share(row.gateway, row.refused, row.token or "")
