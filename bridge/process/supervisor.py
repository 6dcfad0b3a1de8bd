"""`bridge serve --workers N`: start N processes that listen on one port, and replace each one that dies.

gunicorn is not used: its aiohttp worker creates the server itself, while the bridge's server has deadlines for silent
connections, handshakes and TLS, and drains events and sockets separately. gunicorn would also replace half of the
command line.

Each worker has a listening socket of its own (SO_REUSEPORT, Linux), because a WebSocket stays with the process that
accepted it, and sockets of their own balance better: of 400 connections the busier of two workers got 201 to 215 with a
socket for each, and 205 to 282 with a shared one, in ten runs. Where the kernel does not balance, workers share one
socket (`bridge.process.listeners`).

A worker runs the same command with its sockets in the environment. It drains when its pipe closes, which also happens
if the supervisor is killed. A signal is not used for this: a terminal and systemd have sent it to each process already,
and a second one means "end at once".
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
from bridge.policy.backoff import next_delay_s
from bridge.process.listeners import Listeners
from bridge.process.signals import ENDING, shutdown_signal
from bridge.process.worker import READY, VARIABLE, WorkerArgs
from bridge.tasks import Tasks

log = logging.getLogger("bridge.supervisor")

START_S: Final = 60.0
"""The time in which a worker has to listen."""
STEADY_S: Final = 10.0
"""A worker that lived this long is replaced at once; otherwise the pause before the next one doubles."""
FIRST_PAUSE_S: Final = 0.5
LAST_PAUSE_S: Final = 30.0
MARGIN_S: Final = 10.0
"""The time after the deadline of a drain, after which a worker is killed."""


class WorkerFailed(Exception):
    """A worker ended before it listened; it has logged the reason."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a worker did not start: {_describe_exit(code)}")
        self.code = code if code > 0 else 1


@dataclass(slots=True)
class _Process:
    """A worker's process; owns the supervisor's end of its pipe."""

    number: int
    process: asyncio.subprocess.Process
    pipe: socket.socket
    started_at: float
    reloads: int
    """The number of reloads that were requested before the worker started or that it has received."""
    is_ready: bool = False

    async def wait_ready(self) -> bool:
        """Wait until the worker listens; return False if it ended, or if it was killed after `START_S`."""
        try:
            async with asyncio.timeout(START_S):
                self.is_ready = await asyncio.get_running_loop().sock_recv(self.pipe, 1) == READY
        except (TimeoutError, OSError):
            self.kill()
        return self.is_ready

    async def wait_exit(self) -> int:
        """Wait until the worker ends; return its exit code, negative for the number of a signal."""
        code = await self.process.wait()
        self.pipe.close()
        return code

    def request_stop(self) -> None:
        with suppress(OSError):  # the worker has ended
            self.pipe.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()

    def reload(self) -> None:
        """Send SIGHUP, if the worker listens; before that, the signal would end it."""
        if self.is_ready:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGHUP)


class Supervisor:
    """Owns the workers. Call `start`, then `stop`."""

    def __init__(self, command: Sequence[str], workers: int, listeners: Listeners, folder: str) -> None:
        """Each worker runs `command`; all of them share `folder`."""
        self._command = command
        self._count = workers
        self._listeners = listeners
        self._folder = folder
        self._workers: dict[int, _Process] = {}
        self._tasks = Tasks()
        self._reloads = 0

    async def start(self) -> None:
        """Return when all workers listen. Raises WorkerFailed.

        The first worker starts alone, so that a fault that all workers share is logged once.
        """
        started = [await self._start_worker(1)]
        others = (self._start_worker(number) for number in range(2, self._count + 1))
        for other in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(other, BaseException):
                raise other
            started.append(other)
        for process in started:
            self._tasks.start(self._respawn_loop(process), f"worker {process.number}")

    async def stop(self, within_s: float) -> None:
        """Request all workers to stop, and kill those that still run after `within_s`."""
        await self._tasks.cancel_all()
        for process in self._workers.values():
            process.request_stop()
        ends = asyncio.gather(*(process.wait_exit() for process in self._workers.values()))
        try:
            await asyncio.wait_for(asyncio.shield(ends), within_s)
        except TimeoutError:
            log.error("workers did not end in time; killing them")
            self.kill()
            await ends

    def reload(self) -> None:
        """Forward SIGHUP to all workers."""
        self._reloads += 1
        for process in self._workers.values():
            self._forward_reload(process)

    def kill(self) -> None:
        for process in self._workers.values():
            process.kill()

    async def _start_worker(self, number: int) -> _Process:
        process = await self._spawn(number)
        if not await process.wait_ready():
            raise WorkerFailed(await process.wait_exit())
        self._forward_reload(process)
        return process

    async def _respawn_loop(self, process: _Process) -> None:
        """Wait until the worker ends, and start another one in its place; forever."""
        pause_s = 0.0
        while True:
            code = await process.wait_exit()
            pause_s = _pause_s(asyncio.get_running_loop().time() - process.started_at, pause_s)
            why = _describe_exit(code)
            details = {"worker": process.number, "pid": process.process.pid, "why": why, "pause_s": pause_s}
            log.warning("a worker ended; starting another one", extra={"fields": details})
            await asyncio.sleep(pause_s)
            process = await self._replace(process.number)
            await process.wait_ready()
            self._forward_reload(process)

    async def _replace(self, number: int) -> _Process:
        """Start a worker; retry until the system has enough processes and descriptors."""
        while True:
            try:
                return await self._spawn(number)
            except OSError as error:
                details = {"worker": number, "reason": describe_os_error(error), "pause_s": LAST_PAUSE_S}
                log.error("cannot start a worker; trying again", extra={"fields": details})
                await asyncio.sleep(LAST_PAUSE_S)

    def _forward_reload(self, process: _Process) -> None:
        """Send the worker a reload that was requested while it started, which it may have missed."""
        if process.is_ready and process.reloads != self._reloads:
            process.reloads = self._reloads
            process.reload()

    async def _spawn(self, number: int) -> _Process:
        ours, theirs = socket.socketpair()
        listening = self._listeners.for_worker()
        args = WorkerArgs(number, theirs.fileno(), tuple(sock.fileno() for sock in listening), self._folder)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(args.pipe, *args.listening),
                env={**os.environ, VARIABLE: args.to_text()},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            for sock in (theirs, *listening):
                sock.close()
        ours.setblocking(False)
        began_at = asyncio.get_running_loop().time()
        self._workers[number] = _Process(number, process, ours, began_at, self._reloads)
        return self._workers[number]


async def supervise(
    command: Sequence[str], workers: int, listeners: Listeners, drain_s: float, on_ready: Callable[[], None]
) -> signal.Signals | None:
    """Run workers until a shutdown signal, and return when all have ended. `on_ready` is called once all listen.

    Returns the second signal if one ended the workers at once. Raises WorkerFailed, and OSError if no process can be
    started.
    """
    loop, stopped = asyncio.get_running_loop(), shutdown_signal()
    second: list[signal.Signals] = []
    with TemporaryDirectory(prefix="bridge-workers-", ignore_cleanup_errors=True) as folder:
        supervisor = Supervisor(command, workers, listeners, folder)
        loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
        starting = asyncio.create_task(_start(supervisor, on_ready), name="start")
        try:
            await _wait_first(starting, stopped)
            number = await stopped
            for handled in ENDING:
                loop.add_signal_handler(handled, _end_at_once, supervisor, handled, second)
            log.info("draining", extra={"fields": {"signal": number.name}})
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await supervisor.stop(drain_s + MARGIN_S)
    return second[0] if second else None


async def _start(supervisor: Supervisor, on_ready: Callable[[], None]) -> None:
    await supervisor.start()
    on_ready()


async def _wait_first(starting: "asyncio.Task[None]", stopped: "asyncio.Future[signal.Signals]") -> None:
    """Wait until the start or the stop is done; raise the error of a failed start."""
    futures: list[asyncio.Future[Any]] = [starting, stopped]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()


def _end_at_once(supervisor: Supervisor, number: signal.Signals, second: list[signal.Signals]) -> None:
    second.append(number)
    supervisor.kill()


def _pause_s(lived_s: float, last_s: float) -> float:
    """Return the pause before the next worker starts."""
    return 0.0 if lived_s >= STEADY_S else next_delay_s(last_s, FIRST_PAUSE_S, LAST_PAUSE_S)


def _describe_exit(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
