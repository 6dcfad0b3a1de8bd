"""Reads long WebSocket messages as they come, in front of aiohttp's parser, which reads the short ones.

aiohttp joins, unmasks and copies a frame in one call once it is whole: 64 MiB stop the loop for 100 ms, and take three
times their size while it lasts. Here each read is unmasked and appended when it comes. Frames: RFC 6455, section 5.2.
"""

import asyncio
from io import BytesIO
from typing import Final, NamedTuple, Protocol

from aiohttp import WebSocketError, WSCloseCode, WSMsgType
from aiohttp._websocket.helpers import websocket_mask  # the only one in C; aiohttp has no public name for it
from aiohttp.http_websocket import WSMessage, WSMessageTextBytes

SHORT_FRAME_BYTES: Final = 65_536
"""A frame that is longer is read here; so is every message of several frames."""

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
    """aiohttp's `WebSocketReader`."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]: ...

    def feed_eof(self) -> None: ...


class Queue(Protocol):
    """aiohttp's `WebSocketDataQueue`, which both parsers fill."""

    _stalled_reader: object

    def feed_data(self, data: WSMessage | WSMessageTextBytes, size: int) -> None: ...

    def set_exception(self, exc: BaseException) -> None: ...


class Handler(Protocol):
    """aiohttp's protocol: the hold on reading that it has for buffers."""

    transport: asyncio.Transport | None

    def _pause_reading_for_buffer(self) -> None: ...

    def _resume_reading_for_buffer(self) -> None: ...


class _Head(NamedTuple):
    """The head of a frame."""

    opcode: int
    is_last: bool
    has_reserved_bits: bool
    mask: bytes
    size: int
    """Of the head itself."""
    payload_bytes: int


class MessageReader:
    """Has the methods of aiohttp's parser, which it stands for."""

    def __init__(self, parser: Parser, queue: Queue, handler: Handler, max_bytes: int) -> None:
        """A message of `max_bytes` or more closes the connection with 1009, as aiohttp has it."""
        self._parser = parser
        self._queue = queue
        self._handler = handler
        self._max_bytes = max_bytes
        self._input = b""
        """What has come and was not read: the beginning of a frame's head, or what stands behind `_waiting`."""
        self._passing_bytes = 0
        """What is still to come of a short frame, whose beginning aiohttp's parser has."""
        self._opcode: int | None = None
        """Of the message that is read here; None when there is none."""
        self._message = BytesIO()
        self._message_bytes = 0
        self._is_last_frame = False
        self._missing_bytes = 0
        """What is still to come of the frame that is read here."""
        self._mask = b""
        self._mask_at = 0
        self._is_discarding = False
        self._waiting: tuple[WSMessage | WSMessageTextBytes, int] | None = None
        """A message that is whole, while aiohttp's parser has earlier ones that it could not hand over yet."""
        self._has_failed = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Whether the connection is to be read no more, and nothing."""
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
        """Keep nothing of the message that is on its way, or of later ones that are read here."""
        self._is_discarding = True
        self._message = BytesIO()
        self._waiting = None

    def _read(self, data: bytes) -> bool:
        """Whether aiohttp's parser has failed. Raises WebSocketError."""
        at = passed_to = 0
        while at < len(data) and self._waiting is None:
            if self._missing_bytes:
                at = passed_to = self._take(data, at)
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
                self._pass_on(data[passed_to:at])  # what came before it is right
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
        """Raises WebSocketError. What is wrong in any other way is for aiohttp's parser to find."""
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

    def _take(self, data: bytes, start: int) -> int:
        """Append what `data` has of the frame; where that ends."""
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
            self._hand_over(WSMessageTextBytes(WSMsgType.TEXT, data, ""), size)
        else:
            self._hand_over(WSMessage(WSMsgType.BINARY, data, ""), size)

    def _hand_over(self, message: WSMessage | WSMessageTextBytes, size: int) -> None:
        """Behind what came before. aiohttp's parser stops while its queue is full, and tells nobody when it goes on."""
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
    """The head of the frame that begins at `at`; None while it is not whole.

    Raises WebSocketError for a length of `max_bytes` or more, be the mask there or not.
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
