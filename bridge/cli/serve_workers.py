"""`bridge serve` with several workers: checks the configuration, binds the sockets and runs the supervisor."""

import asyncio
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

from bridge import __version__
from bridge.cli.startup import CannotServe, announce, listen_errors, tune_interpreter
from bridge.config import ConfigError, Configuration, Problem
from bridge.net import describe_os_error
from bridge.process.listeners import Listeners, url_of
from bridge.process.supervisor import WorkerFailed, supervise
from bridge.server.tls import server_context

log = logging.getLogger("bridge.supervisor")


def serve_by_workers(config: Configuration, replay: Path | None) -> int:
    """Run the supervisor and return the exit code. Raises ConfigError, CannotServe."""
    _check(config, replay)
    server = config.server
    with listen_errors(config):
        listeners = Listeners(server.host, server.port)
    url = url_of(listeners.address, tls=server_context(server) is not None)
    ready = partial(_ready, url, config)
    try:
        again = asyncio.run(supervise(_command(), server.workers, listeners, server.drain_timeout / 1000, ready))
    except WorkerFailed as error:
        return error.code
    except OSError as error:
        raise CannotServe(f"cannot start a worker: {describe_os_error(error)}") from None
    finally:
        listeners.close()
    if again is not None:
        signal.signal(again, signal.SIG_DFL)
        signal.raise_signal(again)
    log.info("stopped")
    return 0


def _check(config: Configuration, replay: Path | None) -> None:
    """Raise ConfigError for configurations that need a single process."""
    if sys.platform == "win32":
        raise ConfigError([Problem("workers", None, "Windows supports only one process")])
    if replay is not None:
        message = "each worker would play the tapes from the beginning: use one worker for a replay"
        raise ConfigError([Problem("workers", None, message)])


def _command() -> list[str]:
    """Return the command line of this process: interpreter, script or module, and arguments."""
    return [sys.executable, *sys.orig_argv[1:]]


def _ready(url: str, config: Configuration) -> None:
    announce(url, config)
    fields = {"version": __version__, "pid": os.getpid(), "workers": config.server.workers}
    log.info("supervising", extra={"fields": fields})
    for note in config.notes:
        log.warning(note)
    tune_interpreter()
