"""An httpx transport over an aiohttp client session, made for a gateway.

Nothing is shared between two callers but connections. No cookie is kept, no redirect followed, the environment not
asked, no header added but Host and Content-Length. There is no deadline in here: whoever calls has one, and cancels.
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
    """Sends a request as it is, and hands out the answer read by read, its content coding undone, also one that a body
    of JSON or text does not declare.

    Extensions of a request: `target`, the bytes of the request line's target in place of the URL's own; `on_connected`,
    called once, without arguments, when a connection is at hand. Of a response: `ended`, a function that says whether
    the whole body has been read.

    Raises httpx.ConnectError (of which TlsError), ReadError for a connection lost before or in the answer,
    RemoteProtocolError for what is not HTTP, DecodingError for a content coding that is unknown or does not hold,
    LocalProtocolError for a request that cannot be written. Their messages hold no secret.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._session is None:  # not made before, for aiohttp wants the loop to run
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
        # What the middleware lets through never went out: the method, the target, a header or the host is none.
        except (aiohttp.ClientError, ValueError) as exc:
            raise httpx.LocalProtocolError("the request cannot be sent as it is", request=request) from exc
        return _response(answer, dial, request.method)

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        if self._session is not None:
            await self._session.close()


class _Upload(aiohttp.Payload):
    """A request's body, written slice by slice: never more than a few of them stand in the writer's buffer."""

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
        # The answer is complete before the upload is, or nobody wants it: aiohttp would flush to a provider that
        # has stopped reading.
        except asyncio.CancelledError:
            if writer.transport is not None:
                writer.transport.abort()
            raise


class _ProviderBody(httpx.AsyncByteStream):
    """An answer's body as it comes from the network: one iteration is what has arrived since the last.

    Raises httpx.ReadError, after all that came before the break, when the body does not come to its end.
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
            data = self._left_behind(exc)
            if not data:
                raise self._dial.fault(exc) from exc
        if data:
            return data
        if self._cut():
            raise self._dial.fault(aiohttp.ClientPayloadError())
        self.close()
        raise StopAsyncIteration

    def ended(self) -> bool:
        """Everything has been read, and it is whole."""
        return self._content.at_eof() and not self._cut()

    def close(self) -> None:
        """Close the connection at once; but not after the body's end, for then it is in the pool, or with another."""
        self._dial.closed.remove_done_callback(self._lost)
        if not self._content.is_eof():
            self._dial.hang_up()
            self._answer.close()

    async def aclose(self) -> None:
        self.close()

    def _cut(self) -> bool:
        """A body that only the connection's end ends, and that was a reset: aiohttp takes it for the end."""
        return self._until_close and self._dial.reset

    def _lost(self, _: object = None) -> None:
        """Tell the reader that the connection is gone.

        aiohttp does not when the chunks are framed wrongly, nor when the session closes: it would wait for ever.
        """
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError())

    def _left_behind(self, exc: aiohttp.ClientError) -> bytes:
        """What had arrived before the break. aiohttp's reader keeps it to itself once it knows of one."""
        self._content.set_exception(None)  # type: ignore[arg-type]  # none is what it had before
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
    """Raises ValueError for a target that would not arrive as it is written."""
    target = request.extensions.get("target", request.url.raw_path).decode("ascii")
    url = URL(f"{request.url.scheme}://{request.url.netloc.decode()}{target}", encoded=True)
    # yarl drops the question mark of an empty query, and quietly more: line ends, and what follows a `#`.
    if url.raw_path_qs not in {target, target.removesuffix("?")}:
        raise ValueError(target)
    return url


def _response(answer: aiohttp.ClientResponse, dial: DialAttempt, method: str) -> httpx.Response:
    if answer.status < 200:
        dial.hang_up()
        answer.close()
        raise httpx.RemoteProtocolError("the provider changed to another protocol, for which nobody had asked")
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
