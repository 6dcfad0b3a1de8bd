"""One process that serves: a server from its services to its last socket."""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bridge import __version__
from bridge.assembly import services_of
from bridge.cli.ready import CannotServe, announce, listening, settle
from bridge.cli.replaying import Tapes
from bridge.config import Config
from bridge.logs import lines as loglines
from bridge.oserror import reason_of
from bridge.realtime.replaying import TapeDialler
from bridge.reload import reloading
from bridge.server import Server
from bridge.services import readings
from bridge.signals import first_signal
from bridge.upstream.http import Upstream
from bridge.upstream.realtime import Dialler, Dials
from bridge.upstream.recording import recording_transport
from bridge.upstream.socket_recording import RecordingDialler
from bridge.upstream.tape import TapeError, TapeTransport
from bridge.upstream.tape_desk import Desk
from bridge.upstream.transport import AiohttpTransport
from bridge.worker import Worker

log = logging.getLogger("bridge.server")


def run(config: Config, read: Callable[[], Config], tapes: Tapes, worker: Worker | None) -> None:
    """Until a signal ends it. `read` reads the configuration anew. Raises ConfigError, CannotServe."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(config, read, tapes, worker))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's, where it installs."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _providers(tapes: Tapes) -> tuple[Upstream, Dials, Desk | None]:
    """Return what calls them, what dials their sockets, and what writes tapes of both. Raises CannotServe."""
    try:
        played = None if tapes.replay is None else TapeTransport(tapes.replay, **tapes.how)
        transport, dialler = (played, TapeDialler(played.library)) if played else (AiohttpTransport(), Dialler())
        if tapes.record is None:
            return Upstream(transport), dialler, None
        recording = recording_transport(transport, tapes.record)
        return Upstream(recording), RecordingDialler(dialler, recording.desk), recording.desk
    except TapeError as error:
        raise CannotServe(str(error)) from None
    except OSError as error:
        raise CannotServe(f"cannot record to {tapes.record}: {reason_of(error)}") from None


async def _serve(config: Config, read: Callable[[], Config], tapes: Tapes, worker: Worker | None) -> None:
    async with services_of(config, worker.folder if worker else None) as services:
        if tapes.replay is not None:
            services = replace(services, keys=None)  # no tape has them, and no token is minted for one
        upstream, dialler, desk = _providers(tapes)
        if desk is not None and services.meter is not None:
            services.meter.watch(partial(readings.of_tapes, desk))
        await _run(config, read, Server(config, upstream, services, dialler), worker)


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
        settle()
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
