"""A connector for realtime sessions that are replayed from tapes, without network and keys.

Each session is a real WebSocket over a pair of sockets inside the process, with the tape played at the other end, so
that a replayed session takes the same path as a real one.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler

from bridge.errors import UnusableAnswer
from bridge.replay.socket_player import OnMismatch, play
from bridge.tapes.exchange import SentRequest
from bridge.tapes.library import Library, Miss, TapeSession
from bridge.tapes.matching import ReplayRequest
from bridge.tapes.socket_recorder import sent_by
from bridge.upstream.answer_reader import HEAD_LINE_BYTES
from bridge.upstream.http import Call
from bridge.upstream.realtime import Connector, ProviderSocket

_TAPE_HEADER = "x-bridge-tape"
"""The header that carries, within the process, the number of the chosen tape."""
_GRACE_S = 5.0


class TapeConnector:
    """Plays the sessions in a library."""

    def __init__(self, library: Library, on_mismatch: OnMismatch = lambda _: None) -> None:
        """`on_mismatch` is called with the difference when a client's message is not that of the tape."""
        self._library, self._on_mismatch = library, on_mismatch
        self._socket_connector = Connector(connector=self._connector)
        self._server: web.Server | None = None
        self._numbers = count()
        self._pending: dict[str, tuple[TapeSession, SentRequest]] = {}

    async def open(self, call: Call, protocols: Sequence[str], max_message_bytes: int) -> ProviderSocket:
        """Open a session, as `Connector.open` does. Raises UnusableAnswer if no tape matches, as over HTTP."""
        sent = sent_by(call, protocols)
        try:
            tape_session = self._library.take_socket(ReplayRequest.of(sent.method, sent.url, b"", sent.headers))
        except Miss as miss:
            raise UnusableAnswer(str(miss)) from None
        number = str(next(self._numbers))
        self._pending[number] = tape_session, sent
        try:
            call = replace(call, headers=[*call.headers, (_TAPE_HEADER, number)])
            return await self._socket_connector.open(call, protocols, max_message_bytes)
        finally:
            self._pending.pop(number, None)

    async def aclose(self) -> None:
        await self._socket_connector.aclose()
        if self._server is not None:
            await self._server.shutdown(_GRACE_S)

    def _connector(self) -> aiohttp.BaseConnector:
        self._server = web.Server(
            self._play, access_log=None, max_line_size=HEAD_LINE_BYTES, max_field_size=HEAD_LINE_BYTES
        )
        return _Pipes(self._server)

    async def _play(self, request: web.BaseRequest) -> web.StreamResponse:
        pending = self._pending.get(request.headers.getall(_TAPE_HEADER)[-1])  # a client may send one, too
        if pending is None:
            return web.Response(status=410)  # the client has left meanwhile
        tape_session, sent = pending
        return await play(request, tape_session, sent, self._on_mismatch)


class _Pipes(aiohttp.BaseConnector):
    """Connects every URL to a server in the same process."""

    def __init__(self, server: web.Server) -> None:
        super().__init__(limit=0, force_close=True)
        self._server = server

    async def _create_connection(self, *_: Any) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        await loop.connect_accepted_socket(self._server, theirs)
        _transport, protocol = await loop.create_unix_connection(self._factory, sock=ours)
        return protocol
