"""The httpx transport of a gateway, over connections of its own.

Callers share only connections. It keeps no cookies, follows no redirects, ignores the environment, and adds only the
headers Host and Content-Length. It has no deadlines: the caller cancels.
"""

import ssl
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import httpx

from bridge.formats.codings import may_hide_coding
from bridge.upstream.body import PushedBody
from bridge.upstream.connection import PushedAnswer
from bridge.upstream.inflate import InflatedBody, inflater_for, plain_body
from bridge.upstream.pool import Pool
from bridge.upstream.request_head import request_head

MAX_TYPE_BYTES: Final = 128
"""Longer media types are cut off: the decisions about them are cached."""

_CODED: Final = {b"content-encoding", b"content-length"}


class HttpTransport(httpx.AsyncBaseTransport):
    """Sends requests unchanged and returns responses whose stream is a `PushedBody`, read by read. Content codings are
    decoded, also undeclared ones of JSON and text.

    Request extensions: `target`, the bytes of the request target in place of the URL's own; `on_connected`, called
    once, without arguments, when the connection is established. Response extension: `ended`, a function that returns
    True once the complete body was read.

    A request is sent once more, on a new connection, if a connection that was used before fails without any byte of a
    response, or answers 408.

    Raises httpx.ConnectError (dial.TlsError is one), ReadError for a connection lost before or inside the response,
    RemoteProtocolError for invalid HTTP, DecodingError for an unknown or damaged content coding, and
    LocalProtocolError for a request that cannot be sent. Their messages contain no secrets.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._pool: Pool | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        pool = self._pool
        if pool is None:  # it requires a running loop
            pool = self._pool = Pool(self._ssl_context)
        # The request itself is not kept, so that its body can be freed before the response ends.
        stream = request.stream
        content = b"".join(stream) if isinstance(stream, httpx.ByteStream) else await request.aread()
        url, method, extensions = request.url, request.method, request.extensions
        host = url.netloc
        target = extensions.get("target", url.raw_path)
        head = request_head(method, target, host, request.headers.raw, len(content))
        origin = (url.scheme, host)
        connection = pool.take(origin) or await pool.connect(origin, url)
        on_connected: Callable[[], None] | None = extensions.get("on_connected")
        if on_connected is not None:
            on_connected()
        answer = connection.send(method, head, content)
        error = await _opened(answer)
        if connection.is_reused and (answer.is_stale or answer.status == HTTPStatus.REQUEST_TIMEOUT):
            # The server gave up the idle connection while the request was sent; it may have given up the others too.
            answer.close()
            pool.drop_idle(origin)
            answer = (await pool.connect(origin, url)).send(method, head, content)
            error = await _opened(answer)
        if error is not None:
            try:
                raise error
            finally:
                del error, answer  # the traceback refers to this frame
        return _response(answer)

    async def aclose(self) -> None:
        """Close all connections, including those in use."""
        if self._pool is not None:
            await self._pool.aclose()


async def _opened(answer: PushedAnswer) -> httpx.RequestError | None:
    """Wait for the head. A cancelled wait closes the connection at once."""
    try:
        return await answer.opened
    except BaseException:
        answer.close()
        raise


def _response(answer: PushedAnswer) -> httpx.Response:
    headers, body = answer.headers, _decoded(answer)
    if isinstance(body, InflatedBody):
        headers = [pair for pair in headers if pair[0].lower() not in _CODED]
    return httpx.Response(answer.status, headers=headers, stream=body, extensions={"ended": lambda: body.ended})


def _decoded(answer: PushedAnswer) -> PushedBody:
    """Return the body with its content coding undone, declared or not. Raises httpx.DecodingError."""
    if answer.ended:
        return answer
    if answer.content_encoding:
        try:
            decoder = inflater_for(answer.content_encoding.decode("latin-1"))
        except httpx.DecodingError:
            answer.close()
            raise
        if decoder is not None:
            return InflatedBody(answer, decoder)
    if _may_hide_coding(answer.status, answer.content_type[:MAX_TYPE_BYTES]):
        return plain_body(answer, answer.first_bytes)
    return answer


@lru_cache(maxsize=256)
def _may_hide_coding(status: int, content_type: bytes) -> bool:
    return may_hide_coding("GET", status, content_type.decode("latin-1"))  # the answer to HEAD has ended already
