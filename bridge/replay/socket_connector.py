"""A dialler that answers from tapes: no network, no keys.

Each session is a real WebSocket over a pair of sockets inside the process, with the tape played at its far end: what a
client of the bridge gets to see has gone the whole way.
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
from bridge.upstream.http import Call
from bridge.upstream.realtime import Connector, ProviderSocket
from bridge.upstream.transport import HEAD_LINE_BYTES

_CUE = "x-bridge-cue"
"""The header that says, within the process, which tape has been chosen."""
_GRACE_S = 5.0


class TapeConnector:
    """Plays the sessions in a library."""

    def __init__(self, library: Library, on_mismatch: OnMismatch = lambda _: None) -> None:
        """`strayed` is called with what differs when a client says what its tape has not."""
        self._library, self._on_mismatch = library, on_mismatch
        self._socket_connector = Connector(connector=self._connector)
        self._stage: web.Server | None = None
        self._numbers = count()
        self._cues: dict[str, tuple[TapeSession, SentRequest]] = {}

    async def open(self, call: Call, protocols: Sequence[str], max_message_bytes: int) -> ProviderSocket:
        """As `Dialler.open`. A handshake that no tape answers is an UnusableAnswer, as it is over HTTP."""
        sent = sent_by(call, protocols)
        try:
            tape_session = self._library.take_socket(ReplayRequest.of(sent.method, sent.url, b"", sent.headers))
        except Miss as miss:
            raise UnusableAnswer(str(miss)) from None
        number = str(next(self._numbers))
        self._cues[number] = tape_session, sent
        try:
            call = replace(call, headers=[*call.headers, (_CUE, number)])
            return await self._socket_connector.open(call, protocols, max_message_bytes)
        finally:
            self._cues.pop(number, None)

    async def aclose(self) -> None:
        await self._socket_connector.aclose()
        if self._stage is not None:
            await self._stage.shutdown(_GRACE_S)

    def _connector(self) -> aiohttp.BaseConnector:
        self._stage = web.Server(
            self._play, access_log=None, max_line_size=HEAD_LINE_BYTES, max_field_size=HEAD_LINE_BYTES
        )
        return _Pipes(self._stage)

    async def _play(self, request: web.BaseRequest) -> web.StreamResponse:
        due = self._cues.get(request.headers.getall(_CUE)[-1])  # the last: a client may send one of its own
        if due is None:
            return web.Response(status=410)  # who asked has left meanwhile
        tape_session, sent = due
        return await play(request, tape_session, sent, self._on_mismatch)


class _Pipes(aiohttp.BaseConnector):
    """Connects to a server in the same process, whatever the URL."""

    def __init__(self, server: web.Server) -> None:
        super().__init__(limit=0, force_close=True)
        self._server = server

    async def _create_connection(self, *asked: Any) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        await loop.connect_accepted_socket(self._server, theirs)
        _, protocol = await loop.create_unix_connection(self._factory, sock=ours)
        return protocol
