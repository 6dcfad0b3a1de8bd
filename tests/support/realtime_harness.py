"""Run a bridge between a client and a provider that both write raw frames."""

import asyncio
import base64
import hashlib
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from aiohttp import WSMsgType

from bridge.relay.interfaces import Services
from bridge.server.server import Server
from bridge.upstream.http import Upstream
from bridge.upstream.transport import HttpTransport
from tests.support.harness import config_of
from tests.support.raw_client import UPGRADE, RawClient, connect_raw, frame
from tests.support.socket_provider import Line, Provider, Script

TEXT, BINARY, CLOSE, PING, PONG = (
    WSMsgType.TEXT,
    WSMsgType.BINARY,
    WSMsgType.CLOSE,
    WSMsgType.PING,
    WSMsgType.PONG,
)
PATH = "/v1/account/gateway/custom-x/talk"

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class ProviderSide:
    """The provider's side of one session."""

    def __init__(self, line: Line, head: bytes) -> None:
        self.line = line
        request, *lines = head.decode("latin-1").split("\r\n")[:-2]
        self.target = request.split()[1]
        self.headers = {name.lower(): value for name, _, value in (header.partition(": ") for header in lines)}

    async def next_frame(self) -> tuple[int, bytes]:
        """Return opcode and unmasked payload of the next frame. Raises IncompleteReadError at the end."""
        first, length = await self.line.exactly(2)
        assert first & 0xF0 == 0x80, "the bridge sends unfragmented messages without extensions"
        assert length & 0x80, "a client's frames are masked"
        size = length & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self.line.exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.line.exactly(8))
        mask, payload = await self.line.exactly(4), await self.line.exactly(size)
        keys = (mask * (size // 4 + 1))[:size]
        return first & 0x0F, (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")

    async def next_payload(self) -> bytes:
        """Return the payload of the next message; skip pings."""
        while (found := await self.next_frame())[0] == PING:
            pass
        assert found[0] in {TEXT, BINARY}, found
        return found[1]

    async def send(self, payload: bytes, opcode: int = TEXT, *, last: bool = True) -> None:
        await self.line.send(server_frame(payload, opcode, last=last))

    async def close_frame(self) -> tuple[int, str] | None:
        """Read up to the close frame; return its code and reason, or None if the connection ends without one."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while (found := await self.next_frame())[0] != CLOSE:
                pass
            return parse_close(found[1])
        return None


def server_frame(payload: bytes, opcode: int = TEXT, *, last: bool = True) -> bytes:
    """Return a server's frame, which has no mask."""
    masked = frame(payload, opcode, last=last)
    head = len(masked) - len(payload) - 4
    return masked[:1] + bytes([masked[1] & 0x7F]) + masked[2:head] + payload


def close_payload(code: int | None, reason: bytes = b"") -> bytes:
    """Return the payload of a close frame."""
    return b"" if code is None else code.to_bytes(2, "big") + reason


def parse_close(payload: bytes) -> tuple[int, str]:
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()


def switching_protocols(head: bytes, *lines: str) -> bytes:
    """Return the 101 response to a handshake."""
    key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: ")).split(b": ")[1]
    accept = base64.b64encode(hashlib.sha1(key + _MAGIC).digest()).decode()
    answer = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*answer, f"Sec-WebSocket-Accept: {accept}", *lines, "", ""]).encode()


class AcceptingProvider:
    """A provider that accepts every handshake; the test then controls the session."""

    def __init__(self, *lines: str, first_bytes: bytes = b"") -> None:
        """`lines` are more headers of its response, `first_bytes` are sent together with it."""
        self._lines = lines
        self._first_bytes = first_bytes
        self._opened: asyncio.Queue[ProviderSide] = asyncio.Queue()

    async def script(self, line: Line) -> None:
        head = await line.head()
        await line.send(switching_protocols(head, *self._lines) + self._first_bytes)
        self._opened.put_nowait(ProviderSide(line, head))

    async def next_session(self) -> ProviderSide:
        return await self._opened.get()


@asynccontextmanager
async def realtime_bridge(
    script: Script,
    folder: Path,
    settings: str = "",
    services: Services | None = None,
    *,
    tls: bool = False,
    more: str = "",
) -> AsyncIterator[Server]:
    """Run a bridge with `script` as its provider `custom-x`; `settings` belong to [server], `more` are other tables."""
    scheme = "wss" if tls else "ws"
    async with Provider(script, tls=tls) as provider:
        url = f"{scheme}://127.0.0.1:{provider.port}"
        table = f'[providers.custom-x]\nbase_url = "https://unused.example"\nrealtime_base_url = "{url}"\n'
        config = config_of(f"[server]\n{settings}\n{table}{more}", folder)
        server = Server(config, Upstream(HttpTransport()), services)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@asynccontextmanager
async def open_session_with_server(
    folder: Path, settings: str = "", services: Services | None = None, *, path: str = PATH
) -> AsyncIterator[tuple[Server, RawClient, ProviderSide]]:
    """Open a session; yield the bridge and both sides. At the end the provider's side is dropped first."""
    sockets = AcceptingProvider()
    async with AsyncExitStack() as opened:
        server = await opened.enter_async_context(realtime_bridge(sockets.script, folder, settings, services))
        client = await opened.enter_async_context(connect_realtime(server, path))
        side = await sockets.next_session()
        opened.callback(side.line.drop)
        yield server, client, side


@asynccontextmanager
async def open_session(folder: Path, settings: str = "") -> AsyncIterator[tuple[RawClient, ProviderSide]]:
    """Open a session; yield both of its sides."""
    async with open_session_with_server(folder, settings) as (_, client, side):
        yield client, side


@asynccontextmanager
async def connect_realtime(
    server: Server, path: str = PATH, headers: Mapping[str, str] = {}
) -> AsyncIterator[RawClient]:
    """Connect a client and wait until its handshake is accepted."""
    async with connect_raw(server, receive_bytes=65_536) as client:
        answered = await client.request(path, {**UPGRADE, **headers})
        assert answered.status == 101, answered.body
        yield client


async def client_close_frame(client: RawClient) -> tuple[int, str] | None:
    """Read up to the client's close frame; return its code and reason, or None without one."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while (found := await client.next_frame())[0] != CLOSE:
            pass
        return parse_close(found[1])
    return None
