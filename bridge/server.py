"""What listens: from the sockets of the operating system to the door, and the way down, gracefully."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Final

from aiohttp import web

from bridge.config import Config
from bridge.door import Door
from bridge.guests import Guests
from bridge.http_connection import Connection
from bridge.listening import url_of
from bridge.relay.event import Shared
from bridge.relay.services import Services
from bridge.tls import load_certificate, server_context
from bridge.upstream.http import Upstream
from bridge.upstream.realtime import Dialler, Dials
from bridge.websocket import CLOSE_GRACE_S

# What it has to say of a handshake holds the subprotocols that were offered, and one may be a token.
logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
logging.getLogger("aiohttp.access").setLevel(logging.ERROR)

BACKLOG: Final = 1024
"""Connections that the kernel takes on its own while we are busy."""


class Server:
    """Owns the listening sockets and all that is connected to them. `start`, then `stop`."""

    def __init__(
        self, config: Config, upstream: Upstream, services: Services | None = None, dialler: Dials | None = None
    ) -> None:
        """Owns `upstream` and `dialler`, too; without one, sockets are dialled over the network."""
        self._config = config
        self._upstream = upstream
        services = services or Services()
        shared = Shared(upstream, services.breakers, config.server.max_item_bytes, services)
        self.guests = Guests(config.server.max_sockets)
        self._door = Door(config, shared, self.guests, dialler or Dialler())
        self._stopping = asyncio.Lock()
        application = self._door.application()
        self._runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=CLOSE_GRACE_S)
        self._listening: list[asyncio.Server] = []
        self._tls: ssl.SSLContext | None = None
        self.url = ""
        """Where it listens, as a WebSocket URL without a path; the port is the real one. Empty before the start."""

    async def start(self, bound: Sequence[socket.socket] = ()) -> None:
        """On sockets that are bound already, else on the address of the configuration.

        Raises OSError when the address cannot be had, ConfigError when the certificate cannot be used; all is closed
        then.
        """
        try:
            await self._listen(bound)
        except BaseException:
            await self._close()
            raise
        self.url = url_of(self._listening[0].sockets[0].getsockname(), tls=self._config.server.tls_cert is not None)

    def reload(self, config: Config) -> None:
        """Who comes from now on gets it whole; who is there, its tokens, keys and limits, and leaves if they say so.

        Where it listens stays as it was. Raises ConfigError when the certificate cannot be used; nothing has changed
        then.
        """
        if self._tls is not None and config.server.tls_cert is not None:
            server_context(config.server)
            load_certificate(self._tls, config.server)
        self._config = self._door.entrance.config = config
        self.guests.most = config.server.max_sockets
        self.guests.recheck()

    async def stop(self) -> None:
        """Drain: events in flight finish or meet the deadline, sockets close with 1001; then nothing is left open."""
        self.guests.is_draining = True
        async with self._stopping:
            # It listens until the end: who asks meanwhile, a probe or a client, is told why it is sent away.
            await self.guests.send_away(self._config.server.drain_timeout / 1000)
            await self._close()

    async def _listen(self, bound: Sequence[socket.socket]) -> None:
        loop, server = asyncio.get_running_loop(), self._config.server
        context = self._tls = server_context(server)
        await self._runner.setup()
        assert self._runner.server is not None
        patience_s = server.handshake_timeout / 1000
        create = partial(
            loop.create_server,
            partial(Connection, self._runner.server, loop, server),
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=patience_s if context else None,
            ssl_shutdown_timeout=CLOSE_GRACE_S if context else None,
        )
        for each in bound:
            self._listening.append(await create(sock=each))
        if not bound:
            self._listening.append(await create(server.host, server.port, reuse_address=True))

    async def _close(self) -> None:
        for each in self._listening:
            each.close()
        await self._runner.cleanup()
        await self._door.aclose()
        await self._upstream.aclose()
