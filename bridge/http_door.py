"""The paths that are plain HTTP: a gateway's steps, a provider's own API, and what browsers ask before either."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from aiohttp import web

from bridge import cors
from bridge.entrance import Entrance, below_gateway, token_in
from bridge.errors import BridgeError
from bridge.guests import Guests
from bridge.handshake import check_origin
from bridge.http_errors import error_body_for, error_response
from bridge.http_event import HttpEvent
from bridge.relay.arrivals import Arrivals
from bridge.relay.budget import Budget
from bridge.relay.event import Shared
from bridge.session import limits_of
from bridge.wire.headers import of_request
from bridge.wire.http_requests import step_of, steps_in
from bridge.wire.messages import Create, Refused

GATEWAY: Final = "/v1/{account}/{gateway}"
PROVIDER: Final = f"{GATEWAY}/{{provider}}"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]


class HttpDoor:
    def __init__(
        self,
        entrance: Entrance,
        shared: Shared,
        guests: Guests,
        memory: Budget,
        arrivals: Arrivals,
        upgraded: Handler,
    ) -> None:
        """`upgraded` has those requests to a provider that are to become WebSockets."""
        self._entrance = entrance
        self._shared = shared
        self._guests = guests
        self._memory = memory
        self._arrivals = arrivals
        self._upgraded = upgraded

    def routes(self) -> tuple[Route, ...]:
        gateway = ((method, path) for path in (GATEWAY, f"{GATEWAY}/") for method in ("POST", "OPTIONS"))
        provider = (("*", path) for path in (PROVIDER, f"{PROVIDER}/{{endpoint:.*}}"))
        return (
            *((method, path, self._steps) for method, path in gateway),
            *((method, path, self._provider) for method, path in provider),
        )

    async def _steps(self, request: web.Request) -> web.StreamResponse:
        """The steps are in the body."""
        return await self._serve(request, steps_in, reads_body=True)

    async def _provider(self, request: web.Request) -> web.StreamResponse:
        """The request is the step."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._upgraded(request)
        provider, endpoint = below_gateway(request.raw_path)
        return await self._serve(request, partial(step_of, method=request.method, provider=provider, endpoint=endpoint))

    async def _serve(
        self, request: web.Request, read: Callable[..., Create | Refused], *, reads_body: bool = False
    ) -> web.StreamResponse:
        """`read` is a function of wire.http_requests, without what is known here; `reads_body` is `HttpEvent.run`'s."""
        gateway = self._entrance.gateway(request.match_info["gateway"])
        granted = cors.grant(gateway, request.headers.get("Origin"))
        try:
            check_origin(gateway, request.headers.get("Host", ""), request.headers.get("Origin"))
            cors.check_site(gateway, request.headers)
            if cors.is_preflight(request.method, request.headers):
                return web.Response(status=204, headers=cors.preflight(granted, request.headers))
            headers = of_request(request.headers.items(), "headers")
            token = token_in(headers, gateway)
            self._guests.admit()
        except BridgeError as error:
            response = error_response(error, error_body_for(request))
            response.headers.update(granted)
            return response
        server = self._entrance.config.server
        ground = self._entrance.ground(request, gateway, token, "http")
        event = HttpEvent(request, ground, server, self._shared, self._memory, self._arrivals, granted)
        with self._guests.present(event):
            ask = partial(read, headers=headers, defaults=gateway.settings, limits=limits_of(server))
            return await event.run(ask, reads_body=reads_body)
