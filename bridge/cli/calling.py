"""`bridge call`: one event, from a connection to its exit code."""

import asyncio
import sys

import typer

from bridge import redact
from bridge.cli.printing import Printer
from bridge.client import CallFailed, CannotConnect, Request, connect
from bridge.terminal import one_line

SUCCESS, FAILED, NO_CONNECTION = 0, 1, 3


def call(request: Request, url: str, token: str | None, *, frames: bool, timeout_s: float | None) -> int:
    """The exit code. An interrupt leaves the event, which cancels it, and comes out as KeyboardInterrupt."""
    printer = Printer(sys.stdout, sys.stderr, frames=frames)
    try:
        return asyncio.run(_run(request, url, token, printer, timeout_s))
    except CannotConnect as error:
        return _told(f"cannot connect to {redact.url(url)}: {error}", NO_CONNECTION)
    except CallFailed as error:
        return _told(str(error), FAILED)
    except TimeoutError:
        return _told(f"not over within {timeout_s:g} s, and cancelled", FAILED)


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


def _told(message: str, code: int) -> int:
    typer.echo(f"bridge: {one_line(message)}", err=True)
    return code
