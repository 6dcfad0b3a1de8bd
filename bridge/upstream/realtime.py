"""Open a provider's WebSocket over aiohttp, and map failed handshakes to the bridge's errors."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, Protocol, cast

import aiohttp
import httpx
from aiohttp.client_middlewares import ClientHandlerType
from yarl import URL

from bridge.errors import EndpointRefused, ProviderStatus, UnusableAnswer
from bridge.providers import Target
from bridge.redact.known_secrets import KnownSecrets
from bridge.upstream.answer import public_headers
from bridge.upstream.answer_reader import HEAD_LINE_BYTES
from bridge.upstream.http import Call, fault, url_of
from bridge.upstream.realtime_faults import fault_of
from bridge.upstream.realtime_protocol import bound_answers

REFUSAL_BYTES: Final = 65_536
"""Largest part of a refusal's body that is passed to the client."""
REFUSAL_S: Final = 5.0
"""Time to read that body after the head."""

_NOT_ADDED: Final = ("Accept", "Accept-Encoding", "User-Agent")
_RETRYABLE: Final = {408, 425, 429, 500, 502, 503, 504}


class HandshakeRefused(ProviderStatus):
    """The provider answered the handshake with an HTTP error, which is passed to the client unchanged."""

    def __init__(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        message = f"the provider refused the WebSocket with HTTP {status}"
        super().__init__(status, message, retryable=status in _RETRYABLE, retry_after_ms=None)
        self.headers = public_headers([(name.lower(), value) for name, value in headers])
        self.body = body

    def conceal(self, known: KnownSecrets) -> None:
        """Mask secrets in the headers and body."""
        self.headers = {name: known.mask_text(value) for name, value in self.headers.items()}
        self.body = known.mask(self.body)


class SessionListener(Protocol):
    """Observes a session from the provider's side: the bridge counts as the client there."""

    def passed(self, sender: Literal["client", "provider"], opcode: Literal["text", "binary"], data: bytes) -> None: ...

    def ended(self, by: Literal["client", "provider"], code: int, reason: str) -> None:
        """Record the end of the session; code 1006 means without a close frame. Only the first call counts."""


class ProviderSocket(aiohttp.ClientWebSocketResponse):
    """aiohttp's WebSocket with access to its queue, transport and protocol, which relaying requires."""

    def __init__(self, reader: Any, writer: Any, protocol: str | None, response: Any, *args: Any, **more: Any) -> None:
        super().__init__(reader, writer, protocol, response, *args, **more)
        connection = response.connection
        self.queue = reader
        """Messages that were received."""
        self.transport: asyncio.Transport = connection.transport
        self.handler: asyncio.Protocol = connection.protocol
        self.answer_headers = [(name.lower(), value) for name, value in response.headers.items()]
        self.listener: SessionListener | None = None


class ConnectorProtocol(Protocol):
    """Interface of `Connector` and its replacements."""

    async def open(self, call: Call, protocols: Sequence[str], max_message_bytes: int) -> ProviderSocket: ...

    async def aclose(self) -> None: ...


class Connector:
    """Opens WebSockets that share no state. It has no deadlines: the caller cancels.

    Like the HTTP transport it keeps no cookies, ignores proxy environment variables, and adds only the headers of the
    handshake.
    """

    def __init__(
        self, ssl_context: ssl.SSLContext | None = None, connector: Callable[[], aiohttp.BaseConnector] | None = None
    ) -> None:
        """Create a connector; `connector` replaces TCP connections. It is called once, when the loop runs."""
        self._ssl_context = ssl_context
        self._connector = connector or self._tcp
        self._session: aiohttp.ClientSession | None = None

    async def open(self, call: Call, protocols: Sequence[str], max_message_bytes: int) -> ProviderSocket:
        """Return the open socket, which accepts messages up to `max_message_bytes`. Cancelling leaves nothing open.

        Raises HandshakeRefused, ConnectFailed, TlsFailed, ResetBeforeAnswer, UnusableAnswer, EndpointRefused.
        """
        if self._session is None:  # aiohttp requires a running loop
            self._session = self._new_session()
        url = _url(call.target)
        try:
            socket = await self._session.ws_connect(
                url,
                protocols=protocols,
                headers=call.headers,
                autoclose=False,
                autoping=False,
                decode_text=False,
                max_msg_size=max_message_bytes + 1,  # aiohttp accepts only shorter messages
            )
        except aiohttp.WSServerHandshakeError:
            raise UnusableAnswer("the provider's answer to the WebSocket handshake is invalid") from None
        except aiohttp.ClientError as exc:
            raise fault(fault_of(exc, url_of(call.target))) from exc
        except ValueError:
            raise EndpointRefused("the handshake cannot be sent as it is") from None
        return cast("ProviderSocket", socket)

    async def aclose(self) -> None:
        """Close all connections, including those in use."""
        if self._session is not None:
            await self._session.close()

    def _tcp(self) -> aiohttp.BaseConnector:
        connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._ssl_context or True)
        bound_answers(connector)
        return connector

    def _new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            skip_auto_headers=_NOT_ADDED,
            middlewares=(_check_handshake,),
            ws_response_class=ProviderSocket,
            max_line_size=HEAD_LINE_BYTES,
            max_field_size=HEAD_LINE_BYTES,
        )


async def _check_handshake(request: aiohttp.ClientRequest, send: ClientHandlerType) -> aiohttp.ClientResponse:
    """Reject every answer but 101 with its body. aiohttp would drop the body of a refusal and follow redirects."""
    answer = await send(request)
    status = answer.status
    if status == 101:
        return answer
    try:
        if status < 400:
            raise UnusableAnswer(f"the provider answered the WebSocket handshake with HTTP {status}")
        raise HandshakeRefused(status, list(answer.headers.items()), await _body(answer))
    finally:
        answer.close()


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """Return the part of a refusal's body that arrives within the limits of size and time."""
    body = b""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(REFUSAL_S):
            while len(body) < REFUSAL_BYTES and (data := await answer.content.read(REFUSAL_BYTES - len(body))):
                body += data
    return body


def _url(target: Target) -> URL:
    """Return the URL. Raises EndpointRefused for a target that would be changed on the way."""
    written = target.raw_path.decode("ascii")
    try:
        base: httpx.URL = url_of(target)
        url = URL(f"{base.scheme}://{base.netloc.decode()}{written}", encoded=True)
    except (httpx.InvalidURL, ValueError):
        raise EndpointRefused("the endpoint is not a valid URL") from None
    if url.raw_path_qs not in {written, written.removesuffix("?")}:
        raise EndpointRefused("the endpoint cannot be sent as it is")
    return url
