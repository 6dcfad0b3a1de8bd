"""A client that writes its bytes itself: for what no WebSocket library would send, and for not reading."""

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

KEY = base64.b64encode(bytes(16)).decode()
UPGRADE: Mapping[str, str] = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
"""The headers of a right handshake."""
PATH = "/v1/account/gateway"


class RawClient:
    """One TCP connection to a bridge. What is not asked for is not read, but for a few KB."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def request(self, path: str, headers: Mapping[str, str], method: str = "GET") -> "RawResponse":
        """One HTTP request and its answer."""
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

    async def send_json(self, message: object) -> None:
        """A text message of JSON."""
        await self.send(frame(orjson.dumps(message)))

    async def next_frame(self) -> tuple[int, bytes]:
        """The next WebSocket frame: its opcode and its payload. Raises IncompleteReadError at the end."""
        opcode, length = await self._reader.readexactly(2)
        size = length
        if length == 126:
            (size,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif length == 127:
            (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
        return opcode & 0x0F, await self._reader.readexactly(size)

    async def receive_json(self) -> Any:
        """The next message, as JSON; pings are passed over."""
        while (found := await self.next_frame())[0] == WSMsgType.PING:
            pass
        assert found[0] == WSMsgType.TEXT, found
        return orjson.loads(found[1])

    async def close_code(self) -> int | None:
        """Read on until the socket closes: the close frame's code, None if there was none."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while (found := await self.next_frame())[0] != WSMsgType.CLOSE:
                pass
            (code,) = struct.unpack("!H", found[1][:2])
            return int(code)
        return None

    async def read_to_end(self) -> bytes:
        """What came before the connection's end."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""

    def send_eof(self) -> None:
        """Close our half of the connection."""
        self._writer.write_eof()

    def abort(self) -> None:
        self._writer.transport.abort()


class HasUrl(Protocol):
    """A server; the bridge's or another."""

    url: str


class RawResponse:
    """An HTTP answer; names of headers in lower case."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def code(self) -> int:
        """Of the bridge's own error body at a gateway's address, which is looked at as a whole."""
        code, message, error = self._own_error()
        assert error == [{"code": code, "message": message}]
        return code

    @property
    def sdk_code(self) -> int:
        """Of the bridge's own error body below a provider's name, where SDKs read it."""
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
    """As a client sends it: masked, here with zeros (RFC 6455, section 5.2)."""
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
    """A connection whose kernel holds little of what comes."""
    address = urlsplit(server.url)
    raw = socket.socket(proto=socket.IPPROTO_TCP)  # else asyncio does not see that it may turn Nagle's delays off
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
