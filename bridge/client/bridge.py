"""The asynchronous client: one socket to a bridge that carries any number of concurrent events."""

import ssl
from collections.abc import Generator, Iterable, Mapping
from itertools import count
from types import TracebackType
from typing import Any, Self

from bridge.client import steps
from bridge.client.event import Event
from bridge.client.exchange import Exchange, raw_request
from bridge.client.frames import EventId
from bridge.client.handshake import Endpoint
from bridge.client.reconnect import Reconnect, Reconnector
from bridge.client.steps import AnyStep, Config, Request, Step
from bridge.client.stream import Answer, Stream


class Bridge:
    """Sends events. Create it with `connect`; all tasks of one event loop may share it.

    `event_id` names an event in the bridge's log. Raises ValueError if an event with that ID is in flight.
    """

    def __init__(self, reconnector: Reconnector) -> None:
        self._reconnector = reconnector
        self._event_numbers = count(1)

    async def request(
        self,
        provider: str,
        endpoint: str,
        query: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        config: Config | None = None,
        method: str | None = None,
        body: str | bytes | None = None,
        fallback: Iterable[AnyStep] = (),
        event_id: EventId | None = None,
    ) -> Answer:
        """Return a complete answer; a streamed answer is collected. Arguments and errors are those of `stream`."""
        stream = self.stream(
            provider,
            endpoint,
            query,
            headers=headers,
            config=config,
            method=method,
            body=body,
            fallback=fallback,
            event_id=event_id,
        )
        async with stream:
            return await stream.collect()

    def stream(
        self,
        provider: str,
        endpoint: str,
        query: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        config: Config | None = None,
        method: str | None = None,
        body: str | bytes | None = None,
        fallback: Iterable[AnyStep] = (),
        event_id: EventId | None = None,
    ) -> Stream:
        """Return an answer that is read chunk by chunk. Enter it with `async with`; leaving it early cancels it.

        The arguments are those of a Step. `config` applies to the steps of `fallback` too; `headers` do not, because
        they may hold credentials. Raises TypeError for values that JSON cannot hold; opening and iterating raise
        subclasses of CallFailed.
        """
        first = Step(provider, endpoint, query, headers=headers or {}, method=method, body=body)
        return Stream(self.create(steps.chain(first, fallback, config), event_id))

    def exchange(self, step: AnyStep, *, fallback: Iterable[AnyStep] = (), event_id: EventId | None = None) -> Exchange:
        """Return an HTTP exchange as bytes. Enter it with `async with`."""
        return Exchange(self.create(raw_request(step, fallback), event_id))

    def create(self, request: Request, event_id: EventId | None = None) -> Event:
        """Return an event, read frame by frame. Enter it with `async with`. The request may have an `eventId`."""
        if event_id is None and isinstance(request, Mapping):
            event_id = request.get("eventId")
        return Event(self._reconnector, f"event-{next(self._event_numbers)}" if event_id is None else event_id, request)

    async def close(self) -> None:
        """Cancel the events in flight, send a close frame and wait at most 2 s for the answer."""
        await self._reconnector.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class connect:  # noqa: N801 - callers use it as a function
    """Open a socket to the bridge at `url` (`wss://HOST/v1/ACCOUNT/GATEWAY`): `async with connect(url) as bridge`.

    `bridge = await connect(url)` works too and requires `bridge.close()`. Raises CannotConnect. `headers` are sent with
    the handshake, such as `cf-aig-*` settings for all events of the socket. The client pings after `heartbeat_s`
    without data from the bridge and treats the socket as lost after three times that; no message may take longer.
    `reconnect` is the policy for a lost socket; True means `Reconnect()`, False disables it. Events above
    `max_in_flight` wait until others end: the bridge refuses events above its own limit, 256 unless configured.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        ssl: ssl.SSLContext | bool = True,
        reconnect: Reconnect | bool = True,
        heartbeat_s: float | None = 20.0,
        timeout_s: float = 10.0,
        max_in_flight: int = 256,
    ) -> None:
        policy = Reconnect() if reconnect is True else reconnect or None
        self._endpoint = Endpoint(url, token, headers or {}, ssl, timeout_s)
        self._reconnect = policy
        self._heartbeat_s = heartbeat_s
        self._max_in_flight = max_in_flight
        self._bridge: Bridge | None = None

    async def _open(self) -> Bridge:
        reconnector = Reconnector(self._endpoint, self._reconnect, self._heartbeat_s, self._max_in_flight)
        await reconnector.open()
        self._bridge = Bridge(reconnector)
        return self._bridge

    def __await__(self) -> Generator[Any, None, Bridge]:
        return self._open().__await__()

    async def __aenter__(self) -> Bridge:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._bridge is not None
        await self._bridge.close()
