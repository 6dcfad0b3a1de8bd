"""Join the frames that one iteration of the event loop makes for one client into one write.

A server's frames are unmasked and compression is off, so a frame is a header with its length, and its payload
(RFC 6455, section 5.2). A write costs more than all else that is done for a short frame.
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import Final

from aiohttp import WSMsgType

from bridge.protocol.frames import Frame

LONG_BYTES: Final = 65_536
"""Parts of this size are written without a copy. With so many bytes queued, the queue is written at once."""

_FIN_TEXT: Final = 0x80 | WSMsgType.TEXT
_MEDIUM: Final = struct.Struct("!BBH").pack
_LONG: Final = struct.Struct("!BBQ").pack


def _header(size: int) -> bytes:
    if size < 126:
        return bytes((_FIN_TEXT, size))
    return _MEDIUM(_FIN_TEXT, 126, size) if size < 65_536 else _LONG(_FIN_TEXT, 127, size)


_HEADERS: Final = tuple(map(_header, range(1024)))
"""Headers of short frames by payload size: a lookup takes a sixth of the time of packing."""


class Outbox:
    """The output of one connection. No method blocks or raises; output for a closing connection is dropped.

    Other writers of the same transport call `flush` before they write, and `end` before they write a close frame.
    """

    __slots__ = ("_call_soon", "_is_scheduled", "_parts", "_payload_bytes", "_transport", "is_ended", "written_bytes")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._call_soon = asyncio.get_running_loop().call_soon
        self._transport = transport
        self._parts: list[bytes] = []
        """Queued headers and payloads; all are shorter than `LONG_BYTES`."""
        self._payload_bytes = 0
        """The size of the queued payloads."""
        self._is_scheduled = False
        self.is_ended = False
        """True once `end` was called."""
        self.written_bytes = 0
        """The bytes that were passed to the transport."""

    @property
    def queued_bytes(self) -> int:
        """The bytes that wait for the next write."""
        return sum(map(len, self._parts))

    def send(self, frames: Sequence[Frame]) -> None:
        """Send frames. This is the hot path."""
        parts = self._parts
        queued_bytes = self._payload_bytes
        for frame in frames:
            size = len(frame)
            if size < LONG_BYTES and type(frame) is bytes:
                parts += (_HEADERS[size] if size < 1024 else _header(size), frame)
                queued_bytes += size
            else:
                self._payload_bytes = queued_bytes
                self._add([frame] if isinstance(frame, bytes) else frame.parts)
                queued_bytes = self._payload_bytes
        self._payload_bytes = queued_bytes
        if queued_bytes >= LONG_BYTES:
            self.flush()
        elif not self._is_scheduled:
            self._schedule()

    def send_one(self, parts: Sequence[bytes]) -> None:
        """Send one frame that consists of `parts`."""
        self._add(parts)
        if self._payload_bytes >= LONG_BYTES:
            self.flush()
        elif not self._is_scheduled:
            self._schedule()

    def flush(self) -> None:
        """Write all queued frames now."""
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._payload_bytes = 0
            self._write(data)

    def end(self) -> None:
        """Write all queued frames now, and drop all later ones. May be called more than once."""
        self.flush()
        self.is_ended = True

    def _add(self, parts: Sequence[bytes]) -> None:
        """Queue one frame of any size; its long parts are written at once, behind all that is queued."""
        self._parts.append(_header(sum(map(len, parts))))
        for part in parts:
            if len(part) < LONG_BYTES:
                self._parts.append(part)
                self._payload_bytes += len(part)
            else:
                self.flush()
                self._write(part)

    def _schedule(self) -> None:
        """Schedule a flush after the callbacks that are ready now."""
        if self._parts:
            self._is_scheduled = True
            self._call_soon(self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._is_scheduled = False
        self.flush()

    def _write(self, data: bytes) -> None:
        if not self.is_ended and not self._transport.is_closing():
            self.written_bytes += len(data)
            self._transport.write(data)
