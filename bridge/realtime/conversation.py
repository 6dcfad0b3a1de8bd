"""Two legs and what passes between them, until one side leaves or the bridge ends it; and both goodbyes."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from bridge.errors import OutOfMemoryBudget
from bridge.realtime import ends
from bridge.realtime.ends import End
from bridge.realtime.leg import Leg
from bridge.realtime.pump import Flow, pump
from bridge.settings.server import ServerSettings
from bridge.tasks import Tasks
from bridge.watch import Watch, times_of

Look = Callable[[bytes], None]

_LOOKS: Final = 12
"""In how many steps idleness is told: no session is idle for longer than it may by more than one of them."""


class Conversation:
    """`run` once; `end` may be called at any time, and more than once: the first end counts."""

    def __init__(self, client: Leg, provider: Leg, server: ServerSettings, said: Look, heard: Look) -> None:
        """`said` sees each message of the client's, `heard` each of the provider's."""
        self._loop = asyncio.get_running_loop()
        self._client, self._provider = client, provider
        self._said, self._heard = said, heard
        self.up, self.down = Flow(), Flow()
        self._idle_s = server.realtime_idle_timeout / 1000
        self._session_s = server.realtime_session_timeout / 1000
        self._began_at = self._moved_at = self._loop.time()
        self._passed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._over: asyncio.Future[End] = self._loop.create_future()
        self._tasks = Tasks()
        times = times_of(server, None)
        self._watches = [Watch(leg, times, _nothing, partial(self._slow, leg)) for leg in (client, provider)]

    async def run(self) -> End:
        """Both connections are closed when it returns, or is cancelled."""
        for leg in (self._client, self._provider):
            leg.on_crowded = self._crowded
        for watch in self._watches:
            watch.start()
        self._look_at_the_clock()
        self._tasks.start(self._pass(self._client, self._provider, self.up, self._said), "from the client")
        self._tasks.start(self._pass(self._provider, self._client, self.down, self._heard), "from the provider")
        try:
            end = await self._over
            await self._tasks.end_all()
            await self._part(end)
        except BaseException:
            self._client.abort()
            self._provider.abort()
            raise
        finally:
            await self._stop()
        return end

    def end(self, end: End) -> None:
        if not self._over.done():
            self._over.set_result(end)

    async def _pass(self, src: Leg, dst: Leg, flow: Flow, look: Look) -> None:
        try:
            end = await pump(src, dst, flow, look)
        except Exception:
            self.end(ends.failed())
            raise
        if end is not None:
            self.end(end)

    async def _part(self, end: End) -> None:
        """At the same time, for each may keep the bridge waiting."""
        for leg, close in ((self._client, end.client), (self._provider, end.provider)):
            answers = end.is_goodbye and end.by == leg.side
            self._tasks.start(leg.part(close, answers=answers), f"goodbye to the {leg.side}")
        await self._tasks.wait_all()

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for watch in self._watches:
            watch.stop()
        await self._tasks.end_all()

    def _look_at_the_clock(self) -> None:
        now, passed = self._loop.time(), self.up.messages + self.down.messages
        if passed != self._passed:
            self._passed, self._moved_at = passed, now
        if self._idle_s and now >= self._moved_at + self._idle_s:
            self.end(ends.idle())
        elif self._session_s and now >= self._began_at + self._session_s:
            self.end(ends.too_long())
        elif (at := self._next_look(now)) is not None:
            self._timer = self._loop.call_at(at, self._look_at_the_clock)

    def _next_look(self, now: float) -> float | None:
        due = [self._began_at + self._session_s] if self._session_s else []
        if self._idle_s:
            due += self._moved_at + self._idle_s, now + self._idle_s / _LOOKS
        return min(due, default=None)

    def _slow(self, leg: Leg) -> None:
        self.end(ends.slow(leg.side))

    def _crowded(self, error: OutOfMemoryBudget) -> None:
        self.end(ends.out_of_memory(error))


def _nothing() -> None: ...
