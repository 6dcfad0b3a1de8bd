"""The request log as its writer sees it: rows go in, in batches, and old ones go out, a few at a time."""

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

ROWS_PER_INSERT: Final = 999 // len(LogRow._fields)
"""In one statement: older SQLite takes 999 values. The interpreter's lock is free while it runs, and has to be won back
from the loop after it, once for all these rows.
"""
MAX_DELETED_ROWS: Final = 500
"""Rows in one transaction: some ten milliseconds for which no other process writes."""

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

_Found = tuple[int, str, int, str | None]
"""A row to be deleted: its `seq`, and what it counts to."""


class RowBound(NamedTuple):
    """How many rows a gateway may have; 0 is any number."""

    rows: int = 0
    stops: bool = False
    """At so many no new one is kept; else an old one goes, by `request_shares`."""
    is_shared: bool = False
    """Several tokens write rows."""


class RequestTable:
    """One process's hand on the file. Other processes may have theirs; a thread at a time.

    Whatever raises sqlite3.Error has changed nothing.
    """

    def __init__(self, path: Path) -> None:
        """Raises LogUnusable, LogFaulty and LogDamaged."""
        self._path = path
        self._connection = open_to_write(path)
        self.identity = identity(path)

    def append(self, rows: Sequence[LogRow], bounds: Mapping[str, RowBound]) -> Counter[str]:
        """All of them but those that a gateway's bound stops: how many that are, by gateway.

        They go to the system's memory before the disk: of a process that is killed none is lost, of a machine that
        loses power the last may be.
        """
        with self._transaction():
            stopped: Counter[str] = Counter()
            kept = list(self._within(rows, bounds, stopped))
            for start in range(0, len(kept), ROWS_PER_INSERT):
                self._insert(kept[start : start + ROWS_PER_INSERT])
            self._connection.executemany(_COUNT, Counter(row.gateway for row in kept).items())
            self._count_shares(Counter(map(_share, kept)))
        return stopped

    def delete_oldest(self, gateway: str, max_rows: int) -> bool:
        """Delete a few of those that the gateway has beyond `most`. Return True if there may be more."""
        if self._kept(gateway) <= max_rows:
            return False
        with self._transaction():
            surplus = self._kept(gateway) - max_rows
            if surplus <= 0:
                return False
            wanted = cut(self._shares(gateway), max_rows, MAX_DELETED_ROWS)
            if wanted is not None:
                found = [row for share in wanted.shares for row in self._oldest_of(share, wanted.rows)]
                self._delete(sorted(found)[: wanted.rows])
            else:  # an earlier version wrote rows that the shares do not count
                found = self._selected(_OLDEST, gateway, min(surplus, MAX_DELETED_ROWS))
                self._delete(found)
                if not found:
                    return False
            return self._kept(gateway) > max_rows

    def delete_before(self, row_id: str) -> bool:
        """Delete a few of the rows whose id sorts before this one. Return True if there may be more."""
        if not self._connection.execute(_BEFORE, (row_id, 1)).fetchone():
            return False
        with self._transaction():
            found = self._selected(_BEFORE, row_id, MAX_DELETED_ROWS)
            self._delete(found)
            return len(found) == MAX_DELETED_ROWS

    def is_replaced(self) -> bool:
        """True if the file was moved or removed: what is written now, nobody would find."""
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

    def _within(
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

    def _kept(self, gateway: str) -> int:
        found = self._connection.execute("SELECT rows FROM kept WHERE gateway = ?", (gateway,)).fetchone()
        return found[0] if found else 0

    def _shares(self, gateway: str) -> Counts:
        found = self._connection.execute(_SHARES, (gateway,))
        return {Share(name, bool(refused), token): rows for name, refused, token, rows in found}

    def _count_shares(self, changes: Mapping[Share, int]) -> None:
        self._connection.executemany(_COUNT_SHARE, ((*share, rows) for share, rows in changes.items()))
        self._connection.executemany(_FORGET_SHARE, changes)

    def _oldest_of(self, share: Share, most: int) -> list[_Found]:
        found = self._selected(_OLDEST_OF_SHARE, share.gateway, share.refused, share.token or None, most)
        if not found:  # it was counted wrong: an earlier version has deleted its rows
            self._connection.execute(_EMPTY_SHARE, share)
            self._connection.execute(_FORGET_SHARE, share)
        return found

    def _selected(self, select: str, *values: object) -> list[_Found]:
        return self._connection.execute(select, values).fetchall()

    def _delete(self, found: Sequence[_Found]) -> None:
        self._connection.executemany("DELETE FROM requests WHERE seq = ?", ((row[0],) for row in found))
        gone = Counter(gateway for _, gateway, _, _ in found)
        self._connection.executemany(_UNCOUNT, ((rows, gateway) for gateway, rows in gone.items()))
        self._connection.executemany(_FORGET, ((gateway,) for gateway in gone))
        shares = Counter(Share(gateway, bool(refused), token or "") for _, gateway, refused, token in found)
        self._count_shares({share: -rows for share, rows in shares.items()})


def _share(row: LogRow) -> Share:
    return Share(row.gateway, row.refused, row.token or "")
