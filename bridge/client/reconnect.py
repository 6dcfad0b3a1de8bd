"""Keeps one socket to a bridge open and reconnects when it is lost. It sends nothing twice."""

import asyncio
import logging
import random
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Final

from bridge.client.connection import CLOSED_BY_CLIENT, ClientConnection
from bridge.client.errors import CallFailed, CannotConnect, ConnectionLost
from bridge.client.frame_queue import FrameQueue
from bridge.client.handshake import Endpoint, open_socket
from bridge.tasks import Tasks

log = logging.getLogger("bridge.client")

STEADY_S: Final = 10.0
"""A connection that lasted this long resets the count of failures."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Policy for a lost socket: exponential backoff with full jitter.

    The jitter keeps the clients of a restarted bridge from reconnecting all at once.
    """

    first_s: float = 0.5
    max_s: float = 30.0
    """Longest pause."""
    wait_s: float = 30.0
    """Longest time that a new event waits for a connection before it raises CannotConnect."""
    chance: Callable[[], float] = random.random
    """Random number in [0, 1)."""

    def pause_s(self, failures: int) -> float:
        """Return the pause after this number of consecutive failures, counted from 1."""
        longest_s = self.first_s * 2.0 ** min(failures - 1, 32)
        return self.chance() * min(longest_s, self.max_s)


class Reconnector:
    """Holds at most one connection, with no more than `max_in_flight` events on it."""

    def __init__(
        self, endpoint: Endpoint, reconnect: Reconnect | None, heartbeat_s: float | None, max_in_flight: int
    ) -> None:
        self._endpoint = endpoint
        self._reconnect = reconnect
        self._heartbeat_s = heartbeat_s
        self._room = asyncio.Semaphore(max_in_flight)
        self._tasks = Tasks()
        self._connection: ClientConnection | None = None
        self._was_connected = False
        self._settled = asyncio.Event()
        """Set while there is a connection, and once there will be none."""
        self._last_error: CallFailed | None = None
        """The latest failure."""
        self._is_closed = False

    async def open(self) -> None:
        """Connect once and report a failure of the first attempt at once. Raises CannotConnect."""
        self._tasks.start(self._connect_loop(), "connection to a bridge")
        try:
            await self._settled.wait()
            self._check()
        except BaseException:
            await self.close()
            raise

    async def acquire(self, queue: FrameQueue) -> ClientConnection:
        """Wait for a connection with a free slot and register the event on it.

        Raises CannotConnect or ConnectionLost if there will be none, and ValueError if the ID is in use.
        """
        await self._room.acquire()
        try:
            connection = await self._connected()
            connection.register(queue)
        except BaseException:
            self._room.release()
            raise
        queue.on_over = self._room.release
        return connection

    async def _connected(self) -> ClientConnection:
        """Return the connection, waiting at most `wait_s` for it."""
        self._check()
        while self._connection is None:
            await self._wait_connected()
            self._check()
        return self._connection

    async def close(self) -> None:
        """Close the connection, which ends its events. It is idempotent."""
        self._end(ConnectionLost(CLOSED_BY_CLIENT))
        if self._connection is not None:
            await self._connection.close()
        await self._tasks.cancel_all()

    def _check(self) -> None:
        if self._is_closed:
            assert self._last_error is not None
            raise copy(self._last_error)

    def _end(self, error: CallFailed) -> None:
        if not self._is_closed:
            self._is_closed, self._last_error = True, error
            self._settled.set()

    async def _wait_connected(self) -> None:
        assert self._reconnect is not None, "without a reconnect policy the state is always settled"
        try:
            async with asyncio.timeout(self._reconnect.wait_s):
                await self._settled.wait()
        except TimeoutError:
            raise CannotConnect(f"no connection within {self._reconnect.wait_s:g} s: {self._last_error}") from None

    async def _connect_loop(self) -> None:
        """Connect again and again until the client is closed or the failure is final."""
        failures = 0
        try:
            while not self._is_closed:
                connected_s = await self._connect_once()
                failures = 1 if connected_s >= STEADY_S else failures + 1
                await self._pause(failures)
        finally:
            self._end(ConnectionLost(CLOSED_BY_CLIENT))

    async def _connect_once(self) -> float:
        """Serve one connection until it ends and return the seconds that it lasted."""
        try:
            async with open_socket(self._endpoint) as socket:
                return await self._serve(ClientConnection(socket, self._heartbeat_s))
        except CannotConnect as error:
            self._fail(error, is_final=error.is_final or not self._was_connected)
            return 0.0

    async def _serve(self, connection: ClientConnection) -> float:
        started_at = asyncio.get_running_loop().time()
        self._connection, self._was_connected = connection, True
        self._settled.set()
        try:
            await connection.read()
        finally:  # at once: an event that failed may already ask for a new connection
            assert connection.loss is not None
            self._connection = None
            self._settled.clear()
            self._fail(connection.loss, is_final=False)
            await connection.release()
        return asyncio.get_running_loop().time() - started_at

    def _fail(self, error: CallFailed, *, is_final: bool) -> None:
        if self._is_closed:
            self._settled.set()
        elif is_final or self._reconnect is None:
            self._end(error)
        else:
            self._last_error = error

    async def _pause(self, failures: int) -> None:
        if self._reconnect is not None and not self._is_closed:
            pause_s = self._reconnect.pause_s(failures)
            log.info("%s; reconnecting in %.1f s", self._last_error, pause_s)
            await asyncio.sleep(pause_s)
