"""Runs one serving process: builds services and providers, starts the server and drains it."""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bridge import __version__
from bridge.cli.replay import Tapes
from bridge.cli.startup import CannotServe, announce, listen_errors, tune_interpreter
from bridge.config import Configuration
from bridge.logs import format as loglines
from bridge.net import describe_os_error
from bridge.process.reload import reloading
from bridge.process.signals import shutdown_signal
from bridge.process.worker import Worker
from bridge.replay.socket_connector import TapeConnector
from bridge.server.server import Server
from bridge.services.build import build_services, tape_samples
from bridge.tapes.recorder import recording_transport
from bridge.tapes.socket_recorder import RecordingConnector
from bridge.tapes.transport import TapeError, TapeTransport
from bridge.tapes.writer import RecordingThread
from bridge.upstream.http import Upstream
from bridge.upstream.realtime import Connector, ConnectorProtocol
from bridge.upstream.transport import HttpTransport

log = logging.getLogger("bridge.server")


def run(config: Configuration, read: Callable[[], Configuration], tapes: Tapes, worker: Worker | None) -> None:
    """Serve until a signal. `read` reads the configuration again. Raises ConfigError, CannotServe."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(config, read, tapes, worker))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop factory if uvloop is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _providers(tapes: Tapes) -> tuple[Upstream, ConnectorProtocol, RecordingThread | None]:
    """Return the HTTP upstream, the socket connector and the recording thread. Raises CannotServe."""
    try:
        played = None if tapes.replay is None else TapeTransport(tapes.replay, **tapes.how)
        transport, connector = (played, TapeConnector(played.library)) if played else (HttpTransport(), Connector())
        if tapes.record is None:
            return Upstream(transport), connector, None
        recording = recording_transport(transport, tapes.record)
        return (
            Upstream(recording),
            RecordingConnector(connector, recording.recording_thread),
            recording.recording_thread,
        )
    except TapeError as error:
        raise CannotServe(str(error)) from None
    except OSError as error:
        raise CannotServe(f"cannot record to {tapes.record}: {describe_os_error(error)}") from None


async def _serve(config: Configuration, read: Callable[[], Configuration], tapes: Tapes, worker: Worker | None) -> None:
    async with build_services(config, worker.folder if worker else None) as services:
        if tapes.replay is not None:
            services = replace(services, keys=None)  # tapes contain no keys, and no token is requested for them
        upstream, connector, recording_thread = _providers(tapes)
        if recording_thread is not None and services.meter is not None:
            services.meter.register(partial(tape_samples, recording_thread))
        await _run(config, read, Server(config, upstream, services, connector), worker)


async def _run(config: Configuration, read: Callable[[], Configuration], server: Server, worker: Worker | None) -> None:
    with listen_errors(config):
        await server.start(worker.listening if worker else ())
    stopped = shutdown_signal()
    async with reloading(config, read, partial(_reload, server)):
        if worker is None:
            announce(server.url, config)
        else:
            worker.notify_ready(stopped)
        _log_started(config, worker)
        tune_interpreter()
        number = await stopped
    log.info("draining", extra={"fields": {"signal": number.name}})
    await server.stop()
    log.info("stopped")


def _log_started(config: Configuration, worker: Worker | None) -> None:
    """Log the start. With workers, the supervisor logs the notes of the configuration once."""
    number = {} if worker is None else {"worker": worker.number}
    log.info("started", extra={"fields": {"version": __version__, "pid": os.getpid(), **number}})
    for note in config.notes if worker is None else ():
        log.warning(note)


def _reload(server: Server, config: Configuration) -> None:
    server.reload(config)
    loglines.set_level(config.server.log_level)
