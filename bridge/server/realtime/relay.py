"""Relay messages between the two peers of a session until it ends, and close both."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bridge.errors import OutOfMemoryBudget
from bridge.server.callbacks import ignore
from bridge.server.keepalive import KeepAlive, timeouts_of
from bridge.server.progress import CHECKS_PER_TIMEOUT, Progress
from bridge.server.realtime import close as closing
from bridge.server.realtime.close import SessionEnd
from bridge.server.realtime.peer import Peer, PeerClosed
from bridge.settings.server import ServerSettings
from bridge.tasks import Tasks


@dataclass(slots=True)
class Flow:
    """Counts the messages of one direction."""

    messages: int = 0
    bytes: int = 0


async def pump(src: Peer, dst: Peer, flow: Flow, on_message: Callable[[bytes], None]) -> SessionEnd | None:
    """Relay messages unchanged and in order until `src` closes; return the end of the session.

    Returns None if `dst` is disconnected: the other direction reports that end. `on_message` is called with each
    message before it is sent.
    """
    try:
        while True:
            opcode, data, _ = await src.receive()
            size = len(data)
            flow.messages += 1
            flow.bytes += size
            on_message(data)
            await dst.send(opcode, data)
            if dst.is_full:
                del data  # it may hold 64 MiB, which are queued now
                await src.pause_for(dst)
            src.message_relayed(size)
    except PeerClosed as closed:
        return closed.end
    except ConnectionResetError:
        return None


MessageHook = Callable[[bytes], None]


class MessageRelay:
    """Relays one session. Call `run` once; `end` may be called at any time and repeatedly: the first end counts."""

    def __init__(
        self,
        client: Peer,
        provider: Peer,
        server: ServerSettings,
        on_client_message: MessageHook,
        on_provider_message: MessageHook,
    ) -> None:
        """The hooks are called with each message of their side, before it is relayed."""
        self._loop = asyncio.get_running_loop()
        self._client, self._provider = client, provider
        self._on_client_message, self._on_provider_message = on_client_message, on_provider_message
        self.up, self.down = Flow(), Flow()
        self._idle_s = server.realtime_idle_timeout / 1000
        self._session_s = server.realtime_session_timeout / 1000
        self._began_at = self._loop.time()
        self._progress = Progress(self._began_at)
        self._timer: asyncio.TimerHandle | None = None
        self._over: asyncio.Future[SessionEnd] = self._loop.create_future()
        self._tasks = Tasks()
        times = timeouts_of(server, None)
        self._keepalives = [KeepAlive(peer, times, ignore, partial(self._slow, peer)) for peer in (client, provider)]

    async def run(self) -> SessionEnd:
        """Relay until the session ends. Both connections are closed when this returns or is cancelled."""
        for peer in (self._client, self._provider):
            peer.on_out_of_memory = self._out_of_memory
        for keepalive in self._keepalives:
            keepalive.start()
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

    async def _relay(self, src: Peer, dst: Peer, flow: Flow, on_message: MessageHook) -> None:
        try:
            end = await pump(src, dst, flow, on_message)
        except Exception:
            self.end(closing.failed())
            raise
        if end is not None:
            self.end(end)

    async def _close_both(self, end: SessionEnd) -> None:
        """Close both peers at the same time, because each may take long to answer."""
        for peer, close in ((self._client, end.client), (self._provider, end.provider)):
            answers = end.has_close_frame and end.by == peer.side
            self._tasks.start(peer.close(close, answers=answers), f"close the {peer.side}")
        await self._tasks.wait_all()

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for keepalive in self._keepalives:
            keepalive.stop()
        await self._tasks.cancel_all()

    def _check_timeouts(self) -> None:
        now = self._loop.time()
        self._progress.update(now, self.up.messages + self.down.messages)
        if self._idle_s and now >= self._progress.grew_at + self._idle_s:
            self.end(closing.idle())
        elif self._session_s and now >= self._began_at + self._session_s:
            self.end(closing.too_long())
        elif (at := self._next_check(now)) is not None:
            self._timer = self._loop.call_at(at, self._check_timeouts)

    def _next_check(self, now: float) -> float | None:
        due = [self._began_at + self._session_s] if self._session_s else []
        if self._idle_s:
            due += self._progress.grew_at + self._idle_s, now + self._idle_s / CHECKS_PER_TIMEOUT
        return min(due, default=None)

    def _slow(self, peer: Peer) -> None:
        self.end(closing.slow(peer.side))

    def _out_of_memory(self, error: OutOfMemoryBudget) -> None:
        self.end(closing.out_of_memory(error))
