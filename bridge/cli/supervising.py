"""`bridge serve` with several workers: what is settled before any of them begins, and then their supervisor."""

import asyncio
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

from bridge import __version__
from bridge.cli.ready import CannotServe, announce, listening, settle
from bridge.config import Config, ConfigError, Problem
from bridge.listening import Listeners, url_of
from bridge.oserror import reason_of
from bridge.supervisor import WorkerFailed, supervise
from bridge.tls import server_context

log = logging.getLogger("bridge.supervisor")


def serve_by_workers(config: Config, replay: Path | None) -> int:
    """The exit code. Raises ConfigError, CannotServe."""
    _check(config, replay)
    server = config.server
    with listening(config):
        listeners = Listeners(server.host, server.port)
    url = url_of(listeners.address, tls=server_context(server) is not None)
    ready = partial(_ready, url, config)
    try:
        again = asyncio.run(supervise(_command(), server.workers, listeners, server.drain_timeout / 1000, ready))
    except WorkerFailed as error:
        return error.code
    except OSError as error:
        raise CannotServe(f"cannot start a worker: {reason_of(error)}") from None
    finally:
        listeners.close()
    if again is not None:
        signal.signal(again, signal.SIG_DFL)
        signal.raise_signal(again)
    log.info("stopped")
    return 0


def _check(config: Config, replay: Path | None) -> None:
    """What one process can do and several cannot."""
    if sys.platform == "win32":
        raise ConfigError([Problem("workers", None, "Windows runs one process")])
    if replay is not None:
        message = "each worker would play the tapes from their beginning: replay with one"
        raise ConfigError([Problem("workers", None, message)])


def _command() -> list[str]:
    """This very one: whichever interpreter, script or module it was, with all its arguments."""
    return [sys.executable, *sys.orig_argv[1:]]


def _ready(url: str, config: Config) -> None:
    announce(url, config)
    told = {"version": __version__, "pid": os.getpid(), "workers": config.server.workers}
    log.info("supervising", extra={"fields": told})
    for note in config.notes:
        log.warning(note)
    settle()
