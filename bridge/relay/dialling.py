"""The provider call of one attempt, with all that has to be asked first."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bridge.config.keys import GoogleAccount
from bridge.relay.deadlines import Clock
from bridge.relay.event import Event
from bridge.relay.plan import PlannedStep
from bridge.relay.stored_secrets import credential_in, known_key
from bridge.settings.step import StepSettings
from bridge.upstream.http import Call, ProviderAnswer


class Dialling:
    """Call it once; or `enter`, and then `call`, without a wait in between in which one could be interrupted.

    `call` may run on behalf of other events too, and beyond the end of its own.
    """

    def __init__(self, event: Event, planned: PlannedStep, on_connected: Callable[[], None]) -> None:
        step = planned.step
        self._event = event
        self._planned = planned
        self._leave: Callable[[], None] | None = None
        self._connected = _Connected(on_connected)
        self.on_connected = on_connected
        self.request = Call(
            method=step.method,
            target=planned.target,
            headers=list(step.provider_headers.items()),
            body=step.body,
            on_connected=self._connected,
            max_connections=planned.provider.max_connections,
        )

    async def __call__(self) -> ProviderAnswer:
        await self.enter()
        return await self.call(self.on_connected)

    async def enter(self) -> None:
        if self._event.admission is not None:
            with self.in_line():
                self._leave = await self._event.admission.enter(self._planned)

    @contextmanager
    def in_line(self) -> Iterator[None]:
        """Who waits in line is not connecting yet; how long that takes at most is the gateway's to say."""
        self._event.phase = "waiting"
        self._event.alarm.deadlines.clear(Clock.CONNECT, Clock.REQUEST)
        yield
        begin_call(self._event, self._planned.step.settings)

    async def call(self, on_connected: Callable[[], None]) -> ProviderAnswer:
        record, self._connected.tell = self._event.record, on_connected
        try:
            call = await self._authorised(self.request)
            if record.called_at is None:
                record.called_at = asyncio.get_running_loop().time()
            answer = await self._event.shared.upstream.open(call)
        except BaseException:
            if self._leave is not None:
                self._leave()
            raise
        if self._leave is not None:
            answer.on_close(self._leave)
        return answer

    async def _authorised(self, call: Call) -> Call:
        keys, key = self._event.shared.services.keys, self._planned.key
        if keys is None or key is None:
            return call
        self._event.record.byok_alias = key.alias or None
        authorised = await keys.authorised(call, self._planned)
        if isinstance(key.secret, GoogleAccount):  # the token that was minted is a secret too
            minted = credential_in(self._planned.step.provider_headers, authorised.headers)
            self._event.known = known_key(key, minted)
        return authorised


class _Connected:
    """What a call tells of its connection, and to whom: known only when it is made. Apart, for a `Dialling` that its
    own call held would be a circle."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.tell = tell

    def __call__(self) -> None:
        self.tell()


def begin_call(event: Event, settings: StepSettings) -> None:
    """From now on connecting takes time, and so does the answer."""
    event.phase = "connecting"
    event.alarm.deadlines.set_ms(Clock.CONNECT, settings.connect_timeout)
    event.alarm.deadlines.set_ms(Clock.REQUEST, settings.request_timeout)
