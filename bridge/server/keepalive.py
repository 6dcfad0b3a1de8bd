"""Detect dead and slow peers: pings, heartbeats, and one timer per socket (bridge/docs/protocol.md, "Liveness").

aiohttp's own heartbeat is not used: its pong deadline also runs while frames are queued before the ping, so it drops
slow but healthy readers.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import WSMsgType

from bridge.server.progress import CHECKS_PER_TIMEOUT, Progress
from bridge.server.websocket import MonitoredConnection
from bridge.settings.server import ServerSettings


@dataclass(frozen=True, slots=True)
class KeepAliveTimeouts:
    """Timeouts of one socket, in seconds."""

    ping_s: float
    """A ping is sent after this time without input from the peer."""
    peer_s: float
    """The peer counts as dead after this time in which it neither sent nor read anything."""
    slow_s: float
    """The peer counts as slow after this time in which frames were queued and it read none."""
    heartbeat_s: float | None
    """The time between two heartbeats; None for no heartbeats."""

    @property
    def check_interval_s(self) -> float:
        """The time between two checks: no deadline is exceeded by more than a twelfth."""
        return min(self.peer_s, self.slow_s) / CHECKS_PER_TIMEOUT


def timeouts_of(server: ServerSettings, heartbeat_s: float | None) -> KeepAliveTimeouts:
    return KeepAliveTimeouts(
        ping_s=server.ping_interval / 1000,
        peer_s=server.peer_timeout / 1000,
        slow_s=server.slow_client_timeout / 1000,
        heartbeat_s=heartbeat_s,
    )


class KeepAlive:
    """Calls `on_heartbeat` when a heartbeat is due and `on_slow` for a slow peer; aborts a dead connection."""

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
        self._pinged_at = self._heartbeat_at = self._silent_since = now
        self._stalled_since: float | None = None
        self._progress = Progress(now)
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
            self._silent_since = now  # reading is paused, so silence proves nothing
        if self._stalled_since is not None and now >= self._stalled_since + self._timeouts.slow_s:
            self._on_slow()
        elif now >= self._last_sign_of_life_at + self._timeouts.peer_s:
            self._socket.abort()
        else:
            self._ping(now)
            self._timer = self._loop.call_at(self._next(now), self._check)

    def _update_progress(self, now: float) -> None:
        has_progressed = self._progress.update(now, self._socket.sent_bytes)
        if not self._socket.queued_bytes:
            self._stalled_since = None
        elif has_progressed or self._stalled_since is None:
            self._stalled_since = now

    def _ping(self, now: float) -> None:
        if now >= self._ping_at:
            self._pinged_at = now
            self._socket.control(WSMsgType.PING)
        if self._timeouts.heartbeat_s is not None and now >= self._heartbeat_at + self._timeouts.heartbeat_s:
            self._heartbeat_at = now
            self._send_heartbeat()

    @property
    def _last_sign_of_life_at(self) -> float:
        return max(self._socket.last_received_at, self._progress.grew_at, self._silent_since)

    @property
    def _ping_at(self) -> float:
        return max(self._socket.last_received_at, self._pinged_at) + self._timeouts.ping_s

    def _next(self, now: float) -> float:
        at = min(now + self._timeouts.check_interval_s, self._ping_at)
        return at if self._timeouts.heartbeat_s is None else min(at, self._heartbeat_at + self._timeouts.heartbeat_s)
