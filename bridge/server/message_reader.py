"""Read long WebSocket messages incrementally, in front of aiohttp's parser, which reads the short ones.

aiohttp joins, unmasks and copies a frame in one call once it is complete: a frame of 64 MiB blocks the loop for 100 ms
and takes three times its size in memory. Here each read is unmasked and appended on arrival. The format of frames is in
RFC 6455, section 5.2.
"""

import asyncio
from io import BytesIO
from typing import Final, NamedTuple, Protocol

from aiohttp import WebSocketError, WSCloseCode, WSMsgType
from aiohttp._websocket.helpers import websocket_mask  # aiohttp's C implementation has no public name
from aiohttp.http_websocket import WSMessage, WSMessageTextBytes

SHORT_FRAME_BYTES: Final = 65_536
"""Longer frames, and all messages of several frames, are read here."""

_RETRY_S: Final = 0.01

_FIN: Final = 0x80
_RESERVED: Final = 0x70
_OPCODE: Final = 0x0F
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_MASK_BYTES: Final = 4
_MIN_HEAD_BYTES: Final = 2
_LENGTH_BYTES: Final = {126: 2, 127: 8}
_DATA_OPCODES: Final = frozenset({WSMsgType.CONTINUATION, WSMsgType.TEXT, WSMsgType.BINARY})


class Parser(Protocol):
    """The interface of aiohttp's `WebSocketReader`."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]: ...

    def feed_eof(self) -> None: ...


class Queue(Protocol):
    """The interface of aiohttp's `WebSocketDataQueue`, which both parsers fill."""

    _stalled_reader: object

    def feed_data(self, data: WSMessage | WSMessageTextBytes, size: int) -> None: ...

    def set_exception(self, exc: BaseException) -> None: ...


class Handler(Protocol):
    """The part of aiohttp's protocol that pauses reading while a buffer is full."""

    transport: asyncio.Transport | None

    def _pause_reading_for_buffer(self) -> None: ...

    def _resume_reading_for_buffer(self) -> None: ...


class _Head(NamedTuple):
    """The header of a frame."""

    opcode: int
    is_last: bool
    has_reserved_bits: bool
    mask: bytes
    size: int
    """The size of the header itself, in bytes."""
    payload_bytes: int


class MessageReader:
    """Implements the interface of aiohttp's parser and wraps one."""

    def __init__(self, parser: Parser, queue: Queue, handler: Handler, max_bytes: int) -> None:
        """`max_bytes`: as in aiohttp, a message of this size or more closes the connection with 1009."""
        self._parser = parser
        self._queue = queue
        self._handler = handler
        self._max_bytes = max_bytes
        self._input = b""
        """Unread input: an incomplete frame header, or the data that follows the `_waiting` message."""
        self._passing_bytes = 0
        """The missing bytes of a short frame whose beginning was passed to aiohttp's parser."""
        self._opcode: int | None = None
        """The opcode of the message that is read here; None outside of a message."""
        self._message = BytesIO()
        self._message_bytes = 0
        self._is_last_frame = False
        self._missing_bytes = 0
        """The missing bytes of the frame that is read here."""
        self._mask = b""
        self._mask_at = 0
        self._is_discarding = False
        self._waiting: tuple[WSMessage | WSMessageTextBytes, int] | None = None
        """A complete message that waits until aiohttp's parser has delivered earlier ones, and its size."""
        self._has_failed = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Parse `data`; return True if reading has to stop, and an empty tail."""
        if self._has_failed:
            return True, b""
        data = self._input + data
        self._input = b""
        if self._waiting is not None:
            self._input = data
            return False, b""
        try:
            self._has_failed = self._read(data)
        except WebSocketError as error:
            self._has_failed = True
            self._queue.set_exception(error)
        return self._has_failed, b""

    def feed_eof(self) -> None:
        self._parser.feed_eof()

    def discard(self) -> None:
        """Drop the message that is being received, and all later ones that are read here."""
        self._is_discarding = True
        self._message = BytesIO()
        self._waiting = None

    def _read(self, data: bytes) -> bool:
        """Parse `data`; return True if aiohttp's parser has failed. Raises WebSocketError."""
        at = passed_to = 0
        while at < len(data) and self._waiting is None:
            if self._missing_bytes:
                at = passed_to = self._append(data, at)
                continue
            if self._passing_bytes:
                passing_bytes = min(self._passing_bytes, len(data) - at)
                self._passing_bytes -= passing_bytes
                at += passing_bytes
                continue
            try:
                head = _head_at(data, at, self._max_bytes)
                is_read_here = head is not None and self._is_read_here(head)
            except WebSocketError:
                self._pass_on(data[passed_to:at])  # the frames before it are valid
                raise
            if head is None:
                break
            if not is_read_here:
                self._passing_bytes = head.size + head.payload_bytes
                continue
            if self._pass_on(data[passed_to:at]):
                return True
            at = passed_to = at + head.size
            self._begin_frame(head)
        self._input = data[at:]
        return self._pass_on(data[passed_to:at])

    def _is_read_here(self, head: _Head) -> bool:
        """Return True if this class reads the frame. Raises WebSocketError; aiohttp's parser detects other errors."""
        if head.opcode not in _DATA_OPCODES or head.has_reserved_bits:
            return False
        if head.opcode == WSMsgType.CONTINUATION:
            return self._opcode is not None
        if self._opcode is not None:
            raise WebSocketError(WSCloseCode.PROTOCOL_ERROR, "a message began before the last one ended")
        return not head.is_last or head.payload_bytes > SHORT_FRAME_BYTES

    def _pass_on(self, data: bytes) -> bool:
        return bool(data) and self._parser.feed_data(data)[0]

    def _begin_frame(self, head: _Head) -> None:
        if self._opcode is None:
            self._opcode = head.opcode
        if self._message_bytes + head.payload_bytes >= self._max_bytes:
            raise _too_big(self._max_bytes)
        self._is_last_frame = head.is_last
        self._missing_bytes = head.payload_bytes
        self._mask, self._mask_at = head.mask, 0
        if not head.payload_bytes:
            self._end_frame()

    def _append(self, data: bytes, start: int) -> int:
        """Append the part of the frame that begins at `start`; return where it ends."""
        end = min(start + self._missing_bytes, len(data))
        if not self._is_discarding:
            self._message.write(self._unmasked(data[start:end]))
        self._message_bytes += end - start
        self._missing_bytes -= end - start
        self._mask_at = (self._mask_at + end - start) % _MASK_BYTES
        if not self._missing_bytes:
            self._end_frame()
        return end

    def _unmasked(self, part: bytes) -> bytes | bytearray:
        if not any(self._mask):
            return part
        unmasked = bytearray(part)
        websocket_mask(self._mask[self._mask_at :] + self._mask[: self._mask_at], unmasked)
        return unmasked

    def _end_frame(self) -> None:
        if not self._is_last_frame:
            return
        opcode, size = self._opcode, self._message_bytes
        self._opcode, self._message_bytes = None, 0
        if self._is_discarding:
            return
        data, self._message = self._message.getvalue(), BytesIO()
        if opcode == WSMsgType.TEXT:
            self._deliver(WSMessageTextBytes(WSMsgType.TEXT, data, ""), size)
        else:
            self._deliver(WSMessage(WSMsgType.BINARY, data, ""), size)

    def _deliver(self, message: WSMessage | WSMessageTextBytes, size: int) -> None:
        """Queue the message behind earlier ones.

        aiohttp's parser stops while its queue is full and does not report when it continues, so this retries by timer.
        """
        if self._queue._stalled_reader is None:
            self._queue.feed_data(message, size)
            return
        self._waiting = message, size
        self._handler._pause_reading_for_buffer()
        asyncio.get_running_loop().call_later(_RETRY_S, self._retry)

    def _retry(self) -> None:
        if self._handler.transport is None:
            return
        if self._waiting is not None and self._queue._stalled_reader is not None:
            asyncio.get_running_loop().call_later(_RETRY_S, self._retry)
            return
        if self._waiting is not None:
            message, size = self._waiting
            self._waiting = None
            self._queue.feed_data(message, size)
        self.feed_data(b"")
        self._handler._resume_reading_for_buffer()


def _head_at(data: bytes, at: int, max_bytes: int) -> _Head | None:
    """Return the header of the frame that begins at `at`; None while it is incomplete.

    Raises WebSocketError for a length of `max_bytes` or more, even before the mask has arrived.
    """
    if len(data) - at < _MIN_HEAD_BYTES:
        return None
    opcode, length = data[at] & _OPCODE, data[at + 1] & _LENGTH
    begin = at + _MIN_HEAD_BYTES
    mask_at = begin + _LENGTH_BYTES.get(length, 0)
    payload_at = mask_at + (_MASK_BYTES if data[at + 1] & _MASKED else 0)
    if len(data) < mask_at:
        return None
    payload_bytes = int.from_bytes(data[begin:mask_at]) if mask_at > begin else length
    if opcode in _DATA_OPCODES and payload_bytes >= max_bytes:
        raise _too_big(max_bytes)
    if len(data) < payload_at:
        return None
    return _Head(
        opcode=opcode,
        is_last=bool(data[at] & _FIN),
        has_reserved_bits=bool(data[at] & _RESERVED),
        mask=data[mask_at:payload_at],
        size=payload_at - at,
        payload_bytes=payload_bytes,
    )


def _too_big(max_bytes: int) -> WebSocketError:
    return WebSocketError(WSCloseCode.MESSAGE_TOO_BIG, f"the message has {max_bytes} bytes or more")
