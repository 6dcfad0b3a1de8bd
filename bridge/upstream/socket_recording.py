"""A dialler that passes sessions on to another, and leaves a tape of each.

A session may last for hours: its tape is written as it goes, and no more of it is held than waits for the thread
(`tape_desk`). What was cut is known by its name, and still holds what had been said.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bridge.upstream.exchange import SUBPROTOCOL, Answered, Sent
from bridge.upstream.http import Call, url_of
from bridge.upstream.realtime import Dials, ProviderSocket, Refused
from bridge.upstream.socket_exchange import Censor
from bridge.upstream.socket_tape import UPGRADED, Agreement, Opcode, Side, SocketEnd, SocketEnding
from bridge.upstream.tape_desk import Desk
from bridge.upstream.tape_lines import Line, written

log = logging.getLogger("bridge.recording")

MESSAGE_BYTES: Final = 256
"""What a message weighs beside its payload."""

_NOT_RECORDED: Final = {"connection", "sec-websocket-accept", "upgrade"}
"""They belong to the one connection."""


def sent_by(call: Call, protocols: Sequence[str]) -> Sent:
    """A handshake, as tapes know it."""
    url = url_of(call.target)
    offered = [(SUBPROTOCOL, ", ".join(protocols))] if protocols else []
    headers = [(name.lower(), value) for name, value in call.headers]
    return Sent("GET", str(url.copy_with(scheme="ws" if url.scheme == "http" else "wss")), [*headers, *offered], b"")


class RecordingDialler:
    """Owns `inner`; whoever owns `desk` closes it later. A handshake that is not answered leaves no tape."""

    def __init__(self, inner: Dials, desk: Desk) -> None:
        self._inner, self._desk = inner, desk

    async def open(self, call: Call, protocols: Sequence[str], max_message_bytes: int) -> ProviderSocket:
        """As `Dialler.open`."""
        take = _Take(self._desk, sent_by(call, protocols))
        try:
            socket = await self._inner.open(call, protocols, max_message_bytes)
        except Refused as refusal:
            take.refused(refusal)
            raise
        take.agreed(socket)
        socket.witness = take
        return socket

    async def aclose(self) -> None:
        await self._inner.aclose()


Row = tuple[int, Side, Opcode, bytes]
"""A message, and the milliseconds since the session's start."""
Ended = tuple[int, Side, int, str]
"""When, by whom, the code and the reason."""


class _Take:
    """One session that is being recorded; after its end it hears nothing."""

    def __init__(self, desk: Desk, sent: Sent) -> None:
        self._desk = desk
        self._sent = sent
        self._now = asyncio.get_running_loop().time
        self._started_at = self._now()
        self._waiting: list[Row] = []
        self._held_bytes = 0
        self._ended: Ended | None = None
        self._is_over = False
        self._is_writing = False
        self._sheet = _Sheet(desk, sent)

    def refused(self, refusal: Refused) -> None:
        answered = Answered(refusal.status, list(refusal.headers.items()), self._ms())
        self._is_over = True
        self._desk.submit(partial(self._sheet.refuse, answered, refusal.body))

    def agreed(self, socket: ProviderSocket) -> None:
        headers = [pair for pair in socket.answer_headers if pair[0] not in _NOT_RECORDED]
        self._is_writing = True
        self._desk.submit(partial(self._sheet.begin, Answered(UPGRADED, headers, self._ms())), 0, self._written)

    def passed(self, sender: Side, opcode: Opcode, data: bytes) -> None:
        if self._is_over:
            return
        self._waiting.append((self._ms(), sender, opcode, data))
        size = MESSAGE_BYTES + len(data)
        self._held_bytes += size
        if problem := self._desk.hold(size, 0):
            self._drop(problem)
        else:
            self._hand_in()

    def ended(self, by: Side, code: int, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._ended = (self._ms(), by, code, reason)
            self._hand_in()

    def _drop(self, reason: str) -> None:
        self._is_over = True
        self._waiting = []
        log.warning("a session with %s is not recorded: %s", self._sent.url.split("/")[2], reason)
        frees, self._held_bytes = self._held_bytes, 0
        self._desk.submit(self._sheet.unwrite, frees)

    def _hand_in(self) -> None:
        """All that has come since the last time in one job: as many as messages would be too many."""
        if self._is_writing or not (self._waiting or self._ended):
            return
        rows, self._waiting = self._waiting, []
        frees, self._held_bytes = self._held_bytes, 0
        ended, self._ended = self._ended, None
        self._is_writing = True
        submit = self._desk.submit if ended is None else self._desk.submit_last
        submit(partial(self._sheet.write, rows, ended), frees, self._written)

    def _written(self) -> None:
        self._is_writing = False
        self._hand_in()

    def _ms(self) -> int:
        return round((self._now() - self._started_at) * 1000)


class _Sheet:
    """The tape of one session while it is written. The thread's own."""

    def __init__(self, desk: Desk, sent: Sent) -> None:
        self._folder = desk.folder
        self._sent = sent
        self._part: Path | None = None
        """None: it is not begun, or could not be written on. That has been said."""

    def refuse(self, answered: Answered, body: bytes) -> None:
        self.begin(answered, body)
        self._add([SocketEnding(end=SocketEnd.REFUSED, ms=answered.ms)], is_last=True)

    def begin(self, answered: Answered, body: bytes = b"") -> None:
        self._censor = Censor(self._sent)
        self._part = self._folder.begin(self._censor.request)
        self._add([Agreement(response=self._censor.handshake(answered, body))])

    def write(self, rows: Sequence[Row], ended: Ended | None) -> None:
        if self._part is not None:
            lines: list[Line] = [self._censor.message(*row) for row in rows]
            if ended is not None:
                lines.append(self._censor.ending(*ended))
            self._add(lines, is_last=ended is not None)

    def unwrite(self) -> None:
        if self._part is not None:
            self._folder.drop(self._part)

    def _add(self, lines: Sequence[Line], *, is_last: bool = False) -> None:
        part, self._part = self._part, None
        assert part is not None
        self._folder.add(part, b"".join(map(written, lines)))
        if is_last:
            self._folder.seal(part)
        else:
            self._part = part
