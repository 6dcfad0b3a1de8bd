"""Two legs and what passes between them, until one side leaves or the bridge ends it; and both goodbyes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from bridge.errors import OutOfMemoryBudget
from bridge.server.keepalive import KeepAlive, timeouts_of
from bridge.server.realtime import close as closing
from bridge.server.realtime.close import SessionEnd
from bridge.server.realtime.peer import Peer, PeerClosed
from bridge.settings.server import ServerSettings
from bridge.tasks import Tasks


@dataclass(slots=True)
class Flow:
    """What has passed in one direction."""

    messages: int = 0
    bytes: int = 0


async def pump(src: Peer, dst: Peer, flow: Flow, look: Callable[[bytes], None]) -> SessionEnd | None:
    """Pass messages on, each as it is and in its order, until `src` leaves: how it did.

    None when it is `dst` that has gone: how, its own direction will tell. `look` sees every message before it goes out.
    """
    try:
        while True:
            opcode, data, _ = await src.receive()
            size = len(data)
            flow.messages += 1
            flow.bytes += size
            look(data)
            await dst.send(opcode, data)
            if dst.is_full:
                del data  # 64 MiB, it may be, which stand in line now
                await src.pause_for(dst)
            src.message_relayed(size)
    except PeerClosed as left:
        return left.end
    except ConnectionResetError:
        return None


MessageHook = Callable[[bytes], None]

_LOOKS: Final = 12
"""In how many steps idleness is told: no session is idle for longer than it may by more than one of them."""


class MessageRelay:
    """`run` once; `end` may be called at any time, and more than once: the first end counts."""

    def __init__(
        self, client: Peer, provider: Peer, server: ServerSettings, said: MessageHook, heard: MessageHook
    ) -> None:
        """`said` sees each message of the client's, `heard` each of the provider's."""
        self._loop = asyncio.get_running_loop()
        self._client, self._provider = client, provider
        self._on_client_message, self._on_provider_message = said, heard
        self.up, self.down = Flow(), Flow()
        self._idle_s = server.realtime_idle_timeout / 1000
        self._session_s = server.realtime_session_timeout / 1000
        self._began_at = self._moved_at = self._loop.time()
        self._passed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._over: asyncio.Future[SessionEnd] = self._loop.create_future()
        self._tasks = Tasks()
        times = timeouts_of(server, None)
        self._keepalives = [KeepAlive(peer, times, _nothing, partial(self._slow, peer)) for peer in (client, provider)]

    async def run(self) -> SessionEnd:
        """Both connections are closed when it returns, or is cancelled."""
        for peer in (self._client, self._provider):
            peer.on_out_of_memory = self._out_of_memory
        for watch in self._keepalives:
            watch.start()
        self._check_timeouts()
        self._tasks.start(
            self._relay(self._client, self._provider, self.up, self._on_client_message), "from the client"
        )
        self._tasks.start(
            self._relay(self._provider, self._client, self.down, self._on_provider_message), "from the provider"
        )
        try:
            end = await self._over
            await self._tasks.cancel_all()
            await self._close_both(end)
        except BaseException:
            self._client.abort()
            self._provider.abort()
            raise
        finally:
            await self._stop()
        return end

    def end(self, end: SessionEnd) -> None:
        if not self._over.done():
            self._over.set_result(end)

    async def _relay(self, src: Peer, dst: Peer, flow: Flow, look: MessageHook) -> None:
        try:
            end = await pump(src, dst, flow, look)
        except Exception:
            self.end(closing.failed())
            raise
        if end is not None:
            self.end(end)

    async def _close_both(self, end: SessionEnd) -> None:
        """At the same time, for each may keep the bridge waiting."""
        for peer, close in ((self._client, end.client), (self._provider, end.provider)):
            answers = end.has_close_frame and end.by == peer.side
            self._tasks.start(peer.close(close, answers=answers), f"goodbye to the {peer.side}")
        await self._tasks.wait_all()

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for watch in self._keepalives:
            watch.stop()
        await self._tasks.cancel_all()

    def _check_timeouts(self) -> None:
        now, passed = self._loop.time(), self.up.messages + self.down.messages
        if passed != self._passed:
            self._passed, self._moved_at = passed, now
        if self._idle_s and now >= self._moved_at + self._idle_s:
            self.end(closing.idle())
        elif self._session_s and now >= self._began_at + self._session_s:
            self.end(closing.too_long())
        elif (at := self._next_check(now)) is not None:
            self._timer = self._loop.call_at(at, self._check_timeouts)

    def _next_check(self, now: float) -> float | None:
        due = [self._began_at + self._session_s] if self._session_s else []
        if self._idle_s:
            due += self._moved_at + self._idle_s, now + self._idle_s / _LOOKS
        return min(due, default=None)

    def _slow(self, peer: Peer) -> None:
        self.end(closing.slow(peer.side))

    def _out_of_memory(self, error: OutOfMemoryBudget) -> None:
        self.end(closing.out_of_memory(error))


def _nothing() -> None: ...
