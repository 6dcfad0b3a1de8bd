"""The worker's side of `bridge serve --workers N`: its arguments, and the pipe to its supervisor.

The worker writes one byte to the pipe when it listens, and drains when the pipe closes. The system closes the pipe if
the supervisor is killed, so no worker outlives its supervisor for longer than a drain.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "BRIDGE_WORKER"
"""The environment variable with the worker's arguments; no other process has it."""
READY: Final = b"\n"
"""The byte that reports a listening worker."""


@dataclass(frozen=True, slots=True)
class WorkerArgs:
    """Arguments of a worker. Descriptors are those of the worker's process."""

    number: int
    """The number of the worker, from 1. The replacement of a dead worker has the same number."""
    pipe: int
    listening: tuple[int, ...]
    folder: str
    """A folder that all workers may write to; their supervisor removes it."""

    def to_text(self) -> str:
        return json.dumps((self.number, self.pipe, self.listening, self.folder))

    @staticmethod
    def from_text(text: str) -> "WorkerArgs":
        number, pipe, listening, folder = json.loads(text)
        return WorkerArgs(number, pipe, tuple(listening), folder)


class Worker:
    """This process as a worker; owns its listening sockets and its end of the pipe."""

    def __init__(self, args: WorkerArgs) -> None:
        self.number = args.number
        self.folder = Path(args.folder)
        self.listening = [_adopt(number) for number in args.listening]
        """Sockets that are bound but do not listen yet."""
        self._pipe = _adopt(args.pipe)

    def notify_ready(self, ended: "asyncio.Future[signal.Signals]") -> None:
        """Report that the worker listens. `ended` gets a result when the supervisor requests a stop or has ended."""
        asyncio.get_running_loop().add_reader(self._pipe, self._on_pipe_closed, ended)
        with suppress(OSError):  # the supervisor's end is closed, which `_on_pipe_closed` reports
            self._pipe.send(READY)

    def _on_pipe_closed(self, ended: "asyncio.Future[signal.Signals]") -> None:
        asyncio.get_running_loop().remove_reader(self._pipe)
        if not ended.done():
            ended.set_result(signal.SIGTERM)


def this_worker(environ: MutableMapping[str, str]) -> Worker | None:
    """Return this process as a worker, or None if it is not one.

    The arguments are removed from `environ`, so that processes which this one starts do not count as workers.
    """
    args = environ.pop(VARIABLE, None)
    return Worker(WorkerArgs.from_text(args)) if args else None


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)
