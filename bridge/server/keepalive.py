"""Whether a peer is still there: pings, heartbeats, and one timer per socket (PROTOCOL.md, B "Liveness").

aiohttp's own heartbeat is not used: its pong deadline runs while our frames stand in line before the ping, and so drops
slow readers that are well.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import WSMsgType

from bridge.server.websocket import MonitoredConnection
from bridge.settings.server import ServerSettings


@dataclass(frozen=True, slots=True)
class KeepAliveTimeouts:
    """Seconds."""

    ping_s: float
    """Without anything from the client, before it is pinged."""
    peer_s: float
    """Without anything from the client and without anything taken by it, before it counts as gone."""
    slow_s: float
    """With frames standing in line and none taken."""
    heartbeat_s: float | None
    """Between two heartbeats."""

    @property
    def check_interval_s(self) -> float:
        """How often to look, so that no deadline is missed by more than a twelfth of it."""
        return min(self.peer_s, self.slow_s) / 12


def timeouts_of(server: ServerSettings, heartbeat_s: float | None) -> KeepAliveTimeouts:
    return KeepAliveTimeouts(
        ping_s=server.ping_interval / 1000,
        peer_s=server.peer_timeout / 1000,
        slow_s=server.slow_client_timeout / 1000,
        heartbeat_s=heartbeat_s,
    )


class KeepAlive:
    """Calls `beat` for each heartbeat, and `on_slow` when the client takes nothing; lets go of one that is gone."""

    def __init__(
        self,
        socket: MonitoredConnection,
        timeouts: KeepAliveTimeouts,
        on_heartbeat: Callable[[], None],
        on_slow: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._timeouts = timeouts
        self._send_heartbeat = on_heartbeat
        self._on_slow = on_slow
        now = self._loop.time()
        self._progress_at = self._pinged_at = self._beat_at = self._silent_since = now
        self._stalled_since: float | None = None
        self._sent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = self._loop.call_at(self._next(self._loop.time()), self._check)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        now = self._loop.time()
        self._update_progress(now)
        if not self._socket.is_reading:
            self._silent_since = now  # whom nobody listens to cannot be called silent
        if self._stalled_since is not None and now >= self._stalled_since + self._timeouts.slow_s:
            self._on_slow()
        elif now >= max(self._socket.last_received_at, self._progress_at, self._silent_since) + self._timeouts.peer_s:
            self._socket.abort()
        else:
            self._ping(now)
            self._timer = self._loop.call_at(self._next(now), self._check)

    def _update_progress(self, now: float) -> None:
        sent_bytes, waiting_bytes = self._socket.sent_bytes, self._socket.queued_bytes
        takes = sent_bytes > self._sent_bytes
        if takes:
            self._progress_at, self._sent_bytes = now, sent_bytes
        if not waiting_bytes:
            self._stalled_since = None
        elif takes or self._stalled_since is None:
            self._stalled_since = now

    def _ping(self, now: float) -> None:
        if now >= self._ping_at:
            self._pinged_at = now
            self._socket.control(WSMsgType.PING)
        if self._timeouts.heartbeat_s is not None and now >= self._beat_at + self._timeouts.heartbeat_s:
            self._beat_at = now
            self._send_heartbeat()

    @property
    def _ping_at(self) -> float:
        return max(self._socket.last_received_at, self._pinged_at) + self._timeouts.ping_s

    def _next(self, now: float) -> float:
        at = min(now + self._timeouts.check_interval_s, self._ping_at)
        return at if self._timeouts.heartbeat_s is None else min(at, self._beat_at + self._timeouts.heartbeat_s)
