"""A provider made of tapes, on plain HTTP: what any software may call in a test in place of the real one.

Whatever host a tape was recorded at, its path is served here. A client may name the host, by the path's first segment
(`/api.openai.com/v1/models`) or by the header `x-bridge-host`; it has to when tapes of several hosts answer it alike.
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
from bridge.tapes.fault_injection import BadFault
from bridge.tapes.file import TapeHead, pairs
from bridge.tapes.library import Library, Miss
from bridge.tapes.matching import HOST_HEADER, BadUrl, ReplayRequest
from bridge.tapes.playback import Broken, Playback

log = logging.getLogger("bridge.replay")

MAX_BODY_BYTES: Final = 256 * 1024 * 1024
MAX_LINE_BYTES: Final = 65_536

_POLL_S: Final = 0.005

MISSED: Final = 404
"""What a miss is answered with. No SDK asks again after it, as some do after 400, 408, 409, 425, 429 and 5xx."""

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
"""What aiohttp gives to a response that has it not."""


class ReplayServer:
    """Answers chunk by chunk as recorded, each as one HTTP chunk and in a write of its own. `start`, then `stop`."""

    def __init__(self, library: Library, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Port 0 is any free one."""
        self._library = library
        self._host, self._port = host, port
        self._playing: set[asyncio.Task[object]] = set()
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            auto_decompress=False,  # tapes are asked for with the very bytes
            handler_cancellation=True,  # a client that leaves ends its answer: some never end by themselves
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
        )

    async def start(self) -> None:
        """Raises OSError when the address cannot be had."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except BaseException:
            await self._runner.cleanup()
            raise

    @property
    def url(self) -> str:
        """Where it listens; the port is the real one."""
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def playing(self) -> int:
        """How many requests are being answered."""
        return len(self._playing)

    async def stop(self) -> None:
        """At once: answers that play are broken off."""
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
        asked_for = self._session if request.headers.get("Upgrade", "").lower() == "websocket" else self._exchange
        try:
            return await asked_for(request)
        except Miss as miss:
            log.warning("%s", miss)
            return _refused(MISSED, "tape_miss", str(miss))
        except (BadFault, BadUrl) as error:
            return _refused(400, "bad_request", str(error))

    async def _exchange(self, request: web.Request) -> web.StreamResponse:
        """Raises Miss, BadUrl, BadFault."""
        tape = self._library.take(self._asked(request, "https", await request.read()))
        return await _play(request, Playback(tape, asyncio.get_running_loop().time, asyncio.sleep))

    async def _session(self, request: web.Request) -> web.StreamResponse:
        """Raises Miss, BadUrl."""
        asked = self._asked(request, "wss", b"")
        sent = SentRequest("GET", str(asked.url), asked.headers.multi_items(), b"")
        try:
            return await play(request, self._library.take_socket(asked), sent, lambda _: None)
        except ValueError as error:  # aiohttp's, for what is no handshake
            return _refused(400, "bad_request", str(error))

    def _asked(self, request: web.Request, scheme: str, body: bytes) -> ReplayRequest:
        """Raises BadUrl."""
        host, path = self._place(request)
        url = f"{scheme}://{host or 'any'}{path}?{request.rel_url.raw_query_string}"
        asked = ReplayRequest.of(request.method, url.removesuffix("?"), body, request.headers.items())
        return asked._replace(any_host=host is None)

    def _place(self, request: web.Request) -> tuple[str | None, str]:
        """The host that the client chose, if it did, and the path there."""
        path = request.rel_url.raw_path
        chosen = request.headers.get(HOST_HEADER)
        if chosen is not None:
            return chosen, path
        first, _, rest = path.removeprefix("/").partition("/")
        return (first, f"/{rest}") if first in self._library.hosts else (None, path)


class _Answer(web.StreamResponse):
    def __init__(self, head: TapeHead) -> None:
        recorded = [(name, value) for name, value in pairs(head.headers) if name.lower() not in _NOT_REPLAYED]
        super().__init__(status=head.status, headers=recorded)
        self.added = [name for name in _ADDED if name not in self.headers]


async def _keep_recorded(_: web.Request, response: web.StreamResponse) -> None:
    """Called before a head goes out: what aiohttp put in beside the framing was not recorded."""
    if isinstance(response, _Answer):
        for name in response.added:
            response.headers.popall(name, None)


async def _play(request: web.Request, playback: Playback) -> web.StreamResponse:
    """What it returns is over, one way or the other."""
    response: web.StreamResponse = web.Response()
    try:
        response = _Answer(await playback.head())
        await response.prepare(request)
        await _write(request, response, playback)
    except Broken:
        await _reset(request)
    except ConnectionError:
        log.debug("the client left before the end")
    return response


async def _write(request: web.Request, response: web.StreamResponse, playback: Playback) -> None:
    """Raises Broken, when the tape does."""
    has_body = request.method != "HEAD" and response.status >= 200 and response.status not in {204, 304}
    while (data := await playback.read()) is not None:
        if data and has_body:
            await response.write(data)
        # Loops may join what is written within one turn; and other clients want theirs.
        await asyncio.sleep(0)
    await response.write_eof()


async def _reset(request: web.Request) -> None:
    """Close with an RST in place of a FIN, once the client's side has all that was written."""
    transport = request.transport
    if transport is None:
        return
    transport.set_write_buffer_limits(0)
    await request.writer.drain()
    raw = transport.get_extra_info("socket")
    while _underway(raw.fileno()):  # noqa: ASYNC110 - no system tells when it is over
        await asyncio.sleep(_POLL_S)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _underway(connection: int) -> int:
    """How many bytes the client's kernel has not acknowledged: a reset would drop them. Not every system tells."""
    try:
        told = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))  # SIOCOUTQ of Linux, tcp(7)
    except OSError:
        return 0
    return int.from_bytes(told, sys.byteorder)


def _refused(status: int, kind: str, message: str) -> web.Response:
    """In the shape that most SDKs find a message in."""
    body = {"type": "error", "error": {"type": kind, "code": kind, "message": message}}
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
