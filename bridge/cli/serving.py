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
from bridge.cli.ready import CannotServe, announce, listening
from bridge.cli.replaying import Terms
from bridge.config import Config, ConfigError, load
from bridge.logs import lines as loglines
from bridge.oserror import reason_of
from bridge.reload import reloading
from bridge.server import Server
from bridge.signals import first_signal
from bridge.upstream.http import Upstream
from bridge.upstream.recording import recording_transport
from bridge.upstream.tape import TapeError, TapeTransport
from bridge.upstream.transport import AiohttpTransport
from bridge.worker import Worker, this_worker

log = logging.getLogger("bridge.server")


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
        worker = this_worker(os.environ)
        if worker is None and config.server.workers > 1:
            from bridge.cli.supervising import serve_by_workers

            return serve_by_workers(config, tapes.replay)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(config, partial(load, path, os.environ, flags), tapes, worker))
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


async def _serve(config: Config, read: Callable[[], Config], tapes: Tapes, worker: Worker | None) -> None:
    async with services_of(config, worker.folder if worker else None) as services:
        if tapes.replay is not None:
            services = replace(services, keys=None)  # no tape has them, and no token is minted for one
        await _run(config, read, Server(config, _upstream(tapes), services), worker)


async def _run(config: Config, read: Callable[[], Config], server: Server, worker: Worker | None) -> None:
    with listening(config):
        await server.start(worker.listening if worker else ())
    stopped = first_signal()
    async with reloading(config, read, partial(_reload, server)):
        if worker is None:
            announce(server.url, config)
        else:
            worker.listens(stopped)
        _tell_started(config, worker)
        _settle()
        number = await stopped
    log.info("draining", extra={"fields": {"signal": number.name}})
    await server.stop()
    log.info("stopped")


def _tell_started(config: Config, worker: Worker | None) -> None:
    """A worker's supervisor tells the notes, once for all."""
    number = {} if worker is None else {"worker": worker.number}
    log.info("started", extra={"fields": {"version": __version__, "pid": os.getpid(), **number}})
    for note in config.notes if worker is None else ():
        log.warning(note)


def _reload(server: Server, config: Config) -> None:
    server.reload(config)
    loglines.set_level(config.server.log_level)


def _settle() -> None:
    """What lives now lives long: the collector is to look at the rest only."""
    gc.collect()
    gc.freeze()
    gc.enable()
