"""The door: HTTP requests in, WebSockets upgraded and authenticated, sessions run; and the way down, gracefully."""

import asyncio
import logging
from functools import partial
from typing import Final

from aiohttp import web

from bridge.config import Config
from bridge.config.gateways import Gateway
from bridge.errors import BadMessage, Draining, OutOfMemoryBudget, UnknownGateway
from bridge.handshake import (
    TOKEN_HEADER,
    check_origin,
    check_token,
    echoed_protocol,
    heartbeat_s,
    is_compat,
    offered_protocols,
)
from bridge.http_errors import WEBSOCKET_WANTED, Connection, UpgradeRequired, own_errors
from bridge.policy.breaker import Breakers
from bridge.relay.budget import Budget
from bridge.relay.event import Shared
from bridge.relay.plan import Ground
from bridge.relay.services import Services
from bridge.session import Session, Terms
from bridge.settings.step import from_headers
from bridge.tls import server_context
from bridge.upstream.http import Upstream
from bridge.websocket import CLOSE_GRACE_S, ClientSocket

log = logging.getLogger("bridge.server")

# What it has to say of a handshake holds the subprotocols that were offered, and one may be a token.
logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
logging.getLogger("aiohttp.access").setLevel(logging.ERROR)

BACKLOG: Final = 1024
"""Connections that the kernel takes on its own while we are busy."""


class Server:
    """Owns the listening sockets and the sessions. `start`, then `stop`."""

    def __init__(self, config: Config, upstream: Upstream, services: Services | None = None) -> None:
        self._config = config
        self._upstream = upstream
        self._shared = Shared(upstream, Breakers(), config.server.max_item_bytes, services or Services())
        self._memory = Budget(config.server.memory_budget_bytes, "the bridge")
        self._sessions: set[Session] = set()
        self._session_ended = asyncio.Event()
        self._is_draining = False
        self._stopping = asyncio.Lock()
        self._runner = web.AppRunner(self._application(), handle_signals=False, shutdown_timeout=CLOSE_GRACE_S)
        self._listening: asyncio.Server | None = None
        self.url = ""
        """Where it listens, as a WebSocket URL without a path; the port is the real one. Empty before the start."""

    async def start(self) -> None:
        """Raises OSError when the address cannot be had, ConfigError when the certificate cannot be used; all is closed
        then."""
        try:
            self._listening = await self._listen()
        except BaseException:
            await self._close()
            raise
        host, port = self._listening.sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'wss' if self._config.server.tls_cert else 'ws'}://{shown}:{port}"

    async def stop(self) -> None:
        """Drain: events in flight finish or meet the deadline, sockets close with 1001; then nothing is left open."""
        self._is_draining = True
        async with self._stopping:
            if self._listening is not None:
                self._listening.close()
            for session in list(self._sessions):
                session.drain()
            try:
                async with asyncio.timeout(self._config.server.drain_timeout / 1000):
                    await self._all_gone()
            except TimeoutError:
                for session in list(self._sessions):
                    session.end_events()
                await self._all_gone()
            await self._close()

    async def _listen(self) -> asyncio.Server:
        loop, server = asyncio.get_running_loop(), self._config.server
        context = server_context(server)
        await self._runner.setup()
        assert self._runner.server is not None
        patience_s = server.handshake_timeout / 1000
        return await loop.create_server(
            # Its keep-alive is for silent connections too: who does not send a request in time is let go of.
            partial(Connection, self._runner.server, loop=loop, keepalive_timeout=patience_s),
            server.host,
            server.port,
            backlog=BACKLOG,
            reuse_address=True,
            ssl=context,
            ssl_handshake_timeout=patience_s if context else None,
            ssl_shutdown_timeout=CLOSE_GRACE_S if context else None,
        )

    async def _all_gone(self) -> None:
        while self._sessions:
            self._session_ended.clear()
            await self._session_ended.wait()

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._upstream.aclose()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[own_errors])
        app.router.add_get("/v1/{account}/{gateway}", self._socket)
        app.router.add_get("/v1/{account}/{gateway}/", self._socket)
        return app

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """One handshake, and then the session until its end."""
        gateway = self._gateway(request.match_info["gateway"])
        offered = offered_protocols(request.headers.get("Sec-WebSocket-Protocol"))
        check_origin(gateway, request.headers.get("Host", ""), request.headers.get("Origin"))
        token = check_token(gateway, request.headers.get(TOKEN_HEADER), offered)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise UpgradeRequired(WEBSOCKET_WANTED)
        terms = self._terms(request, gateway, token)
        self._admit()
        echoed = echoed_protocol(offered)
        response = web.WebSocketResponse(
            autoping=False,
            compress=False,
            decode_text=False,
            max_msg_size=2 * self._config.server.max_message_bytes + 1,
            protocols=(echoed,) if echoed else (),
        )
        try:
            await response.prepare(request)
        except ValueError:
            raise BadMessage("the handshake's Sec-WebSocket-Key is none") from None
        await self._run(
            Session(response, ClientSocket(request, response), terms, self._config.server, self._shared, self._memory)
        )
        return response

    async def _run(self, session: Session) -> None:
        self._sessions.add(session)
        try:
            if self._is_draining:
                session.drain()
            await session.run()
        except Exception:
            log.exception("a session failed for a reason that nobody expected")
        finally:
            self._sessions.discard(session)
            self._session_ended.set()

    def _gateway(self, name: str) -> Gateway:
        gateway = self._config.gateway(name)
        if gateway is None:
            raise UnknownGateway(f"there is no gateway {name[:64]!r}: define it under [gateways] in the configuration")
        return gateway

    def _terms(self, request: web.Request, gateway: Gateway, token: str) -> Terms:
        headers = {name.lower(): value for name, value in request.headers.items()}
        warnings: list[str] = []
        settings = from_headers(gateway.settings, headers, "handshake", warnings)
        name = request.match_info["gateway"]
        ground = Ground(
            account=request.match_info["account"],
            gateway=name,
            settings=gateway.settings,
            providers=self._config.providers,
            live=partial(self._gateway, name),
            token=token,
            user_agent=request.headers.get("User-Agent", ""),
        )
        return Terms(ground, settings, is_compat(request.query, gateway), heartbeat_s(request.query), tuple(warnings))

    def _admit(self) -> None:
        if self._is_draining:
            raise Draining("the bridge is shutting down; connect again")
        most = self._config.server.max_sockets
        if len(self._sessions) >= most:
            raise OutOfMemoryBudget(f"{most} sockets are open, and no more are taken")
