"""One HTTP answer, written as the hot path wants it: a write per read, and no task in between.

aiohttp reads the requests and keeps the connections. Its own way of writing is a coroutine per chunk, and has no answer
that ends without its end.
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
from bridge.server.http.connection import connection_of
from bridge.server.http.framing import LAST_CHUNK, Framing, chunk, framing_of, head

_LOOKS: Final = 12
"""How often in `slow_s` to look whether the client takes anything."""

_WORTH_A_COPY: Final = 65_536
"""Up to here a body goes out with its head, in one write."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger, socket(7)


class HttpResponse:
    """To one request. `begin` once, then `write`, then `finish` or `cut`; or `send` all at once. Then `release`.

    Nothing of it blocks but `drained`, and nothing fails: what is said to a client that is gone is dropped.
    """

    def __init__(self, request: web.BaseRequest, slow_s: float) -> None:
        """`slow_s` is how long the client may take nothing while something stands in line."""
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
        self._cancel: Callable[[BridgeError], None] = _no_listener
        self._connection.listener = self
        self._connection.cancel_handshake_timeout()

    @property
    def is_closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def is_full(self) -> bool:
        """Whether what was written stands in line."""
        return self._connection.is_full and not self.is_closed

    def send_continue(self) -> None:
        """To send the body, for a client that waits to be asked (RFC 9110, section 10.1.1)."""
        if self._is_http_1_1:
            self._write(_CONTINUE)

    def on_cancel(self, cancel: Callable[[BridgeError], None]) -> None:
        """To be called when the client has left, at once if it has already; or takes nothing for too long."""
        self._cancel = cancel
        if self.is_closed:
            self.on_disconnect()

    def disable_keep_alive(self) -> None:
        """This is the connection's last answer."""
        self._keep_alive = False

    def send(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """A whole answer."""
        self._begin(status, headers, len(body), body)

    def begin(self, status: int, headers: Iterable[tuple[str, str]], parts: Sequence[Frame]) -> None:
        """An answer whose length nobody knows, and the first of it."""
        self._begin(status, headers, None, b"".join(map(bytes, parts)))

    def write(self, parts: Sequence[Frame]) -> None:
        """More of it. The hot path."""
        if not parts:
            return
        if self._framing is Framing.CHUNKED:
            self._write(chunk(list(map(bytes, parts))))
        elif self._framing is Framing.UNTIL_CLOSE:
            self._write(b"".join(map(bytes, parts)))

    def finish(self) -> None:
        """It was whole."""
        if self._framing is Framing.CHUNKED:
            self._write(LAST_CHUNK)

    def close_incomplete(self) -> None:
        """It was not, and must not look so: what was written arrives, but no end of it."""
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
        """At once; what stands in line is lost."""
        self._keep_alive = False
        if self._transport is not None:
            self._transport.abort()

    async def drain(self) -> None:
        """Until most of what stood in line is taken, or the connection is gone."""
        stuck_at, sent_bytes = self._loop.time(), self._taken_bytes
        while self.is_full:
            self._writable.clear()
            try:
                async with asyncio.timeout(self._slow_s / _LOOKS):
                    await self._writable.wait()
            except TimeoutError:
                now, before = self._loop.time(), sent_bytes
                sent_bytes = self._taken_bytes
                if sent_bytes > before:
                    stuck_at = now
                elif now >= stuck_at + self._slow_s:
                    self._cancel(SlowClient("the client took nothing for too long while the answer waited"))
                    self.abort()

    def detach(self) -> web.StreamResponse:
        """It is over: what aiohttp goes on with."""
        self._connection.listener = None
        if not self._keep_alive:
            self._connection.close_after(self._slow_s)
        return _Written(self._keep_alive)

    # What the connection calls.

    def on_writable(self) -> None:
        self._writable.set()

    def on_disconnect(self) -> None:
        self._writable.set()
        self._cancel(Cancelled("the client closed the connection"))

    @property
    def _taken_bytes(self) -> int:
        """How much the client's side has taken."""
        if self._transport is None:
            return 0
        waiting_bytes = self._transport.get_write_buffer_size()
        return self._written_bytes - waiting_bytes - unsent_bytes(self._transport.get_extra_info("socket").fileno())

    def _begin(self, status: int, headers: Iterable[tuple[str, str]], length: int | None, body: bytes) -> None:
        self.has_begun = True
        framing = self._framing = framing_of(self._method, status, length=length, is_http_1_1=self._is_http_1_1)
        self._keep_alive = self._keep_alive and framing is not Framing.UNTIL_CLOSE
        lines = head(status, [*headers, *self._framing_headers(length)], is_http_1_1=self._is_http_1_1)
        if framing is Framing.NONE or not body:
            self._write(lines)
        elif framing is Framing.CHUNKED:
            self._write(lines + chunk([body]))
        elif len(body) < _WORTH_A_COPY:
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
    """What is written already: aiohttp has but to know whether the connection stays."""

    def __init__(self, stays: bool) -> None:
        super().__init__()
        self._stays = stays

    @property
    def keep_alive(self) -> bool:
        return self._stays

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def _no_listener(_: BridgeError) -> None: ...
