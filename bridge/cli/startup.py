"""Startup of `bridge serve`: prints the URLs, reports errors and tunes the garbage collector."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

from bridge.config import Configuration
from bridge.config.gateways import ANY
from bridge.net import describe_os_error


class CannotServe(Exception):
    """The server cannot start; the message says why."""


@contextmanager
def listen_errors(config: Configuration) -> Iterator[None]:
    """Convert an OSError to CannotServe with the address."""
    try:
        yield
    except OSError as error:
        raise CannotServe(
            f"cannot listen on {config.server.host}:{config.server.port}: {describe_os_error(error)}"
        ) from None


def urls(base: str, config: Configuration) -> list[str]:
    """Return the URL of each gateway. Parts in braces stand for any name."""
    names = ("{gateway}" if name == ANY else name for name in config.gateways)
    return [f"{base}/v1/{{account}}/{name}" for name in names]


def announce(base: str, config: Configuration) -> None:
    """Print the URLs to stdout; ignore a closed stdout."""
    try:
        typer.echo(f"ready {' '.join(urls(base, config))}")
    except OSError:
        # Otherwise Python fails again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


SWITCH_INTERVAL_S: Final = 0.001
"""Time after which the event loop lets another thread run. The threads that write logs release the GIL for each
statement; with Python's 5 ms they fall back behind a busy loop.
"""
GC_THRESHOLDS: Final = (10_000, 2, 2)
"""Thresholds of the garbage collector. Events leave no cycles; a closed socket leaves about 80 objects of aiohttp.

The default threshold of 700 objects is reached by a few dozen events in flight and costs an eighth of the CPU time.
These thresholds still collect old generations as early as the defaults, within 90,000 objects.
"""


def tune_interpreter() -> None:
    """Exclude all current objects from collection, collect the others less often, and let threads run more often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.enable()
