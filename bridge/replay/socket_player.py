"""Play the provider's side of a realtime session from a tape, and compare the client's messages with it.

A message of the provider is sent after the client has sent all messages that precede it on the tape. The time between
two messages is that of the tape, so a slow client delays the rest of the session.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aiohttp import WSMsgType, web

from bridge.providers import select_subprotocol
from bridge.relay.memory import MemoryBudget, MemoryReservation
from bridge.server.realtime.close import POLICY, CloseFrame
from bridge.server.realtime.peer import ClientPeer, PeerClosed, opcode_of
from bridge.tapes.exchange import SUBPROTOCOL, SentRequest
from bridge.tapes.library import TapeSession
from bridge.tapes.lines import pairs
from bridge.tapes.mismatch import Mismatch, mismatch
from bridge.tapes.socket_exchange import SessionRedactor
from bridge.tapes.socket_file import UPGRADED, Handshake, Opcode, SocketEnd
from bridge.tasks import Tasks

_FIRST_MESSAGE_LINE = 3


class ExpectedMessages:
    """Compares a client's messages with those of its tape."""

    def __init__(self, tape_session: TapeSession, sent: SentRequest) -> None:
        """`sent` is the client's handshake, whose secrets its messages may repeat."""
        self._name, self._matching = tape_session.name, tape_session.matching
        self._redactor = SessionRedactor(sent)
        lines = enumerate(tape_session.tape.messages, start=_FIRST_MESSAGE_LINE)
        self._expected = [(line, message) for line, message in lines if message.sender == "client"]
        self._received = 0

    def receive(self, opcode: Opcode, data: bytes) -> Mismatch | None:
        """Compare the client's next message; return None if it matches the tape."""
        line, taped = self._expected[self._received] if self._received < len(self._expected) else (0, None)
        self._received += 1
        shown = self._redactor.text(data)
        if taped is not None and opcode == taped.opcode and self._is_taped(data, shown, taped.data):
            return None
        expected = None if taped is None else (taped.opcode, self._matching.message(taped.data))
        return mismatch(self._name, self._received, (opcode, self._matching.message(shown)), expected, line)

    def _is_taped(self, data: bytes, shown: bytes, taped: bytes) -> bool:
        return self._matching.match(data, taped) or self._matching.match(shown, taped)


log = logging.getLogger("bridge.replay")

MAX_MESSAGE_BYTES: Final = 256 << 20

_NOT_REPLAYED: Final = {
    "connection",
    "content-encoding",
    "content-length",
    "keep-alive",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    SUBPROTOCOL,
    "transfer-encoding",
    "upgrade",
}
_OPCODES: Final = {"text": WSMsgType.TEXT, "binary": WSMsgType.BINARY}

OnMismatch = Callable[[str], None]
"""Called with the difference when a client's message is not that of the tape."""


async def play(
    request: web.BaseRequest, tape_session: TapeSession, sent: SentRequest, on_mismatch: OnMismatch
) -> web.StreamResponse:
    """Answer a handshake as the tape does, and run the session; return its response when the session has ended.

    `sent` is the client's handshake. A session whose client differs from the tape is closed with 1008 and the reason.
    """
    handshake = tape_session.tape.handshake
    await asyncio.sleep(handshake.ms / 1000 * tape_session.stretch)
    if handshake.status != UPGRADED:
        return web.Response(status=handshake.status, headers=_headers(handshake), body=handshake.body)
    response = _response(handshake, sent)
    with suppress(ConnectionError):  # the client has left meanwhile
        await response.prepare(request)
    if response.prepared and request.transport is not None:
        peer = ClientPeer(request, response, MemoryReservation(MemoryBudget(MAX_MESSAGE_BYTES, "a replay")))
        await _Player(peer, tape_session, ExpectedMessages(tape_session, sent), on_mismatch).run()
    return response


def _response(handshake: Handshake, sent: SentRequest) -> "web.WebSocketResponse[bool]":
    picked = dict(_lowered(handshake)).get(SUBPROTOCOL)
    offered = [value.strip() for value in dict(sent.headers).get(SUBPROTOCOL, "").split(",") if value.strip()]
    subprotocol = select_subprotocol(offered, picked)
    response = web.WebSocketResponse(
        autoclose=False,
        autoping=False,
        compress=False,
        decode_text=False,
        max_msg_size=MAX_MESSAGE_BYTES + 1,
        protocols=(subprotocol,) if subprotocol else (),
    )
    response.headers.extend(_headers(handshake))
    return response


def _lowered(handshake: Handshake) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in pairs(handshake.headers)]


def _headers(handshake: Handshake) -> list[tuple[str, str]]:
    return [(name, value) for name, value in _lowered(handshake) if name not in _NOT_REPLAYED]


class _Player:
    """Plays one session. Call `run` once."""

    def __init__(
        self, peer: ClientPeer, tape_session: TapeSession, expected: ExpectedMessages, on_mismatch: OnMismatch
    ) -> None:
        self._peer, self._tape_session, self._expected, self._on_mismatch = peer, tape_session, expected, on_mismatch
        self._now = asyncio.get_running_loop().time
        self._arrived: asyncio.Queue[float] = asyncio.Queue()
        """The instants of the client's messages, at most as many as the tape has."""
        self._over: asyncio.Future[tuple[CloseFrame | None, bool]] = asyncio.get_running_loop().create_future()
        """The close frame for the client, and True if it answers the client's own."""
        self._tasks = Tasks()

    async def run(self) -> None:
        self._tasks.start(self._read_client(), "the client's part of a tape")
        self._tasks.start(self._play_provider(), "the provider's part of a tape")
        try:
            close, answers = await self._over
            await self._tasks.cancel_all()
            await self._peer.close(close, answers=answers)
        except BaseException:
            self._peer.abort()
            raise
        finally:
            await self._tasks.cancel_all()

    async def _read_client(self) -> None:
        try:
            while True:
                opcode, data, _ = await self._peer.receive()
                self._peer.message_relayed(len(data))
                if difference := self._expected.receive(opcode_of(opcode), data):
                    log.warning("%s", difference.message)
                    self._on_mismatch(difference.message)
                    return self._end(CloseFrame(POLICY, difference.reason))
                self._arrived.put_nowait(self._now())
        except PeerClosed as closed:
            self._end(closed.end.client, answers=closed.end.has_close_frame)

    async def _play_provider(self) -> None:
        tape, due = self._tape_session.tape, self._now()
        ms = tape.handshake.ms
        for message in tape.messages:
            if message.sender == "client":
                due = max(due, await self._arrived.get())
            else:
                due = await self._until(due, message.ms - ms)
                await self._send(_OPCODES[message.opcode], message.data)
            ms = message.ms
        if tape.ending.by == "provider":
            await self._until(due, tape.ending.ms - ms)
            await self._leave()

    async def _send(self, opcode: WSMsgType, data: bytes) -> None:
        try:
            await self._peer.send(opcode, data)
        except ConnectionError:  # `_read_client` ends the session
            await asyncio.get_running_loop().create_future()
        await self._peer.drain()

    async def _leave(self) -> None:
        ending = self._tape_session.tape.ending
        if ending.end is SocketEnd.LOST:
            await self._peer.disconnect()
        elif ending.code:
            self._end(CloseFrame(ending.code, ending.reason))

    async def _until(self, due: float, ms: int) -> float:
        due += ms / 1000 * self._tape_session.stretch
        if (delay_s := due - self._now()) > 0:
            await asyncio.sleep(delay_s)
        return due

    def _end(self, close: CloseFrame | None, *, answers: bool = False) -> None:
        if not self._over.done():
            self._over.set_result((close, answers))
