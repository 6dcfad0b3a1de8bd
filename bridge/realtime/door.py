"""Where a realtime session comes in: a WebSocket's handshake at a provider's address."""

from aiohttp import web

from bridge.entrance import Entrance, below_gateway, token_in
from bridge.guests import Guests
from bridge.handshake import PROTOCOL_HEADER, check_origin, offered_protocols
from bridge.http_connection import connection_of
from bridge.realtime.planning import Asked
from bridge.realtime.session import House, RealtimeSession
from bridge.relay.budget import Budget
from bridge.relay.event import Shared
from bridge.settings.step import from_headers
from bridge.upstream.realtime import Dials, Refused
from bridge.wire.answer_headers import for_handshake
from bridge.wire.headers import of_request


class RealtimeDoor:
    """Owns `dialler`, and so the connections to providers."""

    def __init__(self, entrance: Entrance, shared: Shared, guests: Guests, memory: Budget, dialler: Dials) -> None:
        self._entrance = entrance
        self._shared = shared
        self._guests = guests
        self._memory = memory
        self._dialler = dialler

    async def relay(self, request: web.Request) -> web.StreamResponse:
        """One session, from its handshake to its end.

        What keeps it from opening is raised, a BridgeError, but for a provider's refusal: that is the answer.
        """
        gateway = self._entrance.gateway(request.match_info["gateway"])
        asked = _asked(request)
        check_origin(gateway, request.headers.get("Host", ""), request.headers.get("Origin"))
        token = token_in(asked.headers, gateway, asked.offered)
        self._guests.admit()
        connection_of(request).welcome()
        warnings: list[str] = []
        settings = from_headers(gateway.settings, asked.headers, "handshake", warnings)
        ground = self._entrance.ground(request, gateway, token, "realtime")
        house = House(self._entrance.config.server, self._shared, self._dialler, self._memory)
        session = RealtimeSession(request, asked, ground, settings, house, warnings)
        with self._guests.present(session):
            try:
                return await session.run()
            except Refused as refusal:
                return web.Response(
                    status=refusal.status, headers=for_handshake(refusal.headers.items()), body=refusal.body
                )

    async def aclose(self) -> None:
        await self._dialler.aclose()


def _asked(request: web.Request) -> Asked:
    provider, endpoint = below_gateway(request.raw_path)
    path, _, query = endpoint.partition("?")
    headers = of_request(request.headers.items(), "handshake")
    return Asked(provider, path, query, headers, offered_protocols(request.headers.getall(PROTOCOL_HEADER, ())))
