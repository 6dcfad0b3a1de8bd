"""The server: listening sockets, the application on them, reload, and graceful shutdown."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Final

from aiohttp import web

from bridge.config import Configuration
from bridge.process.listeners import url_of
from bridge.relay.context import Runtime
from bridge.relay.interfaces import Services
from bridge.server.app import App
from bridge.server.connections import ConnectionRegistry
from bridge.server.http.connection import HttpConnection
from bridge.server.tls import load_certificate, server_context
from bridge.server.websocket import CLOSE_GRACE_S
from bridge.upstream.http import Upstream
from bridge.upstream.realtime import Connector, ConnectorProtocol

# Its warnings about a handshake hold the offered subprotocols, and one of them may be a token.
logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
logging.getLogger("aiohttp.access").setLevel(logging.ERROR)

BACKLOG: Final = 1024
"""The number of connections that the kernel accepts while the process is busy."""


class Server:
    """Owns the listening sockets and their connections. Call `start`, then `stop`."""

    def __init__(
        self,
        config: Configuration,
        upstream: Upstream,
        services: Services | None = None,
        connector: ConnectorProtocol | None = None,
    ) -> None:
        """The server also owns `upstream` and `connector`; the default connector connects over the network."""
        self._config = config
        self._upstream = upstream
        services = services or Services()
        shared = Runtime(upstream, services.breakers, config.server.max_item_bytes, services)
        self.connections = ConnectionRegistry(config.server.max_sockets)
        self._app = App(config, shared, self.connections, connector or Connector())
        self._stopping = asyncio.Lock()
        application = self._app.build_app()
        self._runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=CLOSE_GRACE_S)
        self._sites: list[asyncio.Server] = []
        self._tls: ssl.SSLContext | None = None
        self.url = ""
        """The WebSocket URL of the server without a path, with the actual port. Empty before `start`."""

    async def start(self, bound: Sequence[socket.socket] = ()) -> None:
        """Listen on the `bound` sockets, or else on the address of the configuration.

        Raises OSError if the address is unavailable and ConfigError if the certificate is unusable; everything is
        closed in either case.
        """
        try:
            await self._listen(bound)
        except BaseException:
            await self._close()
            raise
        self.url = url_of(self._sites[0].sockets[0].getsockname(), tls=self._config.server.tls_cert is not None)

    def reload(self, config: Configuration) -> None:
        """Replace the configuration.

        New connections use all of it. Open ones use its tokens, keys and limits, and close if they are no longer
        authorized. The address does not change. Raises ConfigError if the certificate is unusable; then nothing has
        changed.
        """
        if self._tls is not None and config.server.tls_cert is not None:
            server_context(config.server)
            load_certificate(self._tls, config.server)
        self._config = self._app.state.access.config = config
        self.connections.max_connections = config.server.max_sockets
        self.connections.revalidate()

    async def stop(self) -> None:
        """Drain, then close everything: events in flight finish or reach the deadline, sockets close with 1001."""
        self.connections.is_draining = True
        async with self._stopping:
            # The server listens until the end, so that probes and clients get an answer that names the reason.
            await self.connections.drain(self._config.server.drain_timeout / 1000)
            await self._close()

    async def _listen(self, bound: Sequence[socket.socket]) -> None:
        loop, server = asyncio.get_running_loop(), self._config.server
        context = self._tls = server_context(server)
        await self._runner.setup()
        assert self._runner.server is not None
        timeout_s = server.handshake_timeout / 1000
        create = partial(
            loop.create_server,
            partial(HttpConnection, self._runner.server, loop, server),
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=timeout_s if context else None,
            ssl_shutdown_timeout=CLOSE_GRACE_S if context else None,
        )
        for sock in bound:
            self._sites.append(await create(sock=sock))
        if not bound:
            self._sites.append(await create(server.host, server.port, reuse_address=True))

    async def _close(self) -> None:
        for site in self._sites:
            site.close()
        await self._runner.cleanup()
        await self._app.aclose()
        await self._upstream.aclose()
