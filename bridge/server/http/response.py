"""Write one HTTP response with one write per read of the provider, and without a task in between.

aiohttp reads the requests and keeps the connections. Its own writer takes a coroutine per chunk, and cannot leave a
response incomplete.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from aiohttp import HttpVersion11, web

from bridge.errors import BridgeError, Cancelled, SlowClient
from bridge.net import unsent_bytes
from bridge.protocol.frames import Frame
from bridge.server.callbacks import ignore
from bridge.server.http.connection import connection_of
from bridge.server.http.framing import LAST_CHUNK, Framing, chunk, framing_of, head
from bridge.server.progress import CHECKS_PER_TIMEOUT, Progress

_MAX_JOINED_BYTES: Final = 65_536
"""A shorter body is sent with its head in one write."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger, socket(7)


class HttpResponse:
    """The response to one request.

    Call `begin` once, then `write`, then `finish` or `close_incomplete`; or `send` for a complete response. Then call
    `detach`. Only `drain` waits, and no method fails: output for a disconnected client is dropped.
    """

    def __init__(self, request: web.BaseRequest, slow_s: float) -> None:
        """`slow_s`: a client that reads nothing for this time while output is queued is disconnected."""
        self._loop = asyncio.get_running_loop()
        self._connection = connection_of(request)
        self._transport = request.transport
        self._method = request.method
        self._is_http_1_1 = request.version >= HttpVersion11
        self._keep_alive = request.keep_alive
        self._slow_s = slow_s
        self._framing = Framing.NONE
        self._written_bytes = 0
        self._writable = asyncio.Event()
        self.has_begun = False
        self._cancel: Callable[[BridgeError], None] = ignore
        self._connection.listener = self
        self._connection.cancel_handshake_timeout()

    @property
    def is_closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def is_full(self) -> bool:
        """True while writing is paused, because output is queued."""
        return self._connection.is_full and not self.is_closed

    def send_continue(self) -> None:
        """Tell a client that expects `100 Continue` to send the body (RFC 9110, section 10.1.1)."""
        if self._is_http_1_1:
            self._write(_CONTINUE)

    def on_cancel(self, cancel: Callable[[BridgeError], None]) -> None:
        """Set the callback for a client that disconnects or is too slow; call it now if the client has left already."""
        self._cancel = cancel
        if self.is_closed:
            self.on_disconnect()

    def disable_keep_alive(self) -> None:
        """Close the connection after this response."""
        self._keep_alive = False

    def send(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Send a complete response."""
        self._begin(status, headers, len(body), body)

    def begin(self, status: int, headers: Iterable[tuple[str, str]], parts: Sequence[Frame]) -> None:
        """Begin a response of unknown length with the first `parts` of its body."""
        self._begin(status, headers, None, b"".join(map(bytes, parts)))

    def write(self, parts: Sequence[Frame]) -> None:
        """Write more of the body. This is on the hot path."""
        if not parts:
            return
        if self._framing is Framing.CHUNKED:
            self._write(chunk(list(map(bytes, parts))))
        elif self._framing is Framing.UNTIL_CLOSE:
            self._write(b"".join(map(bytes, parts)))

    def finish(self) -> None:
        """End a complete body."""
        if self._framing is Framing.CHUNKED:
            self._write(LAST_CHUNK)

    def close_incomplete(self) -> None:
        """End an incomplete body: written data still arrives, and the missing end shows that the body is incomplete."""
        self._keep_alive = False
        if self._transport is None:
            return
        if self._framing is Framing.UNTIL_CLOSE:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once; queued output is lost."""
        self._keep_alive = False
        if self._transport is not None:
            self._transport.abort()

    async def drain(self) -> None:
        """Wait until the client has read most of the queued output, or the connection is lost."""
        progress = Progress(self._loop.time(), self._sent_bytes)
        while self.is_full:
            self._writable.clear()
            try:
                async with asyncio.timeout(self._slow_s / CHECKS_PER_TIMEOUT):
                    await self._writable.wait()
            except TimeoutError:
                now = self._loop.time()
                if not progress.update(now, self._sent_bytes) and now >= progress.grew_at + self._slow_s:
                    self._cancel(SlowClient("the client read nothing for too long while the response was queued"))
                    self.abort()

    def detach(self) -> web.StreamResponse:
        """Release the connection; return the response that aiohttp continues with."""
        self._connection.listener = None
        if not self._keep_alive:
            self._connection.close_after(self._slow_s)
        return _Written(self._keep_alive)

    # Called by the connection.

    def on_writable(self) -> None:
        self._writable.set()

    def on_disconnect(self) -> None:
        self._writable.set()
        self._cancel(Cancelled("the client closed the connection"))

    @property
    def _sent_bytes(self) -> int:
        """The bytes that the client's side has received."""
        if self._transport is None:
            return 0
        queued_bytes = self._transport.get_write_buffer_size()
        return self._written_bytes - queued_bytes - unsent_bytes(self._transport.get_extra_info("socket").fileno())

    def _begin(self, status: int, headers: Iterable[tuple[str, str]], length: int | None, body: bytes) -> None:
        self.has_begun = True
        framing = self._framing = framing_of(self._method, status, length=length, is_http_1_1=self._is_http_1_1)
        self._keep_alive = self._keep_alive and framing is not Framing.UNTIL_CLOSE
        lines = head(status, [*headers, *self._framing_headers(length)], is_http_1_1=self._is_http_1_1)
        if framing is Framing.NONE or not body:
            self._write(lines)
        elif framing is Framing.CHUNKED:
            self._write(lines + chunk([body]))
        elif len(body) < _MAX_JOINED_BYTES:
            self._write(lines + body)
        else:
            self._write(lines)
            self._write(body)

    def _framing_headers(self, length: int | None) -> Iterator[tuple[str, str]]:
        if self._framing is Framing.LENGTH:
            yield "content-length", str(length)
        elif self._framing is Framing.CHUNKED:
            yield "transfer-encoding", "chunked"
        if not self._keep_alive:
            yield "connection", "close"
        elif not self._is_http_1_1:
            yield "connection", "keep-alive"

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._written_bytes += len(data)
            self._transport.write(data)


class _Written(web.StreamResponse):
    """A response that is written already; aiohttp only reads from it if the connection is kept."""

    def __init__(self, is_kept: bool) -> None:
        super().__init__()
        self._is_kept = is_kept

    @property
    def keep_alive(self) -> bool:
        return self._is_kept

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None
