"""A client's HTTP connection: aiohttp's protocol, with timeouts and callbacks that aiohttp does not offer."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from bridge.errors import BadMessage, InternalError
from bridge.server.http.errors import error_response
from bridge.server.message_reader import MessageReader
from bridge.settings.server import ServerSettings

MAX_TARGET_CHARS: Final = 65_536
"""The maximum length of a request target; an endpoint that is sent to a provider has the same maximum."""

CLOSE_GRACE_S: Final = 5.0
"""The time in which a client has to read its remaining data after the connection is closed."""

log = logging.getLogger("bridge.server")


class ConnectionListener(Protocol):
    """The receiver of a connection's events while it answers a request."""

    def on_writable(self) -> None:
        """Continue writing: the client has read most of the queued output."""

    def on_disconnect(self) -> None:
        """Stop: the connection is lost."""


class HttpConnection(RequestHandler):
    """One connection of a client.

    Malformed HTTP gets the bridge's error body; its content is never logged. A new connection is aborted unless a
    request is accepted within `handshake_timeout`.
    """

    __slots__ = (
        "_handshake_timeout_s",
        "_handshake_timer",
        "_max_message_bytes",
        "_websocket",
        "is_full",
        "listener",
        "message_reader",
    )

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop, server: ServerSettings) -> None:
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=server.keep_alive_timeout / 1000,
            auto_decompress=False,
            max_line_size=MAX_TARGET_CHARS,
            max_field_size=server.max_header_bytes,
        )
        self._handshake_timeout_s = server.handshake_timeout / 1000
        self._handshake_timer: asyncio.TimerHandle | None = None
        self.listener: ConnectionListener | None = None
        self.is_full = False
        """True while writing is paused, because output is queued."""
        self._websocket: web.WebSocketResponse[bool] | None = None
        self._max_message_bytes = 0
        self.message_reader: MessageReader | None = None
        """The reader of messages, once the connection is a WebSocket."""

    def cancel_handshake_timeout(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None

    def upgrade_to(self, websocket: "web.WebSocketResponse[bool]", max_message_bytes: int) -> None:
        """Prepare for the upgrade to a WebSocket.

        Call this before `websocket` is prepared; `max_message_bytes` is its `max_msg_size`.
        """
        self._websocket, self._max_message_bytes = websocket, max_message_bytes

    def close_after(self, grace_s: float) -> None:
        """Abort the connection after `grace_s`, if it has not closed by then."""
        self.cancel_handshake_timeout()
        if self.transport is not None:
            self._handshake_timer = self._loop.call_later(grace_s, self.transport.abort)

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handshake_timer = self._loop.call_later(
            self._handshake_timeout_s, cast("asyncio.Transport", transport).abort
        )
        super().connection_made(transport)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_full = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.is_full = False
        if self.listener is not None:
            self.listener.on_writable()

    def eof_received(self) -> None:
        """Treat a half-closed connection as lost; asyncio would wait until all queued output is read."""
        if self.listener is not None and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.cancel_handshake_timeout()
        super().connection_lost(exc)
        if self.listener is not None:
            self.listener.on_disconnect()

    # Called by aiohttp.

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """Install the parser of a WebSocket's frames, behind a MessageReader."""
        if self._websocket is not None:
            queue = cast("Any", self._websocket._reader)
            self.message_reader = MessageReader(parser, queue, cast("Any", self), self._max_message_bytes)
        super().set_parser(cast("Any", self.message_reader or parser), data_received_cb)

    def force_close(self) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing() and transport.get_write_buffer_size():
            self.close_after(CLOSE_GRACE_S)
        super().force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size:
            raise ConnectionError("the response has started and cannot be replaced by an error")
        log.debug("request failed in aiohttp: %s", type(exc).__name__)
        error = BadMessage("the request is not valid HTTP") if status == 400 else InternalError("internal error")
        response = error_response(error)
        response.force_close()
        return response


def connection_of(request: web.BaseRequest) -> HttpConnection:
    assert isinstance(request.protocol, HttpConnection)
    return request.protocol
