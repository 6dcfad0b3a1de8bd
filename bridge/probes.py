"""What those ask who run the bridge: `/metrics`, `/healthz`, `/readyz`. They answer while it drains, too."""

import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from aiohttp import web

from bridge import __version__
from bridge.config import Config
from bridge.config.checks import is_loopback
from bridge.config.gateways import Gateway, digest_of
from bridge.errors import OriginRefused, Unauthorized
from bridge.guests import Guests
from bridge.handshake import check_origin
from bridge.http_errors import NotFound
from bridge.policy.breaker import Breakers, Failing, Open
from bridge.realtime import RealtimeSession
from bridge.relay.budget import Budget
from bridge.relay.event import Shared
from bridge.relay.services import Meter, Reading
from bridge.session import Session
from bridge.settings.token_reference import TokenReference
from bridge.wire.headers import names_a_proxy

_REFUSED: Final = (
    "metrics tell who is called and what it costs: unless metrics_token is set they are for this machine alone, "
    "asked directly and by a name of its own"
)
_WANTED: Final = "Unauthorized: /metrics wants the token of metrics_token, as header Authorization: Bearer TOKEN"
_NOBODYS: Final = Gateway("metrics")
"""Open, as a gateway without tokens: web pages and DNS rebinding reach this machine's services too."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Probes:
    """Of one server; `config` gives its configuration as it is now, `memory` is its budget."""

    def __init__(self, config: Callable[[], Config], shared: Shared, guests: Guests, memory: Budget) -> None:
        self._config = config
        self._shared = shared
        self._guests = guests
        self._memory = memory
        self._meter: Meter | None = shared.services.meter
        if self._meter is not None:
            self._meter.tell_apart(lambda: config().gateways)
            self._meter.watch(self._readings)

    def routes(self) -> tuple[tuple[str, str, Handler], ...]:
        return (
            ("GET", "/metrics", self._metrics),
            ("GET", "/healthz", self._alive),
            ("HEAD", "/healthz", self._alive),
            ("GET", "/readyz", self._ready),
            ("HEAD", "/readyz", self._ready),
        )

    async def _alive(self, request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _ready(self, request: web.Request) -> web.Response:
        why = self._unready()
        return web.Response(text=f"not ready: {why}\n" if why else "ready\n", status=503 if why else 200)

    def _unready(self) -> str | None:
        """Why another client would be sent away. What is lost beside that, such as Redis, the bridge does without."""
        if self._guests.is_draining:
            return "shutting down"
        if self._guests.is_full:
            return "max_sockets are open"
        return "memory_budget_bytes are used" if self._memory.is_full else None

    async def _metrics(self, request: web.Request) -> web.Response:
        if self._meter is None:
            raise NotFound("metrics are off: the setting metrics is false")
        _check_reader(request, self._config().server.metrics_token)
        body, content_type = await self._meter.text(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _readings(self) -> Iterator[Reading]:
        yield "bridge_processes", (__version__,), 1
        yield "bridge_draining", (), self._guests.is_draining
        yield "bridge_sockets", (), sum(isinstance(guest, Session | RealtimeSession) for guest in self._guests)
        yield "bridge_memory_used_bytes", (), self._memory.used
        running = Counter((event.provider, event.phase) for event in self._shared.running)
        for labels, count in running.items():
            yield "bridge_events_in_flight", labels, count
        for labels, count in _states(self._shared.breakers).items():
            yield "bridge_breakers", labels, count


def _check_reader(request: web.Request, wanted: TokenReference | None) -> None:
    """Raises Unauthorized, OriginRefused."""
    if wanted is not None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(digest_of(token.strip()), wanted.digest):
            raise Unauthorized(_WANTED)
    elif not is_loopback(_peer(request)) or names_a_proxy(map(str.lower, request.headers)):
        raise OriginRefused(_REFUSED)
    else:
        check_origin(_NOBODYS, request.headers.get("Host", ""), request.headers.get("Origin"))


def _peer(request: web.Request) -> str:
    """Its address; one of IPv4 that reached a socket of IPv6 in its own form."""
    return (request.remote or "").removeprefix("::ffff:")


def _states(breakers: Breakers) -> Counter[tuple[str, str]]:
    """Count the keys in each state, by provider."""
    return Counter((key.provider, _STATES.get(type(state), "probing")) for key, state in breakers.items())


_STATES: Final = {Failing: "failing", Open: "open"}
