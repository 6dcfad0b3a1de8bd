"""`bridge serve`: a server from its configuration to its last socket."""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import typer

from bridge import __version__
from bridge.assembly import services_of
from bridge.cli.checking import refuse
from bridge.cli.replaying import Terms
from bridge.config import Config, ConfigError, load
from bridge.config.gateways import ANY
from bridge.logs import lines as loglines
from bridge.oserror import reason_of
from bridge.reload import reloading
from bridge.server import Server
from bridge.signals import first_signal
from bridge.upstream.http import Upstream
from bridge.upstream.recording import recording_transport
from bridge.upstream.tape import TapeError, TapeTransport
from bridge.upstream.transport import AiohttpTransport

log = logging.getLogger("bridge.server")


class CannotServe(Exception):
    """The message says why."""


@dataclass(frozen=True, slots=True)
class Tapes:
    """The folders to record to and to replay from; with both, what is replayed is recorded."""

    record: Path | None
    replay: Path | None
    how: Terms
    """How to replay."""


def serve(path: Path | None, flags: Mapping[str, object], tapes: Tapes) -> int:
    """Returns the exit code once a signal has ended it, or at once when it cannot begin."""
    try:
        config = load(path, os.environ, flags)
        loglines.setup(sys.stderr, config.server.log_format, config.server.log_level)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(config, partial(load, path, os.environ, flags), tapes))
    except ConfigError as error:
        return refuse(error, path)
    except CannotServe as error:
        typer.echo(f"bridge: {error}", err=True)
        return 1
    return 0


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's, where it installs."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _upstream(tapes: Tapes) -> Upstream:
    try:
        transport = AiohttpTransport() if tapes.replay is None else TapeTransport(tapes.replay, **tapes.how)
        return Upstream(transport if tapes.record is None else recording_transport(transport, tapes.record))
    except TapeError as error:
        raise CannotServe(str(error)) from None
    except OSError as error:
        raise CannotServe(f"cannot record to {tapes.record}: {reason_of(error)}") from None


async def _serve(config: Config, read: Callable[[], Config], tapes: Tapes) -> None:
    async with services_of(config) as services:
        if tapes.replay is not None:
            services = replace(services, keys=None)  # no tape has them, and no token is minted for one
        await _run(config, read, Server(config, _upstream(tapes), services))


async def _run(config: Config, read: Callable[[], Config], server: Server) -> None:
    try:
        await server.start()
    except OSError as error:
        raise CannotServe(f"cannot listen on {config.server.host}:{config.server.port}: {reason_of(error)}") from None
    stopped = first_signal()
    _announce(f"ready {' '.join(urls(server.url, config))}")
    log.info("started", extra={"fields": {"version": __version__, "pid": os.getpid()}})
    for note in config.notes:
        log.warning(note)
    _settle()
    async with reloading(config, read, partial(_reload, server)):
        number = await stopped
    log.info("draining", extra={"fields": {"signal": number.name}})
    await server.stop()
    log.info("stopped")


def _reload(server: Server, config: Config) -> None:
    server.reload(config)
    loglines.set_level(config.server.log_level)


def _settle() -> None:
    """What lives now lives long: the collector is to look at the rest only."""
    gc.collect()
    gc.freeze()
    gc.enable()


def urls(base: str, config: Config) -> list[str]:
    """What clients connect to, one per gateway; any word will do for what stands in braces."""
    names = ("{gateway}" if name == ANY else name for name in config.gateways)
    return [f"{base}/v1/{{account}}/{name}" for name in names]


def _announce(line: str) -> None:
    """To stdout, if anybody reads it."""
    try:
        typer.echo(line)
    except OSError:
        # Else Python fails once more, when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
