"""A connector that opens sessions with another connector and records a tape of each.

A session may last for hours, so its tape is written continuously; memory holds only what waits for the thread
(`writer`). A cut tape is recognisable by its name and contains all messages up to the cut.
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
from bridge.tapes.socket_file import UPGRADED, HandshakeLine, Opcode, Side, SocketEnd, SocketEnding
from bridge.tapes.writer import RecordingThread
from bridge.upstream.http import Call, url_of
from bridge.upstream.realtime import ConnectorProtocol, HandshakeRefused, ProviderSocket

log = logging.getLogger("bridge.recording")

MESSAGE_BYTES: Final = 256
"""Memory of a message besides its payload."""

_NOT_RECORDED: Final = {"connection", "sec-websocket-accept", "upgrade"}
"""Headers that belong to a single connection."""


def sent_by(call: Call, protocols: Sequence[str]) -> SentRequest:
    """Return the handshake in the form of a tape's request."""
    url = url_of(call.target)
    offered = [(SUBPROTOCOL, ", ".join(protocols))] if protocols else []
    headers = [(name.lower(), value) for name, value in call.headers]
    return SentRequest(
        "GET", str(url.copy_with(scheme="ws" if url.scheme == "http" else "wss")), [*headers, *offered], b""
    )


class RecordingConnector:
    """Owns `inner`; the owner of `recording_thread` closes that later. An unanswered handshake leaves no tape."""

    def __init__(self, inner: ConnectorProtocol, recording_thread: RecordingThread) -> None:
        self._inner, self._recording_thread = inner, recording_thread

    async def open(self, call: Call, protocols: Sequence[str], max_message_bytes: int) -> ProviderSocket:
        """Open a session as `Connector.open` does, and record it."""
        recorder = SessionRecorder(self._recording_thread, sent_by(call, protocols))
        try:
            socket = await self._inner.open(call, protocols, max_message_bytes)
        except HandshakeRefused as refusal:
            recorder.refused(refusal)
            raise
        recorder.accepted(socket)
        socket.listener = recorder
        return socket

    async def aclose(self) -> None:
        await self._inner.aclose()


Row = tuple[int, Side, Opcode, bytes]
"""Milliseconds since the session's start, sender, opcode and payload of a message."""
Ended = tuple[int, Side, int, str]
"""Milliseconds, closing side, code and reason of the end."""


class SessionRecorder:
    """Records one session. Calls after its end do nothing."""

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
        self._file = _TapeFile(recording_thread, sent)

    def refused(self, refusal: HandshakeRefused) -> None:
        answered = ReceivedHead(refusal.status, list(refusal.headers.items()), self._ms())
        self._is_over = True
        self._recording_thread.submit(partial(self._file.refuse, answered, refusal.body))

    def accepted(self, socket: ProviderSocket) -> None:
        headers = [pair for pair in socket.answer_headers if pair[0] not in _NOT_RECORDED]
        self._is_writing = True
        self._recording_thread.submit(
            partial(self._file.begin, ReceivedHead(UPGRADED, headers, self._ms())), 0, self._written
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
            self._submit()

    def ended(self, by: Side, code: int, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._ended = (self._ms(), by, code, reason)
            self._submit()

    def _drop(self, reason: str) -> None:
        self._is_over = True
        self._waiting = []
        log.warning("a session with %s is not recorded: %s", self._sent.url.split("/")[2], reason)
        frees, self._held_bytes = self._held_bytes, 0
        self._recording_thread.submit(self._file.unwrite, frees)

    def _submit(self) -> None:
        """Submit all messages since the last time as one job: one job per message would be too many."""
        if self._is_writing or not (self._waiting or self._ended):
            return
        rows, self._waiting = self._waiting, []
        frees, self._held_bytes = self._held_bytes, 0
        ended, self._ended = self._ended, None
        self._is_writing = True
        submit = self._recording_thread.submit if ended is None else self._recording_thread.submit_last
        submit(partial(self._file.write, rows, ended), frees, self._written)

    def _written(self) -> None:
        self._is_writing = False
        self._submit()

    def _ms(self) -> int:
        return round((self._now() - self._started_at) * 1000)


class _TapeFile:
    """Writes the tape of one session. Only the recording thread uses it."""

    def __init__(self, recording_thread: RecordingThread, sent: SentRequest) -> None:
        self._folder = recording_thread.folder
        self._sent = sent
        self._part: Path | None = None
        """Path of the tape. None before it is created, and after a failure, which has been logged."""

    def refuse(self, answered: ReceivedHead, body: bytes) -> None:
        self.begin(answered, body)
        self._add([SocketEnding(end=SocketEnd.REFUSED, ms=answered.ms)], is_last=True)

    def begin(self, answered: ReceivedHead, body: bytes = b"") -> None:
        self._redactor = SessionRedactor(self._sent)
        self._part = self._folder.begin(self._redactor.request)
        self._add([HandshakeLine(response=self._redactor.handshake(answered, body))])

    def write(self, rows: Sequence[Row], ended: Ended | None) -> None:
        if self._part is not None:
            lines: list[TapeLine] = [self._redactor.message(*row) for row in rows]
            if ended is not None:
                lines.append(self._redactor.ending(*ended))
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
