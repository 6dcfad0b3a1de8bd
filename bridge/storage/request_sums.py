"""What a request log says was spent, summed up by those who spent it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from bridge.storage.request_damage import LogUnusable
from bridge.storage.request_file import open_to_read
from bridge.storage.request_reader import first_id

_SPENT: Final = """
SELECT gateway, token, provider, model, metadata, created_at / ? AS window, sum(cost)
FROM requests WHERE id >= ? AND cost > 0 GROUP BY gateway, token, provider, model, metadata, window
"""


class Spent(NamedTuple):
    gateway: str
    """As clients called it."""
    token: str | None
    provider: str | None
    model: str | None
    metadata: str | None
    """JSON."""
    window: int
    """Its number, counted from 1970."""
    usd: float


def spent_since(path: Path, window_s: int, window: int) -> Iterator[Spent]:
    """In the windows of that length, from the one of that number on. Raises LogUnusable."""
    window_ms = window_s * 1000
    with closing(open_to_read(path)) as connection:
        try:
            yield from map(Spent._make, connection.execute(_SPENT, (window_ms, first_id(window * window_ms))))
        except sqlite3.Error as error:
            raise LogUnusable(f"{path}: {error}") from None
