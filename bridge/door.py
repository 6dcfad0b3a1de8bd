"""The door: which path is whose, who may come in, and on which terms."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from aiohttp import web

from bridge.config import Config
from bridge.config.gateways import Gateway, Token
from bridge.errors import BadMessage, UnknownGateway
from bridge.guests import Guests
from bridge.handshake import (
    TOKEN_HEADER,
    check_origin,
    check_token,
    echoed_protocol,
    heartbeat_s,
    is_compat,
    offered_protocols,
    still_entitled,
)
from bridge.http_errors import WEBSOCKET_WANTED, UpgradeRequired, own_errors
from bridge.probes import Probes
from bridge.relay.budget import Budget
from bridge.relay.event import Shared
from bridge.relay.plan import Ground
from bridge.session import Session, Terms
from bridge.settings.step import from_headers
from bridge.websocket import ClientSocket

log = logging.getLogger("bridge.server")

GATEWAY: Final = "/v1/{account}/{gateway}"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door:
    def __init__(self, config: Config, shared: Shared, guests: Guests) -> None:
        self.config = config
        """As it is now: for what is looked up per request and per event."""
        self._shared = shared
        self._guests = guests
        self._memory = Budget(config.server.memory_budget_bytes, "the bridge")
        self._probes = Probes(lambda: self.config, shared, guests, self._memory)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[own_errors])
        for method, path, handler in self._routes():
            app.router.add_route(method, path, handler)
        return app

    def _routes(self) -> tuple[tuple[str, str, Handler], ...]:
        """The one table of paths. The first that fits has the request."""
        return (
            ("GET", GATEWAY, self._socket),
            ("GET", f"{GATEWAY}/", self._socket),
            *self._probes.routes(),
        )

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """One handshake, and then the session until its end."""
        gateway = self._gateway(request.match_info["gateway"])
        offered = offered_protocols(request.headers.get("Sec-WebSocket-Protocol"))
        check_origin(gateway, request.headers.get("Host", ""), request.headers.get("Origin"))
        token = check_token(gateway, request.headers.get(TOKEN_HEADER), offered)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise UpgradeRequired(WEBSOCKET_WANTED)
        terms = self._terms(request, gateway, token)
        self._guests.admit()
        echoed = echoed_protocol(offered)
        response = web.WebSocketResponse(
            autoping=False,
            compress=False,
            decode_text=False,
            max_msg_size=2 * self.config.server.max_message_bytes + 1,
            protocols=(echoed,) if echoed else (),
        )
        try:
            await response.prepare(request)
        except ValueError:
            raise BadMessage("the handshake's Sec-WebSocket-Key is none") from None
        socket = ClientSocket(request, response)
        session = Session(response, socket, terms, self.config.server, self._shared, self._memory)
        with self._guests.present(session):
            try:
                await session.run()
            except Exception:
                log.exception("a session failed for a reason that nobody expected")
        return response

    def _gateway(self, name: str) -> Gateway:
        gateway = self.config.gateway(name)
        if gateway is None:
            raise UnknownGateway(f"there is no gateway {name[:64]!r}: define it under [gateways] in the configuration")
        return gateway

    def _live(self, name: str, presented: Token | None) -> Gateway:
        return still_entitled(self._gateway(name), presented)

    def _terms(self, request: web.Request, gateway: Gateway, token: str) -> Terms:
        headers = {name.lower(): value for name, value in request.headers.items()}
        warnings: list[str] = []
        settings = from_headers(gateway.settings, headers, "handshake", warnings)
        name = request.match_info["gateway"]
        ground = Ground(
            account=request.match_info["account"],
            gateway=name,
            settings=gateway.settings,
            providers=self.config.providers,
            live=partial(self._live, name, gateway.token(token)),
            token=token,
            user_agent=request.headers.get("User-Agent", ""),
            traceparent=request.headers.get("traceparent", ""),
        )
        return Terms(ground, settings, is_compat(request.query, gateway), heartbeat_s(request.query), tuple(warnings))
