"""Handle plain HTTP: steps posted to a gateway, providers' own APIs, and the preflight requests of browsers."""

from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from bridge.errors import BridgeError
from bridge.protocol.headers import request_headers
from bridge.protocol.messages import Create, RejectedMessage
from bridge.protocol.steps import message_limits
from bridge.server.access import authenticate_request, below_gateway
from bridge.server.auth import check_origin
from bridge.server.http import cors
from bridge.server.http.errors import error_body_for, error_response
from bridge.server.http.handler import HttpHandler
from bridge.server.http.requests import read_step, read_steps
from bridge.server.state import ServerState

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpRoutes:
    """Handles the requests of plain HTTP."""

    def __init__(self, state: ServerState, realtime: Handler) -> None:
        """`realtime` handles requests to a provider that ask for an upgrade to a WebSocket."""
        self._state = state
        self._access = state.access
        self._connections = state.connections
        self._realtime = realtime

    async def steps(self, request: web.Request) -> web.StreamResponse:
        """Run the steps in the body."""
        return await self._serve(request, read_steps, reads_body=True)

    async def provider(self, request: web.Request) -> web.StreamResponse:
        """Run the request as one step."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._realtime(request)
        provider, endpoint = below_gateway(request.raw_path)
        return await self._serve(
            request, partial(read_step, method=request.method, provider=provider, endpoint=endpoint)
        )

    async def _serve(
        self, request: web.Request, read: Callable[..., Create | RejectedMessage], *, reads_body: bool = False
    ) -> web.StreamResponse:
        """Authorize the request and run its event. `read` parses it; `reads_body` is passed to `HttpHandler.run`."""
        gateway = self._access.gateway(request.match_info["gateway"])
        granted = cors.grant(gateway, request.headers.get("Origin"))
        try:
            check_origin(gateway, request.headers.get("Host", ""), request.headers.get("Origin"))
            cors.check_site(gateway, request.headers)
            if cors.is_preflight(request.method, request.headers):
                return web.Response(status=204, headers=cors.preflight(granted, request.headers))
            headers = request_headers(request.headers.items(), "headers")
            token = authenticate_request(headers, gateway)
            self._connections.check_capacity()
        except BridgeError as error:
            response = error_response(error, error_body_for(request))
            response.headers.update(granted)
            return response
        context = self._access.request_context(request, gateway, token, "http")
        event = HttpHandler(request, context, self._state, granted)
        with self._connections.track(event):
            parse = partial(
                read, headers=headers, defaults=gateway.settings, limits=message_limits(self._state.settings)
            )
            return await event.run(parse, reads_body=reads_body)
