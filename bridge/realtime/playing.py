"""A provider's end of a session, played from its tape: what it says, when, and what it expects to hear.

What the provider said comes once the client has said all that it had said before on the tape. Between two messages
passes what passed on the tape; a client that takes its time has the rest come later, and not at once.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aiohttp import WSMsgType, web

from bridge.providers import echoed
from bridge.realtime.ends import POLICY, Close
from bridge.realtime.leg import ClientLeg, Left, opcode_of
from bridge.realtime.score import Score
from bridge.relay.budget import Budget, Hold
from bridge.tasks import Tasks
from bridge.upstream.exchange import SUBPROTOCOL, Sent
from bridge.upstream.socket_tape import UPGRADED, Handshake, SocketEnd
from bridge.upstream.tape_library import Cue
from bridge.upstream.tape_lines import pairs

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

Strayed = Callable[[str], None]
"""Called with what differs when a client says what its tape has not."""


async def play(request: web.BaseRequest, cue: Cue, sent: Sent, strayed: Strayed) -> web.StreamResponse:
    """Answer a handshake as the tape does, and have the session that follows. What it returns is over.

    `sent` is the handshake as the client made it. A client that strays from the tape is told so, and left (1008).
    """
    handshake = cue.tape.handshake
    await asyncio.sleep(handshake.ms / 1000 * cue.stretch)
    if handshake.status != UPGRADED:
        return web.Response(status=handshake.status, headers=_headers(handshake), body=handshake.body)
    response = _response(handshake, sent)
    with suppress(ConnectionError):  # the client has left meanwhile
        await response.prepare(request)
    if response.prepared and request.transport is not None:
        leg = ClientLeg(request, response, Hold(Budget(MAX_MESSAGE_BYTES, "a replay")))
        await _Play(leg, cue, Score(cue, sent), strayed).run()
    return response


def _response(handshake: Handshake, sent: Sent) -> "web.WebSocketResponse[bool]":
    picked = dict(_lowered(handshake)).get(SUBPROTOCOL)
    one = echoed([each.strip() for each in dict(sent.headers).get(SUBPROTOCOL, "").split(",") if each.strip()], picked)
    response = web.WebSocketResponse(
        autoclose=False,
        autoping=False,
        compress=False,
        decode_text=False,
        max_msg_size=MAX_MESSAGE_BYTES + 1,
        protocols=(one,) if one else (),
    )
    response.headers.extend(_headers(handshake))
    return response


def _lowered(handshake: Handshake) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in pairs(handshake.headers)]


def _headers(handshake: Handshake) -> list[tuple[str, str]]:
    return [(name, value) for name, value in _lowered(handshake) if name not in _NOT_REPLAYED]


class _Play:
    """`run` once."""

    def __init__(self, leg: ClientLeg, cue: Cue, score: Score, strayed: Strayed) -> None:
        self._leg, self._cue, self._score, self._strayed = leg, cue, score, strayed
        self._now = asyncio.get_running_loop().time
        self._arrived: asyncio.Queue[float] = asyncio.Queue()
        """The instants of the client's messages; no more than the tape has."""
        self._over: asyncio.Future[tuple[Close | None, bool]] = asyncio.get_running_loop().create_future()
        """What the client is told, and whether that is the answer to its own goodbye."""
        self._tasks = Tasks()

    async def run(self) -> None:
        self._tasks.start(self._listen(), "the client's part of a tape")
        self._tasks.start(self._say(), "the provider's part of a tape")
        try:
            close, answers = await self._over
            await self._tasks.end_all()
            await self._leg.part(close, answers=answers)
        except BaseException:
            self._leg.abort()
            raise
        finally:
            await self._tasks.end_all()

    async def _listen(self) -> None:
        try:
            while True:
                opcode, data, _ = await self._leg.receive()
                self._leg.passed_on(len(data))
                if stray := self._score.hear(opcode_of(opcode), data):
                    log.warning("%s", stray.told)
                    self._strayed(stray.told)
                    return self._end(Close(POLICY, stray.reason))
                self._arrived.put_nowait(self._now())
        except Left as left:
            self._end(left.end.client, answers=left.end.is_goodbye)

    async def _say(self) -> None:
        tape, due = self._cue.tape, self._now()
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
            await self._leg.send(opcode, data)
        except ConnectionError:  # `_listen` hears of it, too
            await asyncio.get_running_loop().create_future()
        await self._leg.drained()

    async def _leave(self) -> None:
        ending = self._cue.tape.ending
        if ending.end is SocketEnd.LOST:
            await self._leg.let_go()
        elif ending.code:
            self._end(Close(ending.code, ending.reason))

    async def _until(self, due: float, ms: int) -> float:
        due += ms / 1000 * self._cue.stretch
        if (delay_s := due - self._now()) > 0:
            await asyncio.sleep(delay_s)
        return due

    def _end(self, close: Close | None, *, answers: bool = False) -> None:
        if not self._over.done():
            self._over.set_result((close, answers))
