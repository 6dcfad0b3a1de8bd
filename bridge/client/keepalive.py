"""Whether the bridge is still there: a ping when it says nothing, and an end when it does not answer."""

import asyncio
from collections.abc import Callable
from typing import Final

PINGS: Final = 3
"""Silences in a row, after which nobody is there."""


class ClientKeepAlive:
    """One timer per socket; `on_dead` is told for how many seconds it was silent."""

    def __init__(self, silence_s: float | None, ping: Callable[[], None], on_dead: Callable[[float], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._silence_s = silence_s
        self._ping = ping
        self._on_dead = on_dead
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = self._loop.time()
        self.is_deaf = False
        """Nobody reads the socket: what comes is not heard."""

    def start(self) -> None:
        if self._silence_s is not None:
            self._timer = self._loop.call_later(self._silence_s, self._check, self._silence_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def received(self) -> None:
        self._heard_at = self._loop.time()

    def _check(self, silence_s: float) -> None:
        if self.is_deaf:
            self.received()
        silent_s = self._loop.time() - self._heard_at
        if silent_s >= PINGS * silence_s:
            self._on_dead(silent_s)
            return
        if silent_s >= silence_s:
            self._ping()
        self._timer = self._loop.call_later(silence_s, self._check, silence_s)
