"""`bridge serve --workers N`: starts N processes that listen on one port, and one more for each that dies.

A supervisor of our own, and not gunicorn's: its aiohttp worker makes an aiohttp application's server itself, while our
server has its own (silent connections, handshakes and TLS have deadlines, a drain tells events from sockets), and it
would be half of the command line besides. What is left to do is little: sockets, a pipe each, and to wait.

Each worker has a listening socket of its own (SO_REUSEPORT, Linux), for a WebSocket stays where it was accepted, and
from one socket for all, whoever wakes first takes what waits: of 400 connections the busier of two workers got 201 to
215 with a socket for each, and 205 to 282 with one for both, in ten runs. Where the kernel does not balance, they do
share one (`bridge.process.listeners`).

A worker is this very command, run again with its sockets in the environment. It ends when its pipe does, which is how
it is told to drain, and what becomes of it if the supervisor is killed. Not by a signal: from a terminal and from
systemd each process has got that already, and a second one means "at once".
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Final

from bridge.net import describe_os_error
from bridge.process.listeners import Listeners
from bridge.process.signals import ENDING, shutdown_signal
from bridge.process.worker import READY, VARIABLE, WorkerArgs
from bridge.tasks import Tasks

log = logging.getLogger("bridge.supervisor")

START_S: Final = 60.0
"""How long a worker may take until it listens."""
STEADY_S: Final = 10.0
"""Who has lived so long is replaced at once; of others, each next one waits for twice as long as the one before."""
FIRST_PAUSE_S: Final = 0.5
LAST_PAUSE_S: Final = 30.0
MARGIN_S: Final = 10.0
"""Beyond the drain's own deadline: then a worker is killed."""


class WorkerFailed(Exception):
    """A worker ended before it listened, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a worker could not start: {_shown(code)}")
        self.code = code if code > 0 else 1


@dataclass(slots=True)
class _Process:
    """A worker as it is seen from here. Owns its pipe."""

    number: int
    process: asyncio.subprocess.Process
    pipe: socket.socket
    started_at: float
    reloads: int
    """How many had been asked for when it began."""
    is_ready: bool = False

    async def wait_ready(self) -> bool:
        """False if it ended, or was killed because it took too long."""
        try:
            async with asyncio.timeout(START_S):
                self.is_ready = await asyncio.get_running_loop().sock_recv(self.pipe, 1) == READY
        except (TimeoutError, OSError):
            self.kill()
        return self.is_ready

    async def wait_exit(self) -> int:
        """Its exit code; of a signal, its negative number."""
        code = await self.process.wait()
        self.pipe.close()
        return code

    def request_stop(self) -> None:
        with suppress(OSError):  # it is gone
            self.pipe.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()

    def reload(self) -> None:
        """Not before it listens: until then the signal would be its end."""
        if self.is_ready:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGHUP)


class Supervisor:
    """Owns the workers. `start`, then `stop`."""

    def __init__(self, command: Sequence[str], workers: int, listeners: Listeners, folder: str) -> None:
        """`command` is what each of them runs; `folder` is theirs to share."""
        self._command = command
        self._count = workers
        self._listeners = listeners
        self._folder = folder
        self._workers: dict[int, _Process] = {}
        self._tasks = Tasks()
        self._reloads = 0

    async def start(self) -> None:
        """Returns when all listen. Raises WorkerFailed; the first begins alone, so that what ails all is told once."""
        began = [await self._begin(1)]
        others = (self._begin(number) for number in range(2, self._count + 1))
        for other in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(other, BaseException):
                raise other
            began.append(other)
        for process in began:
            self._tasks.start(self._respawn_loop(process), f"worker {process.number}")

    async def stop(self, within_s: float) -> None:
        """Dismiss all; who is there still after so long is killed."""
        await self._tasks.cancel_all()
        for process in self._workers.values():
            process.request_stop()
        ends = asyncio.gather(*(process.wait_exit() for process in self._workers.values()))
        try:
            await asyncio.wait_for(asyncio.shield(ends), within_s)
        except TimeoutError:
            log.error("workers did not end in time, and are killed")
            self.kill()
            await ends

    def reload(self) -> None:
        """Pass SIGHUP on."""
        self._reloads += 1
        for process in self._workers.values():
            self._forward_reload(process)

    def kill(self) -> None:
        for process in self._workers.values():
            process.kill()

    async def _begin(self, number: int) -> _Process:
        process = await self._spawn(number)
        if not await process.wait_ready():
            raise WorkerFailed(await process.wait_exit())
        self._forward_reload(process)
        return process

    async def _respawn_loop(self, process: _Process) -> None:
        """One of the workers' places: whoever dies in it is replaced."""
        pause_s = 0.0
        while True:
            code = await process.wait_exit()
            pause_s = _pause_s(asyncio.get_running_loop().time() - process.started_at, pause_s)
            told = {"worker": process.number, "pid": process.process.pid, "why": _shown(code), "pause_s": pause_s}
            log.warning("a worker ended, and is replaced", extra={"fields": told})
            await asyncio.sleep(pause_s)
            process = await self._replace(process.number)
            await process.wait_ready()
            self._forward_reload(process)

    async def _replace(self, number: int) -> _Process:
        """For as long as it takes: the system may be out of processes or descriptors."""
        while True:
            try:
                return await self._spawn(number)
            except OSError as error:
                told = {"worker": number, "reason": describe_os_error(error), "pause_s": LAST_PAUSE_S}
                log.error("a worker cannot be started", extra={"fields": told})
                await asyncio.sleep(LAST_PAUSE_S)

    def _forward_reload(self, process: _Process) -> None:
        """What was asked for while it began it may have missed."""
        if process.is_ready and process.reloads != self._reloads:
            process.reloads = self._reloads
            process.reload()

    async def _spawn(self, number: int) -> _Process:
        ours, theirs = socket.socketpair()
        listening = self._listeners.for_worker()
        given = WorkerArgs(number, theirs.fileno(), tuple(each.fileno() for each in listening), self._folder)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(given.pipe, *given.listening),
                env={**os.environ, VARIABLE: given.to_text()},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            for each in (theirs, *listening):
                each.close()
        ours.setblocking(False)
        began_at = asyncio.get_running_loop().time()
        self._workers[number] = _Process(number, process, ours, began_at, self._reloads)
        return self._workers[number]


async def supervise(
    command: Sequence[str], workers: int, listeners: Listeners, drain_s: float, on_ready: Callable[[], None]
) -> signal.Signals | None:
    """Until a signal ends it, and then until all workers have ended; `on_ready` is called once all listen.

    Returns the second signal, if one came and was the workers' end. Raises WorkerFailed, and OSError where none can be
    started.
    """
    loop, stopped = asyncio.get_running_loop(), shutdown_signal()
    second: list[signal.Signals] = []
    with TemporaryDirectory(prefix="bridge-workers-", ignore_cleanup_errors=True) as folder:
        supervisor = Supervisor(command, workers, listeners, folder)
        loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
        starting = asyncio.create_task(_start(supervisor, on_ready), name="start")
        try:
            await _either(starting, stopped)
            number = await stopped
            for each in ENDING:
                loop.add_signal_handler(each, _end_at_once, supervisor, each, second)
            log.info("draining", extra={"fields": {"signal": number.name}})
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await supervisor.stop(drain_s + MARGIN_S)
    return second[0] if second else None


async def _start(supervisor: Supervisor, on_ready: Callable[[], None]) -> None:
    await supervisor.start()
    on_ready()


async def _either(starting: "asyncio.Task[None]", stopped: "asyncio.Future[signal.Signals]") -> None:
    """Whichever is first; raises what the start does."""
    either: list[asyncio.Future[Any]] = [starting, stopped]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()


def _end_at_once(supervisor: Supervisor, number: signal.Signals, second: list[signal.Signals]) -> None:
    second.append(number)
    supervisor.kill()


def _pause_s(lived_s: float, last_s: float) -> float:
    """Before the next one begins."""
    return 0.0 if lived_s >= STEADY_S else min(2 * last_s, LAST_PAUSE_S) or FIRST_PAUSE_S


def _shown(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
