"""Get a connection for one request from aiohttp's pool, and map aiohttp's exceptions to those of httpx."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING
from weakref import WeakSet

import aiohttp
import httpx

from bridge.upstream.response_protocol import MAX_INTERIM_RESPONSES, AnswerHeadError, bound_answers

if TYPE_CHECKING:  # types that aiohttp does not export
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

KEEPALIVE_S = 75.0

_FRAMING = {b"host", b"content-length", b"transfer-encoding"}
_DEFAULT_PORTS = {"http": 80, "https": 443}

Send = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]


class TlsError(httpx.ConnectError):
    """The TLS handshake failed: the provider's certificate or protocol version is not accepted."""


_FAULTS: tuple[tuple[type[aiohttp.ClientError], type[httpx.TransportError], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, TlsError, "the certificate of {peer} is not accepted: {cause}"),
    (aiohttp.ClientConnectorSSLError, TlsError, "no TLS with {peer}: {cause}"),
    (aiohttp.ClientConnectorDNSError, httpx.ConnectError, "no address found for {peer}"),
    (aiohttp.ClientConnectorError, httpx.ConnectError, "cannot connect to {peer}: {cause}"),
    (aiohttp.InvalidURL, httpx.ConnectError, "cannot connect to {peer}: not an address"),
    (
        AnswerHeadError,
        httpx.RemoteProtocolError,
        f"{{peer}} sent more than {MAX_INTERIM_RESPONSES} interim responses, or a head that is too long",
    ),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError, "the answer of {peer} cannot be read as HTTP"),
    (aiohttp.ClientPayloadError, httpx.ReadError, "{peer} broke off its answer"),
    (aiohttp.ServerDisconnectedError, httpx.ReadError, "{peer} closed the connection before it answered"),
    (aiohttp.ClientError, httpx.ReadError, "the connection to {peer} was lost: {cause}"),
)
"""Exceptions of aiohttp, and the exception of httpx and the message for each. The first match applies."""


class DialAttempt:
    """Gets a connection for one request. Retries once on a new connection if a pooled one fails without any byte of a
    response, or answers 408.

    It is an aiohttp middleware: exceptions raised in it bypass aiohttp's own retry, which depends on the method and
    not on whether the connection was new. After a failure or a cancellation nothing is left open.
    """

    def __init__(self, request: httpx.Request) -> None:
        self.fresh_only = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the current connection is closed; with an exception if it was lost."""
        # The request itself is not kept, so that its body can be freed before the response ends.
        self._url = request.url
        self._headers = _headers(request)
        self._on_connected: Callable[[], None] | None = request.extensions.get("on_connected")
        self._reused = False
        self._protocol: ResponseHandler | None = None
        self._transport: asyncio.Transport | None = None

    async def __call__(self, request: aiohttp.ClientRequest, send: Send) -> aiohttp.ClientResponse:
        assert isinstance(request, DialledRequest)
        request.dial = self
        request.headers.extend(self._headers)
        try:
            return await self._send(request, send)
        except aiohttp.ClientError as exc:
            self.hang_up()
            raise self.fault(exc) from exc
        except BaseException:
            self.hang_up()
            raise

    def take(self, connection: "Connection", *, reused: bool) -> None:
        """Receive the connection that the request is going to use. Called by the pool."""
        assert connection.protocol is not None
        self._reused = reused
        self._protocol = connection.protocol
        self._transport = connection.transport
        self.closed = connection.protocol.closed or self.closed
        if self._on_connected is not None:
            on_connected, self._on_connected = self._on_connected, None
            on_connected()

    def hang_up(self) -> None:
        """Close the connection at once.

        Do not call it for a connection that may be back in the pool: another request may use it. aiohttp's own `close`
        first flushes and ends TLS, both of which may wait for a provider that does not read.
        """
        if self._transport is not None:
            self._transport.abort()

    @property
    def connected(self) -> bool:
        return self._protocol is not None and self._protocol.connected

    @property
    def reset(self) -> bool:
        """True if the connection was lost and not closed normally."""
        return self.closed.done() and not self.closed.cancelled() and self.closed.exception() is not None

    def fault(self, exc: aiohttp.ClientError) -> httpx.TransportError:
        """Return the httpx exception for `exc`. Its message names the host and the cause, and quotes neither side."""
        return fault_of(exc, self._url)

    async def _send(self, request: aiohttp.ClientRequest, send: Send) -> aiohttp.ClientResponse:
        try:
            answer = await send(request)
        except aiohttp.ClientConnectionError as exc:
            if not self._reused or _answer_begun(exc):
                raise
        else:
            if not self._reused or answer.status != HTTPStatus.REQUEST_TIMEOUT:
                return answer
            # The server gave up the idle connection while the request was sent. No other request can use it yet:
            # no other task has run since the response was read.
            self.hang_up()
            answer.close()
        self.fresh_only = True
        return await send(request)


def fault_of(exc: aiohttp.ClientError, url: httpx.URL) -> httpx.TransportError:
    """Return the httpx exception for `exc`. Its message names the host and the cause, and quotes neither side."""
    kind, text = next((kind, text) for imported, kind, text in _FAULTS if isinstance(exc, imported))
    return kind(text.format(peer=_peer(url), cause=_cause(exc)))


class DialledRequest(aiohttp.ClientRequest):
    """A request with a reference to its DialAttempt, which the pool notifies."""

    dial: DialAttempt


class Pool(aiohttp.TCPConnector):
    """aiohttp's pool without a limit: calls are limited per provider by `Upstream`. Accepts only DialledRequests."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEPALIVE_S, ssl=ssl_context or True)
        bound_answers(self)
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # the signature is aiohttp's
    ) -> "Connection":
        assert isinstance(req, DialledRequest)
        connection = await super().connect(req, traces, timeout)
        while reused := self._is_used(connection):
            if not (req.dial.fresh_only or _spoilt(connection)):
                break
            connection.close()
            connection = await super().connect(req, traces, timeout)
        req.dial.take(connection, reused=reused)
        return connection

    def _is_used(self, connection: "Connection") -> bool:
        protocol = connection.protocol
        assert protocol is not None
        if protocol in self._used:
            return True
        self._used.add(protocol)
        # Once per connection: asyncio logs an exception that is never retrieved.
        if protocol.closed is not None:
            protocol.closed.add_done_callback(_retrieved)
        return False


def _spoilt(connection: "Connection") -> bool:
    """Return True if data arrived on the idle connection, such as a 408: it would be read as the next response."""
    return connection.protocol is None or connection.protocol.should_close


def _retrieved(closed: "asyncio.Future[None]") -> None:
    if not closed.cancelled():
        closed.exception()


def _answer_begun(exc: aiohttp.ClientConnectionError) -> bool:
    """Return True if the connection closed inside a response head, which aiohttp then keeps in `message`."""
    return isinstance(exc, aiohttp.ServerDisconnectedError) and not isinstance(exc.message, str)


def _headers(request: httpx.Request) -> list[tuple[str, str]]:
    """Return the request's headers in order, without those that aiohttp derives from the URL and the body."""
    return [(name.decode(), value.decode()) for name, value in request.headers.raw if name.lower() not in _FRAMING]


def _peer(url: httpx.URL) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{url.port or _DEFAULT_PORTS.get(url.scheme)}"


def _cause(exc: Exception) -> str:
    """Return the reason as the operating system or OpenSSL names it."""
    cause = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, ssl.SSLError):
        return (cause.reason or "handshake failed").lower().replace("_", " ")
    errno = getattr(cause, "errno", None)
    return os.strerror(errno).lower() if errno else "connection lost"
