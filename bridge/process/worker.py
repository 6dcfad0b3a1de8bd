"""One of several processes that serve, as it sees itself: what its supervisor gave it, and how it hears that it is to
end.

A pipe leads to the supervisor. A byte on it says that this one listens. Its end means: finish. The system brings that
about too when the supervisor is killed, so no worker outlives it for longer than its drain.
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
"""In the environment of a worker, and of no other process."""
READY: Final = b"\n"


@dataclass(frozen=True, slots=True)
class WorkerArgs:
    """Descriptors are numbers of this process."""

    number: int
    """From 1. Who takes a dead worker's place has its number."""
    pipe: int
    listening: tuple[int, ...]
    folder: str
    """What all workers may write to, and their supervisor removes."""

    def to_text(self) -> str:
        return json.dumps((self.number, self.pipe, self.listening, self.folder))

    @staticmethod
    def from_text(text: str) -> "WorkerArgs":
        number, pipe, listening, folder = json.loads(text)
        return WorkerArgs(number, pipe, tuple(listening), folder)


class Worker:
    def __init__(self, args: WorkerArgs) -> None:
        self.number = args.number
        self.folder = Path(args.folder)
        self.listening = [_ours(number) for number in args.listening]
        """Bound, and not listening yet."""
        self._pipe = _ours(args.pipe)

    def notify_ready(self, ended: "asyncio.Future[signal.Signals]") -> None:
        """Tell the supervisor. From then on `ended` is done when the supervisor says so, or is no more."""
        asyncio.get_running_loop().add_reader(self._pipe, self._hear, ended)
        with suppress(OSError):  # then its end of the pipe is closed, and we will hear that
            self._pipe.send(READY)

    def _hear(self, ended: "asyncio.Future[signal.Signals]") -> None:
        asyncio.get_running_loop().remove_reader(self._pipe)
        if not ended.done():
            ended.set_result(signal.SIGTERM)


def this_worker(environ: MutableMapping[str, str]) -> Worker | None:
    """What this process was given, once: those that it starts itself are no workers. None if it is no worker."""
    given = environ.pop(VARIABLE, None)
    return Worker(WorkerArgs.from_text(given)) if given else None


def _ours(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)
