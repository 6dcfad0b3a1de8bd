"""How `bridge serve` says that it serves, and where, or why it cannot."""

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
    """The message says why."""


@contextmanager
def listen_errors(config: Configuration) -> Iterator[None]:
    """What goes wrong within is the address's fault."""
    try:
        yield
    except OSError as error:
        raise CannotServe(
            f"cannot listen on {config.server.host}:{config.server.port}: {describe_os_error(error)}"
        ) from None


def urls(base: str, config: Configuration) -> list[str]:
    """What clients connect to, one per gateway; any word will do for what stands in braces."""
    names = ("{gateway}" if name == ANY else name for name in config.gateways)
    return [f"{base}/v1/{{account}}/{name}" for name in names]


def announce(base: str, config: Configuration) -> None:
    """To stdout, if anybody reads it."""
    try:
        typer.echo(f"ready {' '.join(urls(base, config))}")
    except OSError:
        # Else Python fails once more, when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


COLLECTED_AT: Final = (10_000, 2, 2)
"""When the collector looks for circles: an event leaves none behind, but a closed socket some 80 objects of aiohttp's.

By default it looks at whatever lives once there are 700 more, which a few dozen events in flight are at any time: an
eighth of all work. With these numbers it finds as early as by default what has become old, within 90,000 objects.
"""


def tune_gc() -> None:
    """What lives now lives long: the collector is to look at the rest only, and seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AT)
    gc.enable()
