"""A provider's WebSocket, dialled over aiohttp; and what a handshake that comes to nothing means, in our own words."""

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
from bridge.upstream.dial import fault_of
from bridge.upstream.http import Call, fault, url_of
from bridge.upstream.response_protocol import bound_answers
from bridge.upstream.transport import HEAD_LINE_BYTES

REFUSAL_BYTES: Final = 65_536
"""How much of a refusal's body the client gets to see."""
REFUSAL_S: Final = 5.0
"""How long that may take to come once the head is there."""

_NOT_ADDED: Final = ("Accept", "Accept-Encoding", "User-Agent")
_RETRYABLE: Final = {408, 425, 429, 500, 502, 503, 504}


class HandshakeRefused(ProviderStatus):
    """The provider answered the handshake with an HTTP error, which the client gets as it is."""

    def __init__(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        message = f"the provider refused the WebSocket with HTTP {status}"
        super().__init__(status, message, retryable=status in _RETRYABLE, retry_after_ms=None)
        self.headers = public_headers([(name.lower(), value) for name, value in headers])
        self.body = body

    def conceal(self, known: KnownSecrets) -> None:
        """Take secrets out of what the client gets to see."""
        self.headers = {name: known.mask_text(value) for name, value in self.headers.items()}
        self.body = known.mask(self.body)


class SessionListener(Protocol):
    """Takes note of a session, as the provider has it: who leaves for the bridge's reasons is the client there."""

    def passed(self, sender: Literal["client", "provider"], opcode: Literal["text", "binary"], data: bytes) -> None: ...

    def ended(self, by: Literal["client", "provider"], code: int, reason: str) -> None:
        """By a close frame; code 1006: without one. The first end counts."""


class ProviderSocket(aiohttp.ClientWebSocketResponse):
    """aiohttp's, which tells what it is made of: whoever relays frames has to know of more than messages."""

    def __init__(self, reader: Any, writer: Any, protocol: str | None, response: Any, *args: Any, **more: Any) -> None:
        super().__init__(reader, writer, protocol, response, *args, **more)
        connection = response.connection
        self.queue = reader
        """The messages that have come."""
        self.transport: asyncio.Transport = connection.transport
        self.handler: asyncio.Protocol = connection.protocol
        self.answer_headers = [(name.lower(), value) for name, value in response.headers.items()]
        self.listener: SessionListener | None = None


class ConnectorProtocol(Protocol):
    """What `Dialler` does, or what does it in its place."""

    async def open(self, call: Call, protocols: Sequence[str], max_message_bytes: int) -> ProviderSocket: ...

    async def aclose(self) -> None: ...


class Connector:
    """Opens WebSockets that share nothing. Knows no deadline: whoever calls has one, and cancels.

    As the transport for HTTP does, it keeps no cookie, asks no environment for a proxy, and adds no header but the
    handshake's.
    """

    def __init__(
        self, ssl_context: ssl.SSLContext | None = None, connector: Callable[[], aiohttp.BaseConnector] | None = None
    ) -> None:
        """`connector` makes connections that are not TCP's; it is called once, when the loop runs."""
        self._ssl_context = ssl_context
        self._connector = connector or self._tcp
        self._session: aiohttp.ClientSession | None = None

    async def open(self, call: Call, protocols: Sequence[str], max_message_bytes: int) -> ProviderSocket:
        """The socket, once the provider has agreed; it takes no longer messages. Cancelled, it leaves nothing open.

        Raises Refused, ConnectFailed, TlsFailed, ResetBeforeAnswer, UnusableAnswer, EndpointRefused.
        """
        if self._session is None:  # not made before, for aiohttp wants the loop to run
            self._session = self._made()
        url = _url(call.target)
        try:
            socket = await self._session.ws_connect(
                url,
                protocols=protocols,
                headers=call.headers,
                autoclose=False,
                autoping=False,
                decode_text=False,
                max_msg_size=max_message_bytes + 1,  # aiohttp takes what is less
            )
        except aiohttp.WSServerHandshakeError:
            raise UnusableAnswer("the provider's answer to the WebSocket handshake is wrong") from None
        except aiohttp.ClientError as exc:
            raise fault(fault_of(exc, url_of(call.target))) from exc
        except ValueError:
            raise EndpointRefused("the handshake cannot be sent as it is") from None
        return cast("ProviderSocket", socket)

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        if self._session is not None:
            await self._session.close()

    def _tcp(self) -> aiohttp.BaseConnector:
        connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._ssl_context or True)
        bound_answers(connector)
        return connector

    def _made(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            skip_auto_headers=_NOT_ADDED,
            middlewares=(_agreed,),
            ws_response_class=ProviderSocket,
            max_line_size=HEAD_LINE_BYTES,
            max_field_size=HEAD_LINE_BYTES,
        )


async def _agreed(request: aiohttp.ClientRequest, send: ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp's handshake throws the body of a refusal away, and follows a redirect."""
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
    """As much as comes in time, and may."""
    body = b""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(REFUSAL_S):
            while len(body) < REFUSAL_BYTES and (data := await answer.content.read(REFUSAL_BYTES - len(body))):
                body += data
    return body


def _url(target: Target) -> URL:
    """Raises EndpointRefused for a target that would not arrive as it is written."""
    written = target.raw_path.decode("ascii")
    try:
        base: httpx.URL = url_of(target)
        url = URL(f"{base.scheme}://{base.netloc.decode()}{written}", encoded=True)
    except (httpx.InvalidURL, ValueError):
        raise EndpointRefused("the endpoint makes no URL") from None
    if url.raw_path_qs not in {written, written.removesuffix("?")}:
        raise EndpointRefused("the endpoint cannot be sent as it is")
    return url
