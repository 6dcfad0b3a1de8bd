"""The client: one socket to a bridge, kept open, and any number of events on it at once."""

import ssl
from collections.abc import Generator, Iterable, Mapping
from itertools import count
from types import TracebackType
from typing import Any, Self

from bridge.client import steps
from bridge.client.event import Event
from bridge.client.exchange import Exchange, as_it_came
from bridge.client.frames import EventId
from bridge.client.handshake import Endpoint
from bridge.client.reconnect import Reconnect, Reconnector
from bridge.client.steps import AnyStep, Config, Request, Step
from bridge.client.stream import Answer, Stream


class Bridge:
    """Made by `connect`. For the tasks of one event loop, any number of them.

    Every event may be named by an `event_id`, which the bridge logs; it must not be in flight already (ValueError).
    """

    def __init__(self, line: Reconnector) -> None:
        self._line = line
        self._names = count(1)

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
        """One whole answer; of one that the provider streams, its items. Arguments and errors are those of `stream`."""
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
        """An answer chunk by chunk, to be entered with `async with`. Leaving it before its end cancels it.

        The arguments are those of a Step; `config` holds for the steps of `fallback` too, `headers` do not: they may be
        credentials. Raises TypeError for what JSON cannot hold; opening and iterating raise CallFailed of some kind.
        """
        first = Step(provider, endpoint, query, headers=headers or {}, method=method, body=body)
        return Stream(self.create(steps.chain(first, fallback, config), event_id))

    def exchange(self, step: AnyStep, *, fallback: Iterable[AnyStep] = (), event_id: EventId | None = None) -> Exchange:
        """An HTTP exchange as bytes, to be entered with `async with`."""
        return Exchange(self.create(as_it_came(step, fallback), event_id))

    def create(self, request: Request, event_id: EventId | None = None) -> Event:
        """An event frame by frame, to be entered with `async with`; its name may be the request's own `eventId`."""
        if event_id is None and isinstance(request, Mapping):
            event_id = request.get("eventId")
        return Event(self._line, f"event-{next(self._names)}" if event_id is None else event_id, request)

    async def close(self) -> None:
        """Cancel what is in flight, say goodbye, and wait for the bridge to answer, but not for long."""
        await self._line.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class connect:  # noqa: N801 - to its callers it is a function
    """A socket to the bridge at `url` (`wss://HOST/v1/ACCOUNT/GATEWAY`): `async with connect(url) as bridge`.

    `bridge = await connect(url)` works too, and wants a `bridge.close()`. Raises CannotConnect. `headers` go with the
    handshake, such as `cf-aig-*` settings for all events of the socket. After `heartbeat_s` without a word from the
    bridge it is pinged, after three times that the socket counts as lost; no single message may take longer. A socket
    that is lost is dialled again as `reconnect` says, unless it is False; True is `Reconnect()`. Events over
    `max_in_flight` wait for others to end: the bridge refuses what is over its own limit, 256 unless configured.
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
        again = Reconnect() if reconnect is True else reconnect or None
        self._door = Endpoint(url, token, headers or {}, ssl, timeout_s)
        self._again = again
        self._heartbeat_s = heartbeat_s
        self._max_in_flight = max_in_flight
        self._bridge: Bridge | None = None

    async def _open(self) -> Bridge:
        line = Reconnector(self._door, self._again, self._heartbeat_s, self._max_in_flight)
        await line.open()
        self._bridge = Bridge(line)
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
