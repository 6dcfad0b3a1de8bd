"""Handle the WebSocket handshakes at providers' addresses, which open realtime sessions."""

from aiohttp import web

from bridge.protocol.headers import request_headers
from bridge.protocol.response_headers import for_handshake
from bridge.server.access import authenticate_request, below_gateway
from bridge.server.auth import PROTOCOL_HEADER, check_origin, offered_protocols
from bridge.server.http.connection import connection_of
from bridge.server.realtime.plan import RealtimeRequest
from bridge.server.realtime.session import RealtimeRuntime, RealtimeSession
from bridge.server.state import ServerState
from bridge.settings.overrides import from_headers
from bridge.upstream.realtime import ConnectorProtocol, HandshakeRefused


class RealtimeRoutes:
    """Opens realtime sessions; owns `connector`, and so the connections to providers."""

    def __init__(self, state: ServerState, connector: ConnectorProtocol) -> None:
        self._state = state
        self._connector = connector

    async def relay(self, request: web.Request) -> web.StreamResponse:
        """Run one session, from its handshake to its end.

        Raises a BridgeError if the session cannot open; a provider's refusal is returned as the response.
        """
        gateway = self._state.access.gateway(request.match_info["gateway"])
        realtime_request = _realtime_request(request)
        check_origin(gateway, request.headers.get("Host", ""), request.headers.get("Origin"))
        token = authenticate_request(realtime_request.headers, gateway, realtime_request.offered)
        self._state.connections.check_capacity()
        connection_of(request).cancel_handshake_timeout()
        warnings: list[str] = []
        settings = from_headers(gateway.settings, realtime_request.headers, "handshake", warnings)
        context = self._state.access.request_context(request, gateway, token, "realtime")
        runtime = RealtimeRuntime(self._state.settings, self._state.runtime, self._connector, self._state.memory)
        session = RealtimeSession(request, realtime_request, context, settings, runtime, warnings)
        with self._state.connections.track(session):
            try:
                return await session.run()
            except HandshakeRefused as refusal:
                return web.Response(
                    status=refusal.status, headers=for_handshake(refusal.headers.items()), body=refusal.body
                )

    async def aclose(self) -> None:
        await self._connector.aclose()


def _realtime_request(request: web.Request) -> RealtimeRequest:
    provider, endpoint = below_gateway(request.raw_path)
    path, _, query = endpoint.partition("?")
    headers = request_headers(request.headers.items(), "handshake")
    return RealtimeRequest(
        provider, path, query, headers, offered_protocols(request.headers.getall(PROTOCOL_HEADER, ()))
    )
