"""Sends a ping when the bridge is silent and reports a bridge that does not answer."""

import asyncio
from collections.abc import Callable
from typing import Final

PINGS: Final = 3
"""Number of silent intervals after which the bridge counts as dead."""


class ClientKeepAlive:
    """Runs one timer per socket. `on_dead` gets the seconds of silence."""

    def __init__(self, silence_s: float | None, ping: Callable[[], None], on_dead: Callable[[float], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._silence_s = silence_s
        self._ping = ping
        self._on_dead = on_dead
        self._timer: asyncio.TimerHandle | None = None
        self._last_received_at = self._loop.time()
        self.is_paused = False
        """Reading is paused, so silence proves nothing."""

    def start(self) -> None:
        if self._silence_s is not None:
            self._timer = self._loop.call_later(self._silence_s, self._check, self._silence_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def received(self) -> None:
        self._last_received_at = self._loop.time()

    def _check(self, silence_s: float) -> None:
        if self.is_paused:
            self.received()
        silent_s = self._loop.time() - self._last_received_at
        if silent_s >= PINGS * silence_s:
            self._on_dead(silent_s)
            return
        if silent_s >= silence_s:
            self._ping()
        self._timer = self._loop.call_later(silence_s, self._check, silence_s)
