"""The aiohttp application: the table of routes, and the handshake of a gateway's WebSocket."""

import logging

from aiohttp import web

from bridge.config import Configuration
from bridge.errors import BadMessage
from bridge.providers import select_subprotocol
from bridge.relay.arrivals import Arrivals
from bridge.relay.context import Runtime
from bridge.relay.memory import MemoryBudget
from bridge.server.access import GATEWAY_PATHS, GatewayAccess, is_below_gateway
from bridge.server.auth import PROTOCOL_HEADER, TOKEN_HEADER, check_origin, check_token, offered_protocols
from bridge.server.connections import ConnectionRegistry
from bridge.server.handshake import read_options
from bridge.server.health import HealthRoutes
from bridge.server.http.connection import connection_of
from bridge.server.http.errors import WEBSOCKET_REQUIRED, UpgradeRequired, error_middleware, set_own_headers
from bridge.server.http.routes import Handler, HttpRoutes
from bridge.server.realtime import RealtimeRoutes
from bridge.server.session import Session
from bridge.server.state import ServerState
from bridge.server.websocket import ClientSocket, ClientWebSocket, set_subprotocol
from bridge.upstream.realtime import ConnectorProtocol

log = logging.getLogger("bridge.server")


class App:
    """Builds the application and owns the connections to realtime providers."""

    def __init__(
        self, config: Configuration, runtime: Runtime, connections: ConnectionRegistry, connector: ConnectorProtocol
    ) -> None:
        memory = MemoryBudget(config.server.memory_budget_bytes, "the bridge")
        self.state = ServerState(GatewayAccess(config), runtime, connections, memory, Arrivals())
        self._realtime = RealtimeRoutes(self.state, connector)
        self._http = HttpRoutes(self.state, self._realtime.relay)
        self._health = HealthRoutes(self.state)
        self._at_gateway: dict[str, Handler] = {
            "GET": self._socket,
            "POST": self._http.steps,
            "OPTIONS": self._http.steps,
        }

    async def aclose(self) -> None:
        """Close the connections to realtime providers."""
        await self._realtime.aclose()

    def build_app(self) -> web.Application:
        app = web.Application(middlewares=[error_middleware])
        app.on_response_prepare.append(set_own_headers)
        for method, path, handler in (("*", GATEWAY_PATHS, self._gateway), *self._health.routes()):
            app.router.add_route(method, path, handler, expect_handler=_defer_continue)
        return app

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        """Handle a request at a gateway or below it."""
        if is_below_gateway(request):
            return await self._http.provider(request)
        handler = self._at_gateway.get(request.method)
        if handler is None:
            raise web.HTTPMethodNotAllowed(request.method, self._at_gateway)
        return await handler(request)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """Answer one handshake, then run the session until it ends."""
        gateway = self.state.access.gateway(request.match_info["gateway"])
        offered = offered_protocols(request.headers.getall(PROTOCOL_HEADER, ()))
        check_origin(gateway, request.headers.get("Host", ""), request.headers.get("Origin"))
        token = check_token(gateway, request.headers.get(TOKEN_HEADER), offered)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise UpgradeRequired(WEBSOCKET_REQUIRED)
        options = read_options(request, self.state.access.request_context(request, gateway, token, "websocket"))
        self.state.connections.check_capacity()
        subprotocol = select_subprotocol(offered, None)
        max_bytes = 2 * self.state.settings.max_message_bytes + 1
        response = ClientWebSocket((subprotocol,) if subprotocol else (), max_bytes)
        set_subprotocol(response, subprotocol)
        connection_of(request).upgrade_to(response, max_bytes)
        try:
            await response.prepare(request)
        except ValueError:
            raise BadMessage("invalid Sec-WebSocket-Key header") from None
        connection_of(request).cancel_handshake_timeout()
        session = Session(response, ClientSocket(request, response), options, self.state)
        with self.state.connections.track(session):
            try:
                await session.run()
            except Exception:
                log.exception("unhandled exception in session")
        return response


async def _defer_continue(_: web.Request) -> None:
    """Send no `100 Continue` yet: the handler that reads the body sends it once the client is authorized."""
