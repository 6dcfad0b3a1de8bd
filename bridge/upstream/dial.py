"""The way of one request to a connection, over aiohttp's pool; and what its faults are called in httpx."""

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
    """The provider was reached, but there is no TLS with it: its certificate or its protocol is not accepted."""


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
"""aiohttp's exceptions and what they are in httpx's words. The first that fits is the one."""


class DialAttempt:
    """Finds one request its connection; and a fresh one, once, when a pooled one fails before any byte of answer, or
    answers 408.

    A middleware of aiohttp's: what is raised in there goes past aiohttp's own retry, which looks at the method and
    not at whether the connection was new. After a failure or a cancellation nothing is left open.
    """

    def __init__(self, request: httpx.Request) -> None:
        self.fresh_only = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection at hand is closed; with an exception when it was lost."""
        # Not the request itself: its body need not stay for as long as the answer does.
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
        """Called by the pool with a connection that the request is going to use."""
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

        Not for one that may be in the pool again: somebody else may have it. aiohttp's own `close` flushes first, to
        a provider that may never read, and says goodbye in TLS, to one that may never hear it.
        """
        if self._transport is not None:
            self._transport.abort()

    @property
    def connected(self) -> bool:
        return self._protocol is not None and self._protocol.connected

    @property
    def reset(self) -> bool:
        """The connection was lost, not closed in good order."""
        return self.closed.done() and not self.closed.cancelled() and self.closed.exception() is not None

    def fault(self, exc: aiohttp.ClientError) -> httpx.TransportError:
        """The same in httpx's words; names the host and the cause, and nothing that came from either side."""
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
            # The server gave up the idle connection while the request was on its way. It cannot be in other hands:
            # nothing has run since its answer was read.
            self.hang_up()
            answer.close()
        self.fresh_only = True
        return await send(request)


def fault_of(exc: aiohttp.ClientError, url: httpx.URL) -> httpx.TransportError:
    """The same in httpx's words; names the host and the cause, and nothing that came from either side."""
    kind, text = next((kind, text) for imported, kind, text in _FAULTS if isinstance(exc, imported))
    return kind(text.format(peer=_peer(url), cause=_cause(exc)))


class DialledRequest(aiohttp.ClientRequest):
    """A request that the pool can tell about its connection."""

    dial: DialAttempt


class Pool(aiohttp.TCPConnector):
    """aiohttp's connections without a limit: that is counted per provider, further up. Serves DialledRequests only."""

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
        # Made once per connection; an exception that nobody came to ask for would be logged.
        if protocol.closed is not None:
            protocol.closed.add_done_callback(_retrieved)
        return False


def _spoilt(connection: "Connection") -> bool:
    """Something came while the connection was idle, a 408 for example: it would pass for the next answer."""
    return connection.protocol is None or connection.protocol.should_close


def _retrieved(closed: "asyncio.Future[None]") -> None:
    if not closed.cancelled():
        closed.exception()


def _answer_begun(exc: aiohttp.ClientConnectionError) -> bool:
    """The connection closed in the middle of an answer's head; aiohttp then keeps that beginning in `message`."""
    return isinstance(exc, aiohttp.ServerDisconnectedError) and not isinstance(exc.message, str)


def _headers(request: httpx.Request) -> list[tuple[str, str]]:
    """The request's headers in their order, without those that aiohttp makes from the URL and the body."""
    return [(name.decode(), value.decode()) for name, value in request.headers.raw if name.lower() not in _FRAMING]


def _peer(url: httpx.URL) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{url.port or _DEFAULT_PORTS.get(url.scheme)}"


def _cause(exc: Exception) -> str:
    """Why, in the words of the operating system or of OpenSSL."""
    cause = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, ssl.SSLError):
        return (cause.reason or "handshake failed").lower().replace("_", " ")
    errno = getattr(cause, "errno", None)
    return os.strerror(errno).lower() if errno else "connection lost"
