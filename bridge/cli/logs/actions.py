"""Implements `bridge logs show`, `export` and `rate`. Their functions return the exit code."""

import base64
import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, Final

import orjson
import typer

from bridge.logs.terminal import is_terminal, json_text, one_line
from bridge.services.request_log.damage import LogUnusable
from bridge.services.request_log.reader import LogFilter, RequestReader
from bridge.services.request_log.reader import rate as write_rating
from bridge.settings.accounting import MAX_METADATA_ENTRIES

_THUMBS: Final = {"up": 1, "down": -1, "none": 0}
"""Values of Cloudflare: developers.cloudflare.com/ai-gateway/evaluations/add-human-feedback-bindings."""
_FLAGS: Final = (
    "success",
    "cached",
    "cost_estimated",
    "custom_cost",
    "request_head_complete",
    "response_head_complete",
)
_JSON: Final = ("metadata", "attempts", "warnings")
_RUN_BY_SPREADSHEETS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Prefixes, also in full width, that spreadsheets treat as formulas. A preceding apostrophe makes them text."""
_BODIES: Final = ("request_head", "response_head")


def show(path: Path, row_id: str) -> int:
    try:
        with RequestReader(path) as log:
            row = log.row(row_id)
    except LogUnusable as error:
        return report_error(str(error))
    if row is None:
        return report_error(f"{path} has no event {row_id}")
    fields = _as_json(row)
    bodies = {name: fields.pop(name) for name in _BODIES}
    for name, value in fields.items():
        if value is not None:
            typer.echo(f"{name}: {one_line(value if isinstance(value, str) else json.dumps(value))}")
    for name, body in bodies.items():
        if body:
            typer.echo(f"\n{name}:\n{_lines(body)}")
    return 0


def export(path: Path, wanted: LogFilter, most: int | None, form: str) -> int:
    try:
        with RequestReader(path) as log:
            _WRITERS[form](map(_as_json, log.rows(wanted, most)))
    except LogUnusable as error:
        return report_error(str(error))
    return 0


def rate(path: Path, row_id: str, score: float | None, thumbs: str | None, metadata: Mapping[str, str]) -> int:
    changes: dict[str, object] = {}
    if score is not None:
        changes["score"] = score
    if thumbs is not None:
        changes["feedback"] = _THUMBS[thumbs]
    try:
        with RequestReader(path) as log:
            row = log.row(row_id)
        if row is None:
            return report_error(f"{path} has no event {row_id}")
        if metadata:
            together = {**orjson.loads(row["metadata"] or "{}"), **metadata}
            if len(together) > MAX_METADATA_ENTRIES:
                return report_error(f"an event has at most {MAX_METADATA_ENTRIES} entries of metadata")
            changes["metadata"] = orjson.dumps(together).decode()
        write_rating(path, row_id, changes)
    except LogUnusable as error:
        return report_error(str(error))
    return 0


def report_error(line: str) -> int:
    typer.echo(f"bridge: {one_line(line)}", err=True)
    return 1


def _lines(body: str) -> str:
    return "\n".join(map(one_line, body.splitlines()))


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for JSON: times as text, flags as booleans, bytes in base64."""
    fields = {name: value for name, value in row.items() if name != "seq"}
    fields["created_at"] = datetime.fromtimestamp(row["created_at"] / 1000, UTC).isoformat(timespec="milliseconds")
    fields |= {name: bool(row[name]) for name in _FLAGS}
    fields |= {name: orjson.loads(row[name]) for name in _JSON if row[name] is not None}
    fields |= {name: base64.b64encode(row[name]).decode() for name in _BODIES if isinstance(row[name], bytes)}
    return fields


def _write_jsonl(rows: Iterable[dict[str, Any]]) -> None:
    out, shown = sys.stdout.buffer, is_terminal(sys.stdout)
    for row in rows:
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        out.write(json_text(line) if shown else line)
    out.flush()


def _write_csv(rows: Iterable[dict[str, Any]]) -> None:
    """Write CSV (RFC 4180) in UTF-8."""
    rows = iter(rows)
    if (first := next(rows, None)) is None:
        return
    shown = is_terminal(sys.stdout)
    out = TextIOWrapper(sys.stdout.buffer, "utf-8", newline="")
    writer = csv.DictWriter(out, first.keys())
    writer.writeheader()
    for row in chain([first], rows):
        cells = {name: _cell(value) for name, value in row.items()}
        writer.writerow({name: one_line(str(cell)) for name, cell in cells.items()} if shown else cells)
    out.flush()
    out.detach()  # otherwise it would close stdout


def _cell(value: object) -> object:
    """Return a CSV cell: JSON for values that are not text, as in the JSON Lines export."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_RUN_BY_SPREADSHEETS) else value
    return json.dumps(value, separators=(",", ":")) if isinstance(value, bool | dict | list) else value


_WRITERS: Final[Mapping[str, Callable[[Iterable[dict[str, Any]]], None]]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
}
