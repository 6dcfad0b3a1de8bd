"""`bridge logs`: prints events as a table, one line each, and follows new ones."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, Literal, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.cli.logs.actions import report_error
from bridge.logs.terminal import one_line
from bridge.services.request_log.damage import LogUnusable
from bridge.services.request_log.reader import LogFilter, RequestReader, RowDict

POLL_S: Final = 0.5
"""Interval of the search for new rows; the log is written no more often."""
ROWS_AT_ONCE: Final = 200
"""Number of rows that are formatted at a time."""


class Column(NamedTuple):
    name: str
    width: int
    justify: Literal["left", "right"]
    cell: Callable[[RowDict], str]


_COLUMNS: Final = (
    Column("began", 19, "left", lambda row: datetime.fromtimestamp(row["created_at"] / 1000).isoformat(" ", "seconds")),
    Column("status", 6, "right", lambda row: str(row["status_code"])),
    Column("ms", 8, "right", lambda row: f"{row['duration']:.0f}"),
    Column("tokens", 13, "right", lambda row: _tokens(row["tokens_in"], row["tokens_out"])),
    Column("USD", 10, "right", lambda row: "HIT" if row["cached"] else _usd(row["cost"])),
    Column("gateway", 14, "left", lambda row: row["gateway"]),
    Column("provider", 14, "left", lambda row: row["provider"] or ""),
    Column("model", 24, "left", lambda row: row["model"] or ""),
    Column("id", 36, "left", lambda row: row["id"]),
)
_GAP: Final = 2
_GIVE_WAY: Final = ("gateway", "tokens", "USD", "provider", "model")
"""Columns to omit on a narrow terminal, in this order. IDs are never shortened, so that they can be copied."""


def list_(path: Path, wanted: LogFilter, most: int, *, follow: bool) -> int:
    """Print the events and return the exit code."""
    columns, console = _columns(), Console(highlight=False, width=_width(_COLUMNS))
    try:
        with RequestReader(path) as log:
            seen = log.last_seq()
            _print(console, columns, log.newest(wanted, most), with_header=True)
            while follow:
                time.sleep(POLL_S)
                before, seen = seen, log.last_seq()
                _print(console, columns, log.rows_between(before, seen, wanted), with_header=False)
    except LogUnusable as error:
        return report_error(str(error))
    except KeyboardInterrupt:
        return 0
    return 0


def _columns() -> list[Column]:
    """Return all columns, or those that fit the terminal."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else _width(_COLUMNS)
    columns = list(_COLUMNS)
    for name in _GIVE_WAY:
        if _width(columns) > room:
            columns = [column for column in columns if column.name != name]
    return columns


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width + _GAP for column in columns)


def _print(console: Console, columns: Sequence[Column], rows: Iterable[RowDict], *, with_header: bool) -> None:
    rows = iter(rows)
    while (some := list(islice(rows, ROWS_AT_ONCE))) or with_header:
        console.print(_table(columns, some, with_header=with_header))
        with_header = False


def _table(columns: Sequence[Column], rows: Iterable[RowDict], *, with_header: bool) -> Table:
    table = Table(box=None, show_header=with_header, pad_edge=False, padding=(0, _GAP, 0, 0))
    for column in columns:
        table.add_column(column.name, justify=column.justify, width=column.width, no_wrap=True)
    for row in rows:
        cells = (Text(one_line(column.cell(row))) for column in columns)
        table.add_row(*cells, style=None if row["success"] else "red")
    return table


def _tokens(count_in: int | None, count_out: int | None) -> str:
    counts = [count_in, count_out]
    return "" if counts == [None, None] else " ".join("?" if count is None else str(count) for count in counts)


def _usd(cost: float | None) -> str:
    return "" if cost is None else f"{cost:.6f}"
