"""Establish connections, with TLS where the URL asks for it, and tell apart why one fails."""

import asyncio
import os
import ssl
from collections.abc import Callable
from functools import cache
from typing import Final, TypeVar

import aiohappyeyeballs
import httpx

from bridge.upstream.addresses import Addresses
from bridge.upstream.request_head import unsendable

HAPPY_EYEBALLS_S: Final = 0.25
"""Time after which the next address is tried beside the last one (RFC 8305, section 8)."""

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


class TlsError(httpx.ConnectError):
    """The TLS handshake failed: the provider's certificate or protocol version is not accepted."""


class TcpConnector:
    """Opens connections. It has no deadlines: the caller cancels."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        """Create a connector; without a context it trusts what the system trusts."""
        self._ssl_context = ssl_context or _default_context()
        self._addresses = Addresses()

    async def connect(self, url: httpx.URL, protocol: Callable[[], ProtocolT]) -> ProtocolT:
        """Return the protocol of a new connection to the URL's origin. Cancelling leaves nothing open.

        Raises TlsError, httpx.ConnectError, and httpx.LocalProtocolError for a URL that has no address.
        """
        host = url.raw_host.decode("ascii")
        port = url.port or DEFAULT_PORTS.get(url.scheme)
        if not host or port is None:
            raise unsendable()
        try:
            infos = await self._addresses.of(host, port)
        except OSError as error:
            raise httpx.ConnectError(f"no address found for {peer_of(url)}") from error.with_traceback(None)
        except UnicodeError:
            raise unsendable() from None
        loop = asyncio.get_running_loop()
        try:
            raw = await aiohappyeyeballs.start_connection(infos, happy_eyeballs_delay=HAPPY_EYEBALLS_S, loop=loop)
            if url.scheme == "http":
                return (await loop.create_connection(protocol, sock=raw))[1]
            name = host.rstrip(".")
            return (await loop.create_connection(protocol, sock=raw, ssl=self._ssl_context, server_hostname=name))[1]
        except OSError as error:
            # Without its traceback, whose frames refer to the error: such a cycle would keep the request's body.
            raise _connect_error(error, peer_of(url)) from error.with_traceback(None)

    async def aclose(self) -> None:
        await self._addresses.aclose()


def _connect_error(error: OSError, peer: str) -> httpx.ConnectError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsError(f"the certificate of {peer} is not accepted: {cause_of(error)}")
    if isinstance(error, ssl.SSLError):
        return TlsError(f"no TLS with {peer}: {cause_of(error)}")
    return httpx.ConnectError(f"cannot connect to {peer}: {cause_of(error)}")


def peer_of(url: httpx.URL) -> str:
    """Return host and port, as error messages name them."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{url.port or DEFAULT_PORTS.get(url.scheme)}"


def cause_of(error: Exception | None) -> str:
    """Return the reason as the operating system or OpenSSL names it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "handshake failed").lower().replace("_", " ")
    errno = getattr(error, "errno", None)
    return os.strerror(errno).lower() if errno else "connection lost"


@cache
def _default_context() -> ssl.SSLContext:
    """Return the context of all transports: loading the system's certificates takes 10 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
