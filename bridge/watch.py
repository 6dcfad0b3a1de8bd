"""Whether a peer is still there: pings, heartbeats, and one timer per socket (PROTOCOL.md, B "Liveness").

aiohttp's own heartbeat is not used: its pong deadline runs while our frames stand in line before the ping, and so drops
slow readers that are well.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import WSMsgType

from bridge.settings.server import ServerSettings
from bridge.websocket import Peer


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds."""

    ping_s: float
    """Without anything from the client, before it is pinged."""
    peer_s: float
    """Without anything from the client and without anything taken by it, before it counts as gone."""
    slow_s: float
    """With frames standing in line and none taken."""
    beat_s: float | None
    """Between two heartbeats."""

    @property
    def step_s(self) -> float:
        """How often to look, so that no deadline is missed by more than a twelfth of it."""
        return min(self.peer_s, self.slow_s) / 12


def times_of(server: ServerSettings, heartbeat_s: float | None) -> Times:
    return Times(
        ping_s=server.ping_interval / 1000,
        peer_s=server.peer_timeout / 1000,
        slow_s=server.slow_client_timeout / 1000,
        beat_s=heartbeat_s,
    )


class Watch:
    """Calls `beat` for each heartbeat, and `on_slow` when the client takes nothing; lets go of one that is gone."""

    def __init__(self, socket: Peer, times: Times, beat: Callable[[], None], on_slow: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._times = times
        self._beat = beat
        self._on_slow = on_slow
        now = self._loop.time()
        self._taken_at = self._pinged_at = self._beat_at = self._unheard_at = now
        self._stuck_at: float | None = None
        self._taken_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = self._loop.call_at(self._next(self._loop.time()), self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._loop.time()
        self._see_what_was_taken(now)
        if not self._socket.is_heard:
            self._unheard_at = now  # whom nobody listens to cannot be called silent
        if self._stuck_at is not None and now >= self._stuck_at + self._times.slow_s:
            self._on_slow()
        elif now >= max(self._socket.heard_at, self._taken_at, self._unheard_at) + self._times.peer_s:
            self._socket.abort()
        else:
            self._speak(now)
            self._timer = self._loop.call_at(self._next(now), self._look)

    def _see_what_was_taken(self, now: float) -> None:
        taken_bytes, waiting_bytes = self._socket.taken_bytes, self._socket.waiting_bytes
        takes = taken_bytes > self._taken_bytes
        if takes:
            self._taken_at, self._taken_bytes = now, taken_bytes
        if not waiting_bytes:
            self._stuck_at = None
        elif takes or self._stuck_at is None:
            self._stuck_at = now

    def _speak(self, now: float) -> None:
        if now >= self._ping_at:
            self._pinged_at = now
            self._socket.control(WSMsgType.PING)
        if self._times.beat_s is not None and now >= self._beat_at + self._times.beat_s:
            self._beat_at = now
            self._beat()

    @property
    def _ping_at(self) -> float:
        return max(self._socket.heard_at, self._pinged_at) + self._times.ping_s

    def _next(self, now: float) -> float:
        at = min(now + self._times.step_s, self._ping_at)
        return at if self._times.beat_s is None else min(at, self._beat_at + self._times.beat_s)
