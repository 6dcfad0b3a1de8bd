"""Whose rows make room in the request log of a gateway that is full. Pure.

Refused events have a share of their own, a tenth of the rows. Of its share no token has more than half while others
have rows in it. So neither free events nor one token push out what others want to find.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

REFUSED_PART: Final = 10
"""Of a gateway's rows, one in so many may be that of a refused event."""


class Share(NamedTuple):
    """What is counted together: the rows of one token, refused events apart."""

    gateway: str
    refused: bool
    token: str
    """Its name; empty for an open gateway."""


Counts = Mapping[Share, int]
"""How many rows each share of one gateway has."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Delete the oldest `rows` of these shares."""

    shares: Sequence[Share]
    rows: int


def cut(counts: Counts, max_rows: int, max_deleted: int) -> Cut | None:
    """Return what to delete of a gateway that may have `most` rows; at most `at_once` rows. None for nothing.

    Each cut is small, and the next one is decided anew.
    """
    surplus = sum(counts.values()) - max_rows
    if surplus <= 0:
        return None
    refused = {share: rows for share, rows in counts.items() if share.refused}
    served = {share: rows for share, rows in counts.items() if not share.refused}
    too_many_refused = sum(refused.values()) - _of_refused(max_rows)
    if too_many_refused > 0:
        return _of_one_or_all(refused, _of_refused(max_rows), min(surplus, too_many_refused), max_deleted)
    return _of_one_or_all(served, max_rows, surplus, max_deleted)


def _of_one_or_all(counts: Counts, most: int, surplus: int, at_once: int) -> Cut:
    """Take from the token that has more than half, down to half; else from the oldest of all."""
    largest = max(counts, key=counts.__getitem__)
    beyond_half = counts[largest] - most // 2
    if beyond_half > 0 and len(counts) > 1:
        return Cut((largest,), min(surplus, beyond_half, at_once))
    return Cut(tuple(counts), min(surplus, at_once))


def _of_refused(most: int) -> int:
    return max(most // REFUSED_PART, 1)


class RowQuota:
    """Which new rows a gateway that deletes none still takes: it has `most`, of which no token fills more than half if
    several may write."""

    def __init__(self, counts: Counts, max_rows: int, *, is_shared: bool) -> None:
        self._most = max_rows
        self._is_shared = is_shared
        self._counts = dict(counts)
        self._all = sum(counts.values())
        self._refused = sum(rows for share, rows in counts.items() if share.refused)

    def add(self, share: Share) -> bool:
        """Count one more row of that share, if there is room for it."""
        if self._all >= self._most or not self._has_room(share):
            return False
        self._counts[share] = self._counts.get(share, 0) + 1
        self._all += 1
        self._refused += share.refused
        return True

    def _has_room(self, share: Share) -> bool:
        most = _of_refused(self._most) if share.refused else self._most
        if share.refused and self._refused >= most:
            return False
        return not self._is_shared or self._counts.get(share, 0) < max(most // 2, 1)
