"""A client that writes raw bytes: for input that no WebSocket library sends, and to control reading."""

import asyncio
import base64
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson
from aiohttp import WSMsgType

from tests.support.socket_provider import reset

KEY = base64.b64encode(bytes(16)).decode()
UPGRADE: Mapping[str, str] = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
"""The headers of a valid handshake."""
PATH = "/v1/account/gateway"


class RawClient:
    """One TCP connection to a bridge. Only requested data is read, apart from a few KB of buffer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def request(self, path: str, headers: Mapping[str, str], method: str = "GET") -> "RawResponse":
        """Send one HTTP request and return its response."""
        lines = (f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", "")
        await self.send("\r\n".join(lines).encode("latin-1"))
        return await self.read_response()

    async def read_response(self) -> "RawResponse":
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return RawResponse(int(head[0].split()[1]), headers, body)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def write(self, data: bytes) -> None:
        """Send without waiting until the kernel takes it."""
        self._writer.write(data)

    async def send_json(self, message: object) -> None:
        """Send a text message of JSON."""
        await self.send(frame(orjson.dumps(message)))

    async def next_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next WebSocket frame. Raises IncompleteReadError at the end."""
        opcode, length = await self._reader.readexactly(2)
        size = length
        if length == 126:
            (size,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif length == 127:
            (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
        return opcode & 0x0F, await self._reader.readexactly(size)

    async def receive_json(self) -> Any:
        """Return the next message, parsed from JSON; skip pings."""
        while (found := await self.next_frame())[0] == WSMsgType.PING:
            pass
        assert found[0] == WSMsgType.TEXT, found
        return orjson.loads(found[1])

    async def close_code(self) -> int | None:
        """Read until the socket closes; return the code of the close frame, None without one."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while (found := await self.next_frame())[0] != WSMsgType.CLOSE:
                pass
            (code,) = struct.unpack("!H", found[1][:2])
            return int(code)
        return None

    async def read_to_end(self) -> bytes:
        """Return all data up to the end of the connection."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""

    def send_eof(self) -> None:
        """Close the client's half of the connection."""
        self._writer.write_eof()

    def abort(self) -> None:
        self._writer.transport.abort()

    def reset(self) -> None:
        """Close the connection with an RST in place of a FIN."""
        reset(self._writer)


class HasUrl(Protocol):
    """A server with a URL."""

    url: str


class RawResponse:
    """An HTTP response; names of headers in lower case."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def code(self) -> int:
        """Check the bridge's error body at a gateway's address, and return its code."""
        code, message, error = self._own_error()
        assert error == [{"code": code, "message": message}]
        return code

    @property
    def sdk_code(self) -> int:
        """Check the bridge's error body below a provider's name, where SDKs read it, and return its code."""
        code, message, error = self._own_error()
        assert error == {"message": message, "type": "AiGatewayError", "code": code}
        return code

    def _own_error(self) -> tuple[int, str, object]:
        assert self.headers["content-type"].startswith("application/json")
        body = orjson.loads(self.body)
        code, message = body["internalCode"], body["message"]
        assert body == {
            "success": False,
            "result": [],
            "messages": [],
            "error": body["error"],
            "name": "AiGatewayError",
            "httpCode": self.status,
            "internalCode": code,
            "message": message,
        }
        return code, message, body["error"]


def frame(payload: bytes, opcode: int = WSMsgType.TEXT, *, last: bool = True) -> bytes:
    """Return a client's frame, masked with zeros (RFC 6455, section 5.2)."""
    first, size = opcode | (0x80 if last else 0), len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


@asynccontextmanager
async def connect_raw(
    server: HasUrl, *, receive_bytes: int = 4096, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawClient]:
    """Connect with a small receive buffer in the kernel."""
    address = urlsplit(server.url)
    raw = socket.socket(proto=socket.IPPROTO_TCP)  # without it, asyncio does not set TCP_NODELAY
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
    except OSError:
        raw.close()
        raise
    name = "localhost" if tls else None
    client = RawClient(*await asyncio.open_connection(sock=raw, limit=receive_bytes, ssl=tls, server_hostname=name))
    try:
        yield client
    finally:
        client.abort()


@asynccontextmanager
async def open_websocket(server: HasUrl, path: str = PATH, *, receive_bytes: int = 4096) -> AsyncIterator[RawClient]:
    async with connect_raw(server, receive_bytes=receive_bytes) as client:
        answered = await client.request(path, UPGRADE)
        assert answered.status == 101, answered.body
        yield client
