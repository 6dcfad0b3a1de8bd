"""The door: HTTP requests in, WebSockets upgraded and authenticated, sessions run; and the way down, gracefully."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from bridge.budget import Budget
from bridge.config import Config
from bridge.errors import BadField, BridgeError, ClientError, Draining, InternalError, OutOfMemoryBudget, UnknownGateway
from bridge.event import Shared
from bridge.gateways import Gateway
from bridge.handshake import (
    TOKEN_HEADER,
    check_origin,
    check_token,
    echoed_protocol,
    heartbeat_s,
    is_compat,
    offered_protocols,
)
from bridge.plan import Ground
from bridge.policy.breaker import Breakers
from bridge.session import Session, Terms
from bridge.settings import from_headers
from bridge.upstream.http import Upstream
from bridge.websocket import ClientSocket
from bridge.wire.frames import error_body

log = logging.getLogger("bridge.server")

LOOK_S: Final = 1.0
"""How often connections without a handshake are looked at."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NotFound(ClientError):
    """No such path; the message says which there are."""

    status = 404
    code = 9002


class UpgradeRequired(ClientError):
    status = 426
    code = 9001


class Server:
    """Owns the listening sockets and the sessions. `start`, then `stop`."""

    def __init__(self, config: Config, upstream: Upstream) -> None:
        self._config = config
        self._upstream = upstream
        self._shared = Shared(upstream, Breakers(), config.server.max_item_bytes)
        self._memory = Budget(config.server.memory_budget_bytes, "the bridge")
        self._sessions: set[Session] = set()
        self._is_draining = False
        self._empty = asyncio.Event()
        self._runner = web.AppRunner(self._application(), access_log=None, handle_signals=False)
        self._site: web.TCPSite | None = None
        self._doorman: _Doorman | None = None

    async def start(self) -> None:
        """Raises OSError when the address cannot be had."""
        server = self._config.server
        await self._runner.setup()
        self._site = web.TCPSite(
            self._runner, server.host, server.port, ssl_context=_tls(self._config), reuse_address=True, backlog=1024
        )
        await self._site.start()
        assert self._runner.server is not None
        self._doorman = _Doorman(self._runner.server, server.handshake_timeout / 1000)

    @property
    def url(self) -> str:
        """Where it listens, as a WebSocket URL without a path; the port is the real one."""
        server = self._config.server
        host, port = self._runner.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'wss' if server.tls_cert else 'ws'}://{shown}:{port}"

    async def stop(self) -> None:
        """Drain: events in flight finish or meet the deadline, sockets close with 1001; then nothing is left open."""
        self._is_draining = True
        if self._site is not None:
            await self._site.stop()
        for session in list(self._sessions):
            session.drain()
        try:
            async with asyncio.timeout(self._config.server.drain_timeout / 1000):
                await self._all_gone()
        except TimeoutError:
            for session in list(self._sessions):
                session.end_events()
            await self._all_gone()
        if self._doorman is not None:
            self._doorman.stop()
        await self._runner.cleanup()
        await self._upstream.aclose()

    async def _all_gone(self) -> None:
        while self._sessions:
            self._empty.clear()
            await self._empty.wait()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[_own_errors])
        app.router.add_get("/v1/{account}/{gateway}", self._socket)
        app.router.add_get("/v1/{account}/{gateway}/", self._socket)
        return app

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """One handshake, and then the session until its end."""
        gateway = self._gateway(request)
        offered = offered_protocols(request.headers.get("Sec-WebSocket-Protocol"))
        check_origin(gateway, request.headers.get("Host", ""), request.headers.get("Origin"))
        check_token(gateway, request.headers.get(TOKEN_HEADER), offered)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise UpgradeRequired("this is a WebSocket's address: connect to it with ws:// or wss://")
        terms = self._terms(request, gateway)
        self._admit()
        echoed = echoed_protocol(offered)
        response = web.WebSocketResponse(
            autoping=False,
            compress=False,
            decode_text=False,
            max_msg_size=2 * self._config.server.max_message_bytes + 1,
            protocols=(echoed,) if echoed else (),
        )
        writer = await response.prepare(request)
        assert writer is not None
        socket = ClientSocket(request, response, writer)
        session = Session(response, socket, terms, self._config.server, self._shared, self._memory)
        self._sessions.add(session)
        try:
            if self._is_draining:
                session.drain()
            await session.run()
        finally:
            self._sessions.discard(session)
            self._empty.set()
        return response

    def _gateway(self, request: web.Request) -> Gateway:
        if self._doorman is not None:
            self._doorman.let_in(request)
        name = request.match_info["gateway"]
        gateway = self._config.gateway(name)
        if gateway is None:
            raise UnknownGateway(f"there is no gateway {name[:64]!r}: define it under [gateways] in the configuration")
        return gateway

    def _terms(self, request: web.Request, gateway: Gateway) -> Terms:
        headers = {name.lower(): value for name, value in request.headers.items()}
        warnings: list[str] = []
        settings = from_headers(gateway.settings, headers, "handshake", warnings)
        if warnings:
            raise BadField("; ".join(warnings))
        ground = Ground(
            request.match_info["account"], request.match_info["gateway"], gateway.settings, self._config.providers
        )
        return Terms(ground, settings, is_compat(request.query, gateway), heartbeat_s(request.query))

    def _admit(self) -> None:
        if self._is_draining:
            raise Draining("the bridge is shutting down; connect again")
        most = self._config.server.max_sockets
        if len(self._sessions) >= most:
            raise OutOfMemoryBudget(f"{most} sockets are open, and no more are taken")


class _Doorman:
    """Lets go of connections that do not send a handshake in time."""

    def __init__(self, server: web.Server, patience_s: float) -> None:
        self._server = server
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[RequestHandler, float] = {}
        self._known: set[object] = set()
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def let_in(self, request: web.Request) -> None:
        self._known.add(request.protocol)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        open_now = set(self._server.connections)
        self._known &= open_now
        self._waiting = {c: self._waiting.get(c, now) for c in open_now - self._known}
        for connection, since in self._waiting.items():
            if now - since >= self._patience_s:
                connection.force_close()
        self._timer = self._loop.call_later(LOOK_S, self._look)


@web.middleware
async def _own_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error before the upgrade has the bridge's own body."""
    try:
        return await handler(request)
    except BridgeError as error:
        return _error_response(error)
    except web.HTTPNotFound:
        return _error_response(NotFound("no such path: a gateway's is /v1/{account_id}/{gateway_id}"))
    except web.HTTPMethodNotAllowed:
        return _error_response(UpgradeRequired("this is a WebSocket's address: connect to it with ws:// or wss://"))
    except web.HTTPException as error:
        return _error_response(UpgradeRequired(error.text or error.reason))
    except Exception:
        log.exception("a handshake failed for a reason that nobody expected")
        return _error_response(InternalError("internal error; the bridge's log tells more"))


def _error_response(error: BridgeError) -> web.Response:
    return web.Response(body=error_body(error), status=error.status, content_type="application/json")


def _tls(config: Config) -> ssl.SSLContext | None:
    server = config.server
    if server.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.tls_cert, server.tls_key)
    return context
