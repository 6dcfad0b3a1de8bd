"""An httpx transport over an aiohttp client session, for a gateway.

Callers share only connections. It keeps no cookies, follows no redirects, ignores the environment, and adds only the
headers Host and Content-Length. It has no deadlines: the caller cancels.
"""

import asyncio
import ssl

import aiohttp
import httpx
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from bridge.formats.codings import may_hide_coding
from bridge.upstream.dial import DialAttempt, DialledRequest, Pool, TlsError
from bridge.upstream.inflate import InflatedBody, UnlabelledBody, inflater_for

__all__ = ["AiohttpTransport", "TlsError"]

HEAD_LINE_BYTES = 65_536
READ_BYTES = 65_536
WRITE_BYTES = 65_536

_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_CODED = {b"content-encoding", b"content-length"}
_FRAMING = ("Content-Length", "Transfer-Encoding")


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends requests unchanged and returns responses read by read. Content codings are decoded, also undeclared ones of
    JSON and text.

    Request extensions: `target`, the bytes of the request target in place of the URL's own; `on_connected`, called
    once, without arguments, when the connection is established. Response extension: `ended`, a function that returns
    True once the complete body was read.

    Raises httpx.ConnectError (TlsError is one), ReadError for a connection lost before or inside the response,
    RemoteProtocolError for invalid HTTP, DecodingError for an unknown or damaged content coding, and
    LocalProtocolError for a request that cannot be sent. Their messages contain no secrets.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._session is None:  # aiohttp requires a running loop
            self._session = _session(self._ssl_context)
        content = await request.aread()
        try:
            dial = DialAttempt(request)
            answer = await self._session.request(
                request.method,
                _url(request),
                data=_Upload(content) if content else None,
                allow_redirects=False,
                middlewares=(dial,),
            )
        # Exceptions outside the middleware mean that nothing was sent: method, target, header or host is invalid.
        except (aiohttp.ClientError, ValueError) as exc:
            raise httpx.LocalProtocolError("the request cannot be sent as it is", request=request) from exc
        return _response(answer, dial, request.method)

    async def aclose(self) -> None:
        """Close all connections, including those in use."""
        if self._session is not None:
            await self._session.close()


class _Upload(aiohttp.Payload):
    """A request body that is written in slices, so that the writer's buffer stays small."""

    _value: bytes

    @property
    def size(self) -> int:
        return len(self._value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        view = memoryview(self._value)
        try:
            for start in range(0, len(view), WRITE_BYTES):
                await writer.write(view[start : start + WRITE_BYTES])
            await writer.drain()
        # The response is complete before the upload, or not needed: aiohttp would flush to a provider that has
        # stopped reading.
        except asyncio.CancelledError:
            if writer.transport is not None:
                writer.transport.abort()
            raise


class _ProviderBody(httpx.AsyncByteStream):
    """A response body from the network: each iteration returns the bytes received since the last.

    Raises httpx.ReadError if the body is cut off, after all bytes before that were returned.
    """

    def __init__(self, answer: aiohttp.ClientResponse, dial: DialAttempt) -> None:
        self._answer, self._dial = answer, dial
        self._content = answer.content
        self._until_close = self._content is not aiohttp.EMPTY_PAYLOAD and not any(
            name in answer.headers for name in _FRAMING
        )
        if not self._content.is_eof():
            dial.closed.add_done_callback(self._lost)

    def __aiter__(self) -> "_ProviderBody":
        return self

    async def __anext__(self) -> bytes:
        if not self._dial.connected:
            self._lost()
        try:
            data = await self._content.readany()
        except aiohttp.ClientError as exc:
            data = self._read_before_break(exc)
            if not data:
                raise self._dial.fault(exc) from exc
        if data:
            return data
        if self._cut():
            raise self._dial.fault(aiohttp.ClientPayloadError())
        self.close()
        raise StopAsyncIteration

    def ended(self) -> bool:
        """Return True if the complete body was read."""
        return self._content.at_eof() and not self._cut()

    def close(self) -> None:
        """Close the connection at once, unless the body ended: then it is in the pool or in use by another request."""
        self._dial.closed.remove_done_callback(self._lost)
        if not self._content.is_eof():
            self._dial.hang_up()
            self._answer.close()

    async def aclose(self) -> None:
        self.close()

    def _cut(self) -> bool:
        """Return True for a reset of a body without a length, which aiohttp treats as the normal end."""
        return self._until_close and self._dial.reset

    def _lost(self, _: object = None) -> None:
        """Report the lost connection to the reader.

        aiohttp does not do so for wrong chunk framing and when the session closes: the reader would wait for ever.
        """
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError())

    def _read_before_break(self, exc: aiohttp.ClientError) -> bytes:
        """Return the bytes received before the break, which aiohttp's reader withholds after an exception."""
        self._content.set_exception(None)  # type: ignore[arg-type]  # there was none before
        try:
            return self._content.read_nowait()
        finally:
            self._content.set_exception(exc)


def _session(ssl_context: ssl.SSLContext | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=Pool(ssl_context),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        skip_auto_headers=_NOT_ADDED,
        auto_decompress=False,
        request_class=DialledRequest,
        read_bufsize=READ_BYTES,
        max_line_size=HEAD_LINE_BYTES,
        max_field_size=HEAD_LINE_BYTES,
    )


def _url(request: httpx.Request) -> URL:
    """Return the URL. Raises ValueError for a target that would be changed on the way."""
    target = request.extensions.get("target", request.url.raw_path).decode("ascii")
    url = URL(f"{request.url.scheme}://{request.url.netloc.decode()}{target}", encoded=True)
    # yarl drops the question mark of an empty query, and silently also line ends and fragments.
    if url.raw_path_qs not in {target, target.removesuffix("?")}:
        raise ValueError(target)
    return url


def _response(answer: aiohttp.ClientResponse, dial: DialAttempt, method: str) -> httpx.Response:
    if answer.status < 200:
        dial.hang_up()
        answer.close()
        raise httpx.RemoteProtocolError("the provider switched to another protocol without a request to do so")
    body = _ProviderBody(answer, dial)
    try:
        inflater = None if body.ended() else inflater_for(", ".join(answer.headers.getall("Content-Encoding", ())))
    except httpx.DecodingError:
        body.close()
        raise
    if inflater is None:
        stream: _ProviderBody | UnlabelledBody = body
        if not body.ended() and may_hide_coding(method, answer.status, answer.headers.get("Content-Type", "")):
            stream = UnlabelledBody(body, body.ended)
        extensions = {"ended": stream.ended}
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=stream, extensions=extensions)
    headers = [pair for pair in answer.raw_headers if pair[0].lower() not in _CODED]
    return httpx.Response(answer.status, headers=headers, stream=InflatedBody(body, inflater))
