"""The paths that are plain HTTP: a gateway's steps, a provider's own API, and what browsers ask before either."""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from aiohttp import web

from bridge import cors
from bridge.config.gateways import Gateway
from bridge.entrance import Entrance
from bridge.errors import BridgeError
from bridge.guests import Guests
from bridge.handshake import TOKEN_HEADER, check_origin, check_token
from bridge.http_errors import NotFound, error_response
from bridge.http_event import HttpEvent
from bridge.policy.gateway_tokens import token_as_key
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

_ORIGIN: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?]*)?")
"""Of a target in absolute form (RFC 9112, section 3.2.2)."""

_NO_WEBSOCKET: Final = "no WebSocket is to be had below a gateway's address; one of events is at the address itself"


class HttpDoor:
    def __init__(self, entrance: Entrance, shared: Shared, guests: Guests, memory: Budget) -> None:
        self._entrance = entrance
        self._shared = shared
        self._guests = guests
        self._memory = memory

    def routes(self) -> tuple[Route, ...]:
        gateway = ((method, path) for path in (GATEWAY, f"{GATEWAY}/") for method in ("POST", "OPTIONS"))
        provider = (("*", path) for path in (PROVIDER, f"{PROVIDER}/{{endpoint:.*}}"))
        return (
            *((method, path, self._steps) for method, path in gateway),
            *((method, path, self._provider) for method, path in provider),
        )

    async def _steps(self, request: web.Request) -> web.StreamResponse:
        """The steps are in the body."""
        return await self._serve(request, steps_in)

    async def _provider(self, request: web.Request) -> web.StreamResponse:
        """The request is the step."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._realtime(request)
        provider, endpoint = below_gateway(request.raw_path)
        return await self._serve(request, partial(step_of, method=request.method, provider=provider, endpoint=endpoint))

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        raise NotFound(_NO_WEBSOCKET)

    async def _serve(self, request: web.Request, read: Callable[..., Create | Refused]) -> web.StreamResponse:
        """`read` is a function of wire.http_requests, without what is known here."""
        gateway = self._entrance.gateway(request.match_info["gateway"])
        granted = cors.grant(gateway, request.headers.get("Origin"))
        try:
            check_origin(gateway, request.headers.get("Host", ""), request.headers.get("Origin"))
            cors.check_site(gateway, request.headers)
            if cors.is_preflight(request.method, request.headers):
                return web.Response(status=204, headers=cors.preflight(granted, request.headers))
            headers = of_request(request.headers.items(), "headers")
            token = _token_in(headers, gateway)
            self._guests.admit()
        except BridgeError as error:
            response = error_response(error)
            response.headers.update(granted)
            return response
        server = self._entrance.config.server
        ground = self._entrance.ground(request, gateway, token, "http")
        event = HttpEvent(request, ground, server, self._shared, self._memory, granted)
        with self._guests.present(event):
            return await event.run(partial(read, headers=headers, defaults=gateway.settings, limits=limits_of(server)))


def below_gateway(raw_path: str) -> tuple[str, str]:
    """Provider and endpoint of `/v1/ACCOUNT/GATEWAY/PROVIDER/ENDPOINT?QUERY`, as they are written."""
    path, mark, query = _ORIGIN.sub("", raw_path, count=1).partition("?")
    _, _, _, _, provider, *endpoint = path.split("/", 5)
    return provider, "".join((*endpoint, mark, query))


def _token_in(headers: Mapping[str, str], gateway: Gateway) -> str:
    """The name of the token that came, be it as a provider's key; empty if the gateway is open. Raises Unauthorized."""
    presented = headers.get(TOKEN_HEADER)
    found = token_as_key(gateway, headers) if presented is None and not gateway.is_open else None
    return check_token(gateway, presented, ()) if found is None else found
