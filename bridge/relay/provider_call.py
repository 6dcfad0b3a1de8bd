"""Make the provider call of one attempt: concurrency slot, stored key, request."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bridge.config.keys import GoogleAccount
from bridge.relay.context import RunningEvent
from bridge.relay.deadlines import Clock
from bridge.relay.plan import PlannedStep
from bridge.relay.stored_secrets import credential_in, known_key
from bridge.settings.step import StepSettings
from bridge.upstream.http import Call, HttpUpstreamResponse


class ProviderCall:
    """Call it once; or call `acquire_slot` and then `send`, with no await in between.

    `send` may also serve other events, and may outlast its own event.
    """

    def __init__(self, event: RunningEvent, planned: PlannedStep, on_connected: Callable[[], None]) -> None:
        step = planned.step
        self._event = event
        self._planned = planned
        self._release_slot: Callable[[], None] | None = None
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

    async def __call__(self) -> HttpUpstreamResponse:
        await self.acquire_slot()
        return await self.send(self.on_connected)

    async def acquire_slot(self) -> None:
        if self._event.admission is not None:
            with self.waiting():
                self._release_slot = await self._event.admission.acquire(self._planned)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Suspend the connect and request deadlines while waiting; the gateway's own limit bounds the wait."""
        self._event.phase = "waiting"
        self._event.interrupt.deadlines.clear(Clock.CONNECT, Clock.REQUEST)
        yield
        begin_call(self._event, self._planned.step.settings)

    async def send(self, on_connected: Callable[[], None]) -> HttpUpstreamResponse:
        state, self._connected.receiver = self._event.state, on_connected
        try:
            call = await self._authorised(self.request)
            if state.called_at is None:
                state.called_at = asyncio.get_running_loop().time()
            answer = await self._event.runtime.upstream.open(call)
        except BaseException:
            if self._release_slot is not None:
                self._release_slot()
            raise
        if self._release_slot is not None:
            answer.on_close(self._release_slot)
        return answer

    async def _authorised(self, call: Call) -> Call:
        keys, key = self._event.runtime.services.keys, self._planned.key
        if keys is None or key is None:
            return call
        self._event.state.byok_alias = key.alias or None
        authorised = await keys.authorize(call, self._planned)
        if isinstance(key.secret, GoogleAccount):  # the minted token is a secret too
            minted = credential_in(self._planned.step.provider_headers, authorised.headers)
            self._event.known = known_key(key, minted)
        return authorised


class _Connected:
    """Forward the connected callback to the receiver that is set when the call is made.

    A class of its own avoids a reference cycle between `ProviderCall` and its request.
    """

    def __init__(self, receiver: Callable[[], None]) -> None:
        self.receiver = receiver

    def __call__(self) -> None:
        self.receiver()


def begin_call(event: RunningEvent, settings: StepSettings) -> None:
    """Start the connect and request deadlines."""
    event.phase = "connecting"
    event.interrupt.deadlines.set_ms(Clock.CONNECT, settings.connect_timeout)
    event.interrupt.deadlines.set_ms(Clock.REQUEST, settings.request_timeout)
