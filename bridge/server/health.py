"""Endpoints for operators: `/metrics`, `/healthz` and `/readyz`. They also answer during a drain."""

import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from aiohttp import web

from bridge import __version__
from bridge.config.checks import is_loopback
from bridge.config.gateways import Gateway, digest_of
from bridge.errors import OriginRefused, Unauthorized
from bridge.policy.breaker import Breakers, Failing, Open
from bridge.protocol.headers import names_a_proxy
from bridge.relay.interfaces import Meter, Sample
from bridge.server.auth import check_origin
from bridge.server.http.errors import NotFound
from bridge.server.realtime import RealtimeSession
from bridge.server.session import Session
from bridge.server.state import ServerState
from bridge.settings.token_reference import TokenReference

_REFUSED: Final = (
    "without metrics_token, /metrics is served to this machine only, without a proxy and under a loopback name; "
    "set metrics_token to read it from elsewhere"
)
_UNAUTHORIZED: Final = "Unauthorized: /metrics requires the metrics_token: send header Authorization: Bearer TOKEN"
_METRICS_GATEWAY: Final = Gateway("metrics")
"""An open gateway, so that requests are checked for origin: web pages and DNS rebinding reach loopback too."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HealthRoutes:
    """Handles the requests of operators to one server, and reports the server's state as metrics."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._runtime = state.runtime
        self._connections = state.connections
        self._memory = state.memory
        self._meter: Meter | None = state.runtime.services.meter
        if self._meter is not None:
            self._meter.set_known_gateways(lambda: state.access.config.gateways)
            self._meter.register(self._samples)

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
        """Return why a new client would be refused, or None. A lost service such as Redis does not make it unready."""
        if self._connections.is_draining:
            return "shutting down"
        if self._connections.at_capacity:
            return "max_sockets are open"
        return "memory_budget_bytes are used" if self._memory.is_full else None

    async def _metrics(self, request: web.Request) -> web.Response:
        if self._meter is None:
            raise NotFound("metrics are disabled: set metrics = true")
        _check_reader(request, self._state.settings.metrics_token)
        body, content_type = await self._meter.text(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _samples(self) -> Iterator[Sample]:
        yield "bridge_processes", (__version__,), 1
        yield "bridge_draining", (), self._connections.is_draining
        yield (
            "bridge_sockets",
            (),
            sum(isinstance(connection, Session | RealtimeSession) for connection in self._connections),
        )
        yield "bridge_memory_used_bytes", (), self._memory.used
        running = Counter((event.provider, event.phase) for event in self._runtime.running)
        for labels, count in running.items():
            yield "bridge_events_in_flight", labels, count
        for labels, count in _states(self._runtime.breakers).items():
            yield "bridge_breakers", labels, count


def _check_reader(request: web.Request, required: TokenReference | None) -> None:
    """Check that the client may read metrics. Raises Unauthorized, OriginRefused."""
    if required is not None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(digest_of(token.strip()), required.digest):
            raise Unauthorized(_UNAUTHORIZED)
    elif not is_loopback(_peer(request)) or names_a_proxy(map(str.lower, request.headers)):
        raise OriginRefused(_REFUSED)
    else:
        check_origin(_METRICS_GATEWAY, request.headers.get("Host", ""), request.headers.get("Origin"))


def _peer(request: web.Request) -> str:
    """Return the client's address; an IPv4-mapped IPv6 address in its IPv4 form."""
    return (request.remote or "").removeprefix("::ffff:")


def _states(breakers: Breakers) -> Counter[tuple[str, str]]:
    """Count the keys in each state, by provider."""
    return Counter((key.provider, _STATES.get(type(state), "probing")) for key, state in breakers.items())


_STATES: Final = {Failing: "failing", Open: "open"}
