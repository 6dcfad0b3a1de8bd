"""Log lines: one event each, readable on a terminal and JSON elsewhere, free of secrets, and never in anybody's way.

A call to the log renders its line and puts it on a queue; one thread writes. So a reader of the log that stalls
costs lines, which are counted, and never stops the loop.
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
"""Their warnings would else be written to stderr by the thread that runs the loop."""
SILENCED: Final = ("aiohttp.websocket", "aiohttp.access")
"""The first logs every offered subprotocol, tokens included."""
MAX_TEXT: Final = 16_384
"""Characters of one free text; what is longer loses its middle."""
_SHORT: Final = 64
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@%+*,~-]+")


def setup(stream: TextIO, fmt: str, level: str) -> LineHandler:
    """Write what the logger "bridge" and its children log from `level` up to `stream`; once per process, after forks.

    `fmt` is "text", "json", or "auto": text if `stream` is a terminal. A second call replaces the first. An event's
    fields come as `extra={"fields": {…}}` and are rendered within the call. `logging.shutdown`, which Python runs
    at exit, writes what is left.
    """
    render = as_text if fmt == "text" or (fmt == "auto" and stream.isatty()) else as_json
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
    """One line of JSON: `time`, `level`, `message`, then the event's fields, which cannot replace those."""
    line: dict[str, object] = {
        "time": _stamp(record.created),
        "level": record.levelname.lower(),
        "message": _free(record.getMessage()),
    }
    for name, value in _fields(record).items():
        line.setdefault(name, _clean(value))
    if trace := _trace(record):
        line["exception"] = trace
    try:
        return json_text(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    except TypeError:  # lone surrogates and integers over 64 bits, which the standard library takes
        return json_text(json.dumps(line, ensure_ascii=False).encode(errors="replace") + b"\n")


def as_text(record: logging.LogRecord) -> bytes:
    """One line for people, and a traceback's lines below it, each with a bar before it, so none can forge a line."""
    words = [_stamp(record.created), record.levelname.ljust(7), one_line(_free(record.getMessage()))]
    words += [f"{one_line(name)}={_word(_clean(value))}" for name, value in _fields(record).items()]
    lines = [" ".join(words), *(f"  | {one_line(line)}" for line in _trace(record).split("\n") if line)]
    return ("\n".join(lines) + "\n").encode()


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _trace(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    return _free("".join(traceback.format_exception(error))) if error else ""


def _clean(value: object) -> object:
    """A field's value as JSON can carry it, with secrets taken out of every text."""
    if isinstance(value, str):
        return _free(value)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _clean(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(one) for one in value]
    return _free(str(value))


def _free(text: str) -> str:
    if len(text) <= _SHORT:
        return _redacted(text)
    text = redact_text(text)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT // 2]} … {text[-MAX_TEXT // 2 :]}"


# Log messages and the names of providers are few and come again and again; looking for secrets costs most of a line.
_redacted = lru_cache(maxsize=1024)(redact_text)


def _word(value: object) -> str:
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    return text if _PLAIN.fullmatch(text) else json.dumps(value)


def _stamp(at: float) -> str:
    milliseconds = int(at * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
