"""Decide which rows are deleted from the request log of a gateway that is full. Pure.

Refused events have a share of their own, a tenth of the rows. In each share no token has more than half of the rows
while others have rows in it. So neither refused events, which cost nothing, nor one token displace the rows of others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

REFUSED_PART: Final = 10
"""One in so many rows of a gateway may be that of a refused event."""


class Share(NamedTuple):
    """A set of rows that are counted together: those of one token, with refused events separate."""

    gateway: str
    refused: bool
    token: str
    """The name of the token; empty for an open gateway."""


Counts = Mapping[Share, int]
"""The number of rows of each share of one gateway."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Delete the oldest `rows` of these shares."""

    shares: Sequence[Share]
    rows: int


def cut(counts: Counts, max_rows: int, max_deleted: int) -> Cut | None:
    """Return the rows to delete from a gateway that may have `max_rows`, at most `max_deleted`; None for none.

    Each cut is small, and the next one is computed from new counts.
    """
    surplus = sum(counts.values()) - max_rows
    if surplus <= 0:
        return None
    refused = {share: rows for share, rows in counts.items() if share.refused}
    served = {share: rows for share, rows in counts.items() if not share.refused}
    too_many_refused = sum(refused.values()) - _max_refused(max_rows)
    if too_many_refused > 0:
        return _cut_largest_or_all(refused, _max_refused(max_rows), min(surplus, too_many_refused), max_deleted)
    return _cut_largest_or_all(served, max_rows, surplus, max_deleted)


def _cut_largest_or_all(counts: Counts, max_rows: int, surplus: int, max_deleted: int) -> Cut:
    """Cut the token that has more than half of the rows down to half; without one, cut the oldest rows of all."""
    largest = max(counts, key=counts.__getitem__)
    beyond_half = counts[largest] - max_rows // 2
    if beyond_half > 0 and len(counts) > 1:
        return Cut((largest,), min(surplus, beyond_half, max_deleted))
    return Cut(tuple(counts), min(surplus, max_deleted))


def _max_refused(max_rows: int) -> int:
    return max(max_rows // REFUSED_PART, 1)


class RowQuota:
    """Admits new rows to a gateway that deletes none. It accepts `max_rows` rows; no token fills more than half of them
    if several tokens may write."""

    def __init__(self, counts: Counts, max_rows: int, *, is_shared: bool) -> None:
        self._max_rows = max_rows
        self._is_shared = is_shared
        self._counts = dict(counts)
        self._total = sum(counts.values())
        self._refused = sum(rows for share, rows in counts.items() if share.refused)

    def add(self, share: Share) -> bool:
        """Count one more row of the share. Return False if there is no room for it."""
        if self._total >= self._max_rows or not self._has_room(share):
            return False
        self._counts[share] = self._counts.get(share, 0) + 1
        self._total += 1
        self._refused += share.refused
        return True

    def _has_room(self, share: Share) -> bool:
        max_rows = _max_refused(self._max_rows) if share.refused else self._max_rows
        if share.refused and self._refused >= max_rows:
            return False
        return not self._is_shared or self._counts.get(share, 0) < max(max_rows // 2, 1)
