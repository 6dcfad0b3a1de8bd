"""Map aiohttp's exceptions, from the handshakes of realtime sockets, to those of httpx."""

import aiohttp
import httpx

from bridge.upstream.answer_reader import AnswerFault
from bridge.upstream.dial import TlsError, cause_of, peer_of
from bridge.upstream.realtime_protocol import AnswerHeadError

_FAULTS: tuple[tuple[type[aiohttp.ClientError], type[httpx.TransportError], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, TlsError, "the certificate of {peer} is not accepted: {cause}"),
    (aiohttp.ClientConnectorSSLError, TlsError, "no TLS with {peer}: {cause}"),
    (aiohttp.ClientConnectorDNSError, httpx.ConnectError, "no address found for {peer}"),
    (aiohttp.ClientConnectorError, httpx.ConnectError, "cannot connect to {peer}: {cause}"),
    (aiohttp.InvalidURL, httpx.ConnectError, "cannot connect to {peer}: not an address"),
    (AnswerHeadError, httpx.RemoteProtocolError, AnswerFault.TOO_LONG.value),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError, AnswerFault.UNREADABLE.value),
    (aiohttp.ClientPayloadError, httpx.ReadError, "{peer} broke off its answer"),
    (aiohttp.ServerDisconnectedError, httpx.ReadError, "{peer} closed the connection before it answered"),
    (aiohttp.ClientError, httpx.ReadError, "the connection to {peer} was lost: {cause}"),
)
"""Exceptions of aiohttp, and the exception of httpx and the message for each. The first match applies."""


def fault_of(exc: aiohttp.ClientError, url: httpx.URL) -> httpx.TransportError:
    """Return the httpx exception for `exc`. Its message names the host and the cause, and quotes neither side."""
    kind, text = next((kind, text) for imported, kind, text in _FAULTS if isinstance(exc, imported))
    cause = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    return kind(text.format(peer=peer_of(url), cause=cause_of(cause)))
