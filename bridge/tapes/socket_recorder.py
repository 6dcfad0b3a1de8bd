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

from bridge.tapes.exchange import SUBPROTOCOL, ReceivedHead, SentRequest
from bridge.tapes.lines import TapeLine, written
from bridge.tapes.socket_exchange import SessionRedactor
from bridge.tapes.socket_file import UPGRADED, Agreement, Opcode, Side, SocketEnd, SocketEnding
from bridge.tapes.writer import RecordingThread
from bridge.upstream.http import Call, url_of
from bridge.upstream.realtime import ConnectorProtocol, HandshakeRefused, ProviderSocket

log = logging.getLogger("bridge.recording")

MESSAGE_BYTES: Final = 256
"""What a message weighs beside its payload."""

_NOT_RECORDED: Final = {"connection", "sec-websocket-accept", "upgrade"}
"""They belong to the one connection."""


def sent_by(call: Call, protocols: Sequence[str]) -> SentRequest:
    """A handshake, as tapes know it."""
    url = url_of(call.target)
    offered = [(SUBPROTOCOL, ", ".join(protocols))] if protocols else []
    headers = [(name.lower(), value) for name, value in call.headers]
    return SentRequest(
        "GET", str(url.copy_with(scheme="ws" if url.scheme == "http" else "wss")), [*headers, *offered], b""
    )


class RecordingConnector:
    """Owns `inner`; whoever owns `desk` closes it later. A handshake that is not answered leaves no tape."""

    def __init__(self, inner: ConnectorProtocol, recording_thread: RecordingThread) -> None:
        self._inner, self._recording_thread = inner, recording_thread

    async def open(self, call: Call, protocols: Sequence[str], max_message_bytes: int) -> ProviderSocket:
        """As `Dialler.open`."""
        take = SessionRecorder(self._recording_thread, sent_by(call, protocols))
        try:
            socket = await self._inner.open(call, protocols, max_message_bytes)
        except HandshakeRefused as refusal:
            take.refused(refusal)
            raise
        take.agreed(socket)
        socket.listener = take
        return socket

    async def aclose(self) -> None:
        await self._inner.aclose()


Row = tuple[int, Side, Opcode, bytes]
"""A message, and the milliseconds since the session's start."""
Ended = tuple[int, Side, int, str]
"""When, by whom, the code and the reason."""


class SessionRecorder:
    """One session that is being recorded; after its end it hears nothing."""

    def __init__(self, recording_thread: RecordingThread, sent: SentRequest) -> None:
        self._recording_thread = recording_thread
        self._sent = sent
        self._now = asyncio.get_running_loop().time
        self._started_at = self._now()
        self._waiting: list[Row] = []
        self._held_bytes = 0
        self._ended: Ended | None = None
        self._is_over = False
        self._is_writing = False
        self._sheet = _TapeFile(recording_thread, sent)

    def refused(self, refusal: HandshakeRefused) -> None:
        answered = ReceivedHead(refusal.status, list(refusal.headers.items()), self._ms())
        self._is_over = True
        self._recording_thread.submit(partial(self._sheet.refuse, answered, refusal.body))

    def agreed(self, socket: ProviderSocket) -> None:
        headers = [pair for pair in socket.answer_headers if pair[0] not in _NOT_RECORDED]
        self._is_writing = True
        self._recording_thread.submit(
            partial(self._sheet.begin, ReceivedHead(UPGRADED, headers, self._ms())), 0, self._written
        )

    def passed(self, sender: Side, opcode: Opcode, data: bytes) -> None:
        if self._is_over:
            return
        self._waiting.append((self._ms(), sender, opcode, data))
        size = MESSAGE_BYTES + len(data)
        self._held_bytes += size
        if problem := self._recording_thread.hold(size, 0):
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
        self._recording_thread.submit(self._sheet.unwrite, frees)

    def _hand_in(self) -> None:
        """All that has come since the last time in one job: as many as messages would be too many."""
        if self._is_writing or not (self._waiting or self._ended):
            return
        rows, self._waiting = self._waiting, []
        frees, self._held_bytes = self._held_bytes, 0
        ended, self._ended = self._ended, None
        self._is_writing = True
        submit = self._recording_thread.submit if ended is None else self._recording_thread.submit_last
        submit(partial(self._sheet.write, rows, ended), frees, self._written)

    def _written(self) -> None:
        self._is_writing = False
        self._hand_in()

    def _ms(self) -> int:
        return round((self._now() - self._started_at) * 1000)


class _TapeFile:
    """The tape of one session while it is written. The thread's own."""

    def __init__(self, recording_thread: RecordingThread, sent: SentRequest) -> None:
        self._folder = recording_thread.folder
        self._sent = sent
        self._part: Path | None = None
        """None: it is not begun, or could not be written on. That has been said."""

    def refuse(self, answered: ReceivedHead, body: bytes) -> None:
        self.begin(answered, body)
        self._add([SocketEnding(end=SocketEnd.REFUSED, ms=answered.ms)], is_last=True)

    def begin(self, answered: ReceivedHead, body: bytes = b"") -> None:
        self._censor = SessionRedactor(self._sent)
        self._part = self._folder.begin(self._censor.request)
        self._add([Agreement(response=self._censor.handshake(answered, body))])

    def write(self, rows: Sequence[Row], ended: Ended | None) -> None:
        if self._part is not None:
            lines: list[TapeLine] = [self._censor.message(*row) for row in rows]
            if ended is not None:
                lines.append(self._censor.ending(*ended))
            self._add(lines, is_last=ended is not None)

    def unwrite(self) -> None:
        if self._part is not None:
            self._folder.drop(self._part)

    def _add(self, lines: Sequence[TapeLine], *, is_last: bool = False) -> None:
        part, self._part = self._part, None
        assert part is not None
        self._folder.add(part, b"".join(map(written, lines)))
        if is_last:
            self._folder.seal(part)
        else:
            self._part = part
