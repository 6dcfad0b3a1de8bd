"""Render log records as lines: text on a terminal, JSON elsewhere, without secrets.

A log call renders its line and queues it (`handler`); one thread writes. A stalled reader of the log therefore costs
lines, which are counted, and never blocks the event loop.
"""

import json
import logging
import re
import time
import traceback
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TextIO

import orjson

from bridge.logs.handler import LineHandler
from bridge.logs.terminal import json_text, one_line
from bridge.redact.text import redact_text

LOGGER: Final = "bridge"
ADOPTED: Final = ("aiohttp", "asyncio")
"""Loggers of libraries whose warnings would otherwise be written to stderr by the event loop's thread."""
SILENCED: Final = ("aiohttp.websocket", "aiohttp.access")
"""The first of them logs every offered subprotocol, including tokens."""
MAX_TEXT: Final = 16_384
"""Maximal length of one free text; the middle of a longer one is cut out."""
_SHORT: Final = 64
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@%+*,~-]+")


def setup(stream: TextIO, fmt: str, level: str) -> LineHandler:
    """Write records of the logger "bridge" and its children, from `level` up, to `stream`.

    Call it once per process, after forks; a second call replaces the first. `fmt` is "text", "json", or "auto" (text if
    `stream` is a terminal). Fields are passed as `extra={"fields": {…}}` and are rendered within the log call.
    `logging.shutdown`, which Python runs at exit, writes the remaining lines.
    """
    render = as_text if fmt == "text" or (fmt == "auto" and stream.isatty()) else as_json
    # Lines name no file, thread or process: logging need not look them up (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = LineHandler(stream, render)
    for name in (LOGGER, *ADOPTED):
        _attach(handler, logging.getLogger(name))
    set_level(level)
    for name in SILENCED:
        logging.getLogger(name).disabled = True
    return handler


def set_level(level: str) -> None:
    logging.getLogger(LOGGER).setLevel(level.upper())


def _attach(handler: logging.Handler, logger: logging.Logger) -> None:
    for earlier in [old for old in logger.handlers if isinstance(old, LineHandler)]:
        logger.removeHandler(earlier)
        earlier.close()
    logger.addHandler(handler)
    logger.propagate = False


def as_json(record: logging.LogRecord) -> bytes:
    """Return one line of JSON: `time`, `level`, `message`, then the record's fields, which cannot replace these."""
    line: dict[str, object] = {
        "time": _stamp(record.created),
        "level": record.levelname.lower(),
        "message": _redact(record.getMessage()),
    }
    for name, value in _fields(record).items():
        line.setdefault(name, _clean(value))
    if trace := _trace(record):
        line["exception"] = trace
    try:
        return json_text(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    except TypeError:  # lone surrogates and integers over 64 bits, which the standard library accepts
        return json_text(json.dumps(line, ensure_ascii=False).encode(errors="replace") + b"\n")


def as_text(record: logging.LogRecord) -> bytes:
    """Return one line of text. Lines of a traceback follow, each behind a bar, so that none can forge a log line."""
    parts = [_stamp(record.created), record.levelname.ljust(7), one_line(_redact(record.getMessage()))]
    parts += [f"{one_line(name)}={_value_text(_clean(value))}" for name, value in _fields(record).items()]
    lines = [" ".join(parts), *(f"  | {one_line(line)}" for line in _trace(record).split("\n") if line)]
    return ("\n".join(lines) + "\n").encode()


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _trace(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    return _redact("".join(traceback.format_exception(error))) if error else ""


def _clean(value: object) -> object:
    """Return a field's value as JSON supports it, with secrets removed from every text."""
    if isinstance(value, str):
        return _redact(value)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return _redact(str(value))


def _redact(text: str) -> str:
    if len(text) <= _SHORT:
        return _redact_short(text)
    text = redact_text(text)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT // 2]} … {text[-MAX_TEXT // 2 :]}"


# Log messages and provider names repeat, and the search for secrets is most of the cost of a line.
_redact_short = lru_cache(maxsize=1024)(redact_text)


def _value_text(value: object) -> str:
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    return text if _PLAIN.fullmatch(text) else json.dumps(value)


def _stamp(at: float) -> str:
    milliseconds = int(at * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
