"""Keeps a socket to one bridge: dials, and dials again when it is lost. Sends nothing twice."""

import asyncio
import logging
import random
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Final

from bridge.client.connection import LEFT, ClientConnection
from bridge.client.errors import CallFailed, CannotConnect, ConnectionLost
from bridge.client.frame_queue import FrameQueue
from bridge.client.handshake import Endpoint, opened
from bridge.tasks import Tasks

log = logging.getLogger("bridge.client")

STEADY_S: Final = 10.0
"""A socket that stood so long was a good one: the next failure is the first again."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a lost socket is dialled again: after pauses that double, each cut to a random part of itself.

    So that the clients of a bridge that was restarted do not all come at once.
    """

    first_s: float = 0.5
    most_s: float = 30.0
    """The longest pause."""
    wait_s: float = 30.0
    """How long a new event waits for a connection before it raises CannotConnect."""
    chance: Callable[[], float] = random.random
    """In [0, 1)."""

    def pause_s(self, failures: int) -> float:
        """The pause after so many failures in a row, counted from 1."""
        longest_s = self.first_s * 2.0 ** min(failures - 1, 32)
        return self.chance() * min(longest_s, self.most_s)


class Reconnector:
    """At most one connection at a time, and on it no more events than the bridge takes."""

    def __init__(
        self, endpoint: Endpoint, reconnect: Reconnect | None, heartbeat_s: float | None, max_in_flight: int
    ) -> None:
        self._door = endpoint
        self._reconnect = reconnect
        self._heartbeat_s = heartbeat_s
        self._room = asyncio.Semaphore(max_in_flight)
        self._tasks = Tasks()
        self._connection: ClientConnection | None = None
        self._was_connected = False
        self._settled = asyncio.Event()
        """There is a connection, or there will be none any more."""
        self._trouble: CallFailed | None = None
        """What went wrong last."""
        self._is_ended = False

    async def open(self) -> None:
        """Dials once: where no bridge was ever reached, the caller should know at once. Raises CannotConnect."""
        self._tasks.start(self._keep(), "line to a bridge")
        try:
            await self._settled.wait()
            self._check()
        except BaseException:
            await self.close()
            raise

    async def acquire(self, queue: FrameQueue) -> ClientConnection:
        """The connection on which an event may begin, once there is one with room.

        Raises CannotConnect or ConnectionLost where none will come, and ValueError for a name that is in use.
        """
        await self._room.acquire()
        try:
            connection = await self._connected()
            connection.take_in(queue)
        except BaseException:
            self._room.release()
            raise
        queue.on_over = self._room.release
        return connection

    async def _connected(self) -> ClientConnection:
        """Waits for a connection, not for long."""
        self._check()
        while self._connection is None:
            await self._wait_connected()
            self._check()
        return self._connection

    async def close(self) -> None:
        """Closes the connection, which ends its events. May be called again."""
        self._end(ConnectionLost(LEFT))
        if self._connection is not None:
            await self._connection.close()
        await self._tasks.cancel_all()

    def _check(self) -> None:
        if self._is_ended:
            assert self._trouble is not None
            raise copy(self._trouble)

    def _end(self, trouble: CallFailed) -> None:
        if not self._is_ended:
            self._is_ended, self._trouble = True, trouble
            self._settled.set()

    async def _wait_connected(self) -> None:
        assert self._reconnect is not None, "a line that does not dial again is always settled"
        try:
            async with asyncio.timeout(self._reconnect.wait_s):
                await self._settled.wait()
        except TimeoutError:
            raise CannotConnect(f"no connection within {self._reconnect.wait_s:g} s: {self._trouble}") from None

    async def _keep(self) -> None:
        """Dials, and dials again, until nobody wants a connection or none is to be had."""
        failures = 0
        try:
            while not self._is_ended:
                stood_s = await self._try()
                failures = 1 if stood_s >= STEADY_S else failures + 1
                await self._pause(failures)
        finally:
            self._end(ConnectionLost(LEFT))

    async def _try(self) -> float:
        """One connection, from its beginning to its end: for how long it stood."""
        try:
            async with opened(self._door) as socket:
                return await self._serve(ClientConnection(socket, self._heartbeat_s))
        except CannotConnect as error:
            self._fail(error, is_final=error.is_final or not self._was_connected)
            return 0.0

    async def _serve(self, connection: ClientConnection) -> float:
        began_at = asyncio.get_running_loop().time()
        self._connection, self._was_connected = connection, True
        self._settled.set()
        try:
            await connection.read()
        finally:  # at once: whoever was told of the loss may ask for another
            assert connection.loss is not None
            self._connection = None
            self._settled.clear()
            self._fail(connection.loss, is_final=False)
            await connection.let_go()
        return asyncio.get_running_loop().time() - began_at

    def _fail(self, trouble: CallFailed, *, is_final: bool) -> None:
        if self._is_ended:
            self._settled.set()
        elif is_final or self._reconnect is None:
            self._end(trouble)
        else:
            self._trouble = trouble

    async def _pause(self, failures: int) -> None:
        if self._reconnect is not None and not self._is_ended:
            pause_s = self._reconnect.pause_s(failures)
            log.info("%s; dialling again in %.1f s", self._trouble, pause_s)
            await asyncio.sleep(pause_s)
