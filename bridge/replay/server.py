"""A stand-alone HTTP server that replays tapes, for tests of any software in place of a real provider.

The server serves the paths of all recorded hosts. A client may name the host by the first segment of the path
(`/api.openai.com/v1/models`) or by the header `x-bridge-host`; it has to if tapes of several hosts match its request.
"""

import asyncio
import fcntl
import logging
import socket
import struct
import sys
import termios
from typing import Final

import orjson
from aiohttp import web

from bridge.replay.socket_player import play
from bridge.tapes.exchange import SentRequest
from bridge.tapes.fault_injection import InvalidFault
from bridge.tapes.file import TapeHead, pairs
from bridge.tapes.library import Library, Miss
from bridge.tapes.matching import HOST_HEADER, InvalidUrl, ReplayRequest
from bridge.tapes.playback import Broken, Playback

log = logging.getLogger("bridge.replay")

MAX_BODY_BYTES: Final = 256 * 1024 * 1024
MAX_LINE_BYTES: Final = 65_536

_POLL_S: Final = 0.005

MISSED: Final = 404
"""The status of a request without a tape. No SDK retries it, as some do 400, 408, 409, 425, 429 and 5xx."""

_NOT_REPLAYED: Final = {
    "connection",
    "content-encoding",  # a tape holds decoded bytes
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_ADDED: Final = ("Content-Type", "Date", "Server")
"""The headers that aiohttp adds to a response without them."""


class ReplayServer:
    """Replays recorded responses; each recorded chunk is one HTTP chunk and one write. Call `start`, then `stop`."""

    def __init__(self, library: Library, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Port 0 selects a free port."""
        self._library = library
        self._host, self._port = host, port
        self._playing: set[asyncio.Task[object]] = set()
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            auto_decompress=False,  # tapes are matched by the bytes that the client sent
            handler_cancellation=True,  # some responses never end by themselves, so a client that leaves cancels them
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
        )

    async def start(self) -> None:
        """Listen. Raises OSError if the address is unavailable."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except BaseException:
            await self._runner.cleanup()
            raise

    @property
    def url(self) -> str:
        """The URL of the server, with the actual port."""
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def playing(self) -> int:
        """The number of requests that are being answered."""
        return len(self._playing)

    async def stop(self) -> None:
        """Stop at once; responses that are being replayed are cut off."""
        for site in self._runner.sites:
            await site.stop()
        for task in self._playing:
            task.cancel()
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", r"/{path:[\s\S]*}", self._handle)
        app.on_response_prepare.append(_keep_recorded)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._playing.add(task)
        try:
            return await self._answer(request)
        finally:
            self._playing.discard(task)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        replay = self._session if request.headers.get("Upgrade", "").lower() == "websocket" else self._exchange
        try:
            return await replay(request)
        except Miss as miss:
            log.warning("%s", miss)
            return _refused(MISSED, "tape_miss", str(miss))
        except (InvalidFault, InvalidUrl) as error:
            return _refused(400, "bad_request", str(error))

    async def _exchange(self, request: web.Request) -> web.StreamResponse:
        """Replay an HTTP exchange. Raises Miss, BadUrl, BadFault."""
        tape = self._library.take(self._replay_request(request, "https", await request.read()))
        return await _play(request, Playback(tape, asyncio.get_running_loop().time, asyncio.sleep))

    async def _session(self, request: web.Request) -> web.StreamResponse:
        """Replay a WebSocket session. Raises Miss, BadUrl."""
        requested = self._replay_request(request, "wss", b"")
        sent = SentRequest("GET", str(requested.url), requested.headers.multi_items(), b"")
        try:
            return await play(request, self._library.take_socket(requested), sent, lambda _: None)
        except ValueError as error:  # aiohttp raises it for an invalid handshake
            return _refused(400, "bad_request", str(error))

    def _replay_request(self, request: web.Request, scheme: str, body: bytes) -> ReplayRequest:
        """Return the request as it is matched with tapes. Raises BadUrl."""
        host, path = self._host_and_path(request)
        url = f"{scheme}://{host or 'any'}{path}?{request.rel_url.raw_query_string}"
        requested = ReplayRequest.of(request.method, url.removesuffix("?"), body, request.headers.items())
        return requested._replace(any_host=host is None)

    def _host_and_path(self, request: web.Request) -> tuple[str | None, str]:
        """Return the host that the client named, or None, and the path at that host."""
        path = request.rel_url.raw_path
        chosen = request.headers.get(HOST_HEADER)
        if chosen is not None:
            return chosen, path
        first, _, rest = path.removeprefix("/").partition("/")
        return (first, f"/{rest}") if first in self._library.hosts else (None, path)


class _ReplayedResponse(web.StreamResponse):
    def __init__(self, head: TapeHead) -> None:
        recorded = [(name, value) for name, value in pairs(head.headers) if name.lower() not in _NOT_REPLAYED]
        super().__init__(status=head.status, headers=recorded)
        self.added = [name for name in _ADDED if name not in self.headers]


async def _keep_recorded(_: web.Request, response: web.StreamResponse) -> None:
    """Remove the headers that aiohttp added and that were not recorded. aiohttp calls this before it sends a head."""
    if isinstance(response, _ReplayedResponse):
        for name in response.added:
            response.headers.popall(name, None)


async def _play(request: web.Request, playback: Playback) -> web.StreamResponse:
    """Replay a response; return it when it has ended or was cut off."""
    response: web.StreamResponse = web.Response()
    try:
        response = _ReplayedResponse(await playback.head())
        await response.prepare(request)
        await _write(request, response, playback)
    except Broken:
        await _reset(request)
    except ConnectionError:
        log.debug("the client left before the end of the response")
    return response


async def _write(request: web.Request, response: web.StreamResponse, playback: Playback) -> None:
    """Write the body. Raises Broken where the recorded response breaks off."""
    has_body = request.method != "HEAD" and response.status >= 200 and response.status not in {204, 304}
    while (data := await playback.read()) is not None:
        if data and has_body:
            await response.write(data)
        # An event loop may join writes of one turn, and other clients need a turn too.
        await asyncio.sleep(0)
    await response.write_eof()


async def _reset(request: web.Request) -> None:
    """Close with an RST instead of a FIN, after the client's side has received all written data."""
    transport = request.transport
    if transport is None:
        return
    transport.set_write_buffer_limits(0)
    await request.writer.drain()
    raw = transport.get_extra_info("socket")
    while _unacknowledged_bytes(raw.fileno()):  # noqa: ASYNC110 - no system reports when it becomes 0
        await asyncio.sleep(_POLL_S)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _unacknowledged_bytes(connection: int) -> int:
    """Return how many bytes a reset would drop, as the client's kernel has not acknowledged them; 0 if unknown."""
    try:
        queued = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))  # SIOCOUTQ of Linux, tcp(7)
    except OSError:
        return 0
    return int.from_bytes(queued, sys.byteorder)


def _refused(status: int, kind: str, message: str) -> web.Response:
    """Return an error in the shape in which most SDKs find the message."""
    body = {"type": "error", "error": {"type": kind, "code": kind, "message": message}}
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
