"""The door: which path is whose, who may come in, and on which terms."""

import logging

from aiohttp import web

from bridge.config import Config
from bridge.config.gateways import Gateway
from bridge.entrance import Entrance
from bridge.errors import BadMessage
from bridge.guests import Guests
from bridge.handshake import (
    PROTOCOL_HEADER,
    TOKEN_HEADER,
    check_origin,
    check_token,
    heartbeat_s,
    is_compat,
    offered_protocols,
)
from bridge.http_connection import connection_of
from bridge.http_door import GATEWAY, HttpDoor, Route
from bridge.http_errors import WEBSOCKET_WANTED, UpgradeRequired, mark_as_own, own_errors
from bridge.probes import Probes
from bridge.providers import echoed
from bridge.realtime import RealtimeDoor
from bridge.relay.arrivals import Arrivals
from bridge.relay.budget import Budget
from bridge.relay.event import Shared
from bridge.session import Session, Terms
from bridge.settings.step import from_headers
from bridge.upstream.realtime import Dials
from bridge.websocket import ClientSocket, echo

log = logging.getLogger("bridge.server")


class Door:
    def __init__(self, config: Config, shared: Shared, guests: Guests, dialler: Dials) -> None:
        self.entrance = Entrance(config)
        self._shared = shared
        self._guests = guests
        self._memory = Budget(config.server.memory_budget_bytes, "the bridge")
        self._arrivals = Arrivals()
        self._realtime = RealtimeDoor(self.entrance, shared, guests, self._memory, dialler)
        self._http = HttpDoor(self.entrance, shared, guests, self._memory, self._arrivals, self._realtime.relay)
        self._probes = Probes(lambda: self.entrance.config, shared, guests, self._memory)

    async def aclose(self) -> None:
        """Closes what is connected to providers."""
        await self._realtime.aclose()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[own_errors])
        app.on_response_prepare.append(mark_as_own)
        for method, path, handler in self._routes():
            app.router.add_route(method, path, handler, expect_handler=_uninvited)
        return app

    def _routes(self) -> tuple[Route, ...]:
        """The one table of paths."""
        return (
            ("GET", GATEWAY, self._socket),
            ("GET", f"{GATEWAY}/", self._socket),
            *self._http.routes(),
            *self._probes.routes(),
        )

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """One handshake, and then the session until its end."""
        gateway = self.entrance.gateway(request.match_info["gateway"])
        offered = offered_protocols(request.headers.getall(PROTOCOL_HEADER, ()))
        check_origin(gateway, request.headers.get("Host", ""), request.headers.get("Origin"))
        token = check_token(gateway, request.headers.get(TOKEN_HEADER), offered)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise UpgradeRequired(WEBSOCKET_WANTED)
        terms = self._terms(request, gateway, token)
        self._guests.admit()
        one = echoed(offered, None)
        max_bytes = 2 * self.entrance.config.server.max_message_bytes + 1
        response = web.WebSocketResponse(
            autoping=False,
            compress=False,
            decode_text=False,
            max_msg_size=max_bytes,
            protocols=(one,) if one else (),
        )
        echo(response, one)
        connection_of(request).becomes(response, max_bytes)
        try:
            await response.prepare(request)
        except ValueError:
            raise BadMessage("the handshake's Sec-WebSocket-Key is none") from None
        connection_of(request).welcome()
        socket = ClientSocket(request, response)
        server = self.entrance.config.server
        session = Session(response, socket, terms, server, self._shared, self._memory, self._arrivals)
        with self._guests.present(session):
            try:
                await session.run()
            except Exception:
                log.exception("a session failed for a reason that nobody expected")
        return response

    def _terms(self, request: web.Request, gateway: Gateway, token: str) -> Terms:
        headers = {name.lower(): value for name, value in request.headers.items()}
        warnings: list[str] = []
        settings = from_headers(gateway.settings, headers, "handshake", warnings)
        ground = self.entrance.ground(request, gateway, token, "websocket")
        return Terms(ground, settings, is_compat(request.query, gateway), heartbeat_s(request.query), tuple(warnings))


async def _uninvited(_: web.Request) -> None:
    """Whoever wants a body asks for it, once it is known that its sender may come in."""
