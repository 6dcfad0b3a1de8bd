"""`bridge call`: sends one event, prints the answer and returns the exit code."""

import asyncio
import sys
from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import typer

from bridge.cli.output import Printer
from bridge.client import CallFailed, CannotConnect, Request, connect
from bridge.formats.json_parse import parse
from bridge.logs.terminal import one_line
from bridge.redact.text import redact_url

Step = dict[str, Any]


def step(provider: str, endpoint: str, data: str | None, headers: Sequence[str], method: str | None) -> Step:
    members = {
        "provider": provider,
        "endpoint": endpoint,
        "method": method,
        "headers": _headers(headers),
        "query": None if data is None else _json("--data", data),
    }
    return {name: value for name, value in members.items() if value}


def fallback(text: str) -> Step:
    """Parse `PROVIDER ENDPOINT JSON|@FILE`, or a complete step as JSON.

    Only the latter can have headers: the credentials of `--header` are for the first provider only.
    """
    if text.lstrip().startswith("{"):
        return {**_object("--fallback", text)}
    match text.split(maxsplit=2):
        case [provider, endpoint, data]:
            return {"provider": provider, "endpoint": endpoint, "query": _json("--fallback", data)}
        case _:
            raise _usage_error("--fallback", "expected 'PROVIDER ENDPOINT JSON|@FILE' or a step as JSON")


def request(first: Step, fallbacks: Sequence[Step], config: str | None) -> dict[str, Any]:
    settings = {} if config is None else {"config": _object("--config", config)}
    return {**settings, "steps": [first, *fallbacks]} if fallbacks else {**first, **settings}


def _headers(options: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for each in options:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise _usage_error("--header", "expected NAME:VALUE")  # the value may be a key, so it is not shown
        if name.strip().lower() in headers:
            raise _usage_error("--header", f"{name.strip()} is given twice")
        headers[name.strip().lower()] = value.strip()
    return headers


def _object(option: str, source: str) -> dict[str, Any]:
    value = _parsed(option, _read(option, source))
    if not isinstance(value, dict):
        raise _usage_error(option, "expected a JSON object")
    return value


def _json(option: str, source: str) -> orjson.Fragment:
    """Return the bytes unchanged after a check that they are JSON."""
    raw = _read(option, source)
    _parsed(option, raw)
    return orjson.Fragment(raw)


def _parsed(option: str, raw: bytes) -> Any:
    try:
        return parse(raw)
    except (ValueError, RecursionError) as error:
        raise _usage_error(option, f"is not JSON: {error}") from None


def _read(option: str, source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read().removeprefix(BOM_UTF8)
    if not source.startswith("@"):
        return source.encode(errors="surrogateescape")
    path = Path(source[1:])
    try:
        return path.expanduser().read_bytes().removeprefix(BOM_UTF8)
    except RuntimeError:  # raised by pathlib for the ~ of an unknown user
        raise _usage_error(option, f"{path} cannot be read: there is no such home directory") from None
    except OSError as error:
        raise _usage_error(option, f"{path} cannot be read: {error.strerror}") from None


def _usage_error(option: str, message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint=option)


SUCCESS, FAILED, NO_CONNECTION = 0, 1, 3


def call(request: Request, url: str, token: str | None, *, frames: bool, timeout_s: float | None) -> int:
    """Send the event and return the exit code. An interrupt cancels the event and raises KeyboardInterrupt."""
    printer = Printer(sys.stdout, sys.stderr, frames=frames)
    try:
        return asyncio.run(_run(request, url, token, printer, timeout_s))
    except CannotConnect as error:
        return _report(f"cannot connect to {redact_url(url)}: {error}", NO_CONNECTION)
    except CallFailed as error:
        return _report(str(error), FAILED)
    except TimeoutError:
        return _report(f"timeout after {timeout_s:g} s; the event is cancelled", FAILED)


async def _run(request: Request, url: str, token: str | None, printer: Printer, timeout_s: float | None) -> int:
    async with (
        asyncio.timeout(timeout_s),
        connect(url, token, reconnect=False) as bridge,
        bridge.create(request) as event,
    ):
        try:
            async for frame in event:
                printer.show(frame)
        finally:
            printer.end_line()
    printer.conclude(frame)
    return FAILED if frame.error else SUCCESS


def _report(message: str, code: int) -> int:
    typer.echo(f"bridge: {one_line(message)}", err=True)
    return code
