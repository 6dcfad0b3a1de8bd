"""Write to a client's connection, and monitor its progress."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NamedTuple

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from bridge.server.websocket import ClientSocket, ClientWebSocket
from tests.support.clock import advance, run_until_idle, turns, until
from tests.support.raw_client import RawClient, frame, open_websocket


class SocketHandler:
    """Accepts one client, and keeps its connection until the client leaves."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[tuple[ClientSocket, asyncio.Transport]] = asyncio.get_running_loop().create_future()
        self.response = ClientWebSocket((), 1 << 22)
        self.received: list[bytes] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        response = self.response
        await response.prepare(request)
        assert request.transport is not None
        self.opened.set_result((ClientSocket(request, response), request.transport))
        while (message := await response.receive()).type in {WSMsgType.TEXT, WSMsgType.PONG}:
            self.received.append(message.data)
        return response


class Pair:
    """The two ends of one WebSocket."""

    def __init__(self, handler: SocketHandler, client: RawClient) -> None:
        self.handler, self.client = handler, client
        self.socket, self.transport = handler.opened.result()

    async def fill(self) -> int:
        """Send until the socket is full; return the number of bytes."""
        sent = 0
        while not self.socket.is_full:
            self.socket.send([b"x" * 50_000])
            sent += 50_004
            await turns(1)
        return sent

    async def take_all(self) -> None:
        while self.socket.queued_bytes:
            await self.client.next_frame()


class Url(NamedTuple):
    url: str


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    handler, app = SocketHandler(), web.Application()
    app.router.add_get("/", handler.handle)
    async with TestServer(app) as server, open_websocket(Url(str(server.make_url(""))), "/") as client:
        await handler.opened
        yield Pair(handler, client)


SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 200_000]


@pytest.mark.parametrize("size", SIZES)
async def test_a_frame_of_any_length_arrives(pair: Pair, size: int) -> None:
    pair.socket.send([b"x" * size])
    assert await pair.client.next_frame() == (WSMsgType.TEXT, b"x" * size)


async def test_frames_arrive_in_their_order_long_ones_among_short(pair: Pair) -> None:
    frames = [bytes([48 + place]) * size for place, size in enumerate([*SIZES, *reversed(SIZES)])]
    pair.socket.send(frames)
    assert [(await pair.client.next_frame())[1] for _ in frames] == frames


async def test_short_frames_are_sent_in_one_write(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    write = pair.transport.write
    monkeypatch.setattr(pair.transport, "write", lambda data: (writes.append(len(data)), write(data)))
    pair.socket.send([b"x" * 100] * 50)
    pair.socket.send([])
    await run_until_idle()
    assert writes == [102 * 50]


@pytest.mark.parametrize("size", [10, 70_000, 3_000_000])
async def test_a_frame_of_several_parts_arrives_as_one_frame(pair: Pair, size: int) -> None:
    long = [b"{", b"x" * size, b"", b"}"]
    pair.socket.send([b"before"])
    pair.socket.send_one(long)
    pair.socket.send([b"after"])
    assert [(await pair.client.next_frame())[1] for _ in range(3)] == [b"before", b"".join(long), b"after"]


async def test_a_long_frame_is_not_copied(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    write = pair.transport.write
    monkeypatch.setattr(pair.transport, "write", lambda data: (writes.append(data), write(data)))
    long = b"x" * 70_000
    pair.socket.send([b"before", long, b"after"])
    pair.socket.send_one([b"{", long, b"}"])
    await run_until_idle()
    assert sum(each is long for each in writes) == 2
    assert len(writes) == 5


async def test_control_frames_are_sent_between_others(pair: Pair) -> None:
    pair.socket.send([b"one"])
    pair.socket.control(WSMsgType.PING, b"payload")
    pair.socket.send([b"two"])
    assert [await pair.client.next_frame() for _ in range(3)] == [
        (WSMsgType.TEXT, b"one"),
        (WSMsgType.PING, b"payload"),
        (WSMsgType.TEXT, b"two"),
    ]


async def test_frames_after_a_close_frame_are_dropped(pair: Pair) -> None:
    closing = asyncio.create_task(pair.socket.close(1001, b"bye"))
    await turns(1)
    pair.socket.send([b"late"])
    pair.socket.control(WSMsgType.PING)
    assert await pair.client.next_frame() == (WSMsgType.CLOSE, b"\x03\xe9bye")
    await closing
    assert await pair.client.read_to_end() == b""


async def test_a_close_frame_is_sent_behind_queued_frames(pair: Pair) -> None:
    pair.socket.send([b"last"])
    closing = asyncio.create_task(pair.socket.close(1001, b"bye"))
    await turns(1)
    assert await pair.client.next_frame() == (WSMsgType.TEXT, b"last")
    assert await pair.client.next_frame() == (WSMsgType.CLOSE, b"\x03\xe9bye")
    assert await pair.client.read_to_end() == b""
    await closing


async def test_so_is_one_to_a_client_that_is_still_sending(pair: Pair) -> None:
    pair.socket.send([b"last"])
    reading_ended = asyncio.Event()
    closing = asyncio.create_task(pair.socket.close_and_drain(1013, b"full", reading_ended))
    await turns(1)
    pair.socket.send([b"late"])
    assert await pair.client.next_frame() == (WSMsgType.TEXT, b"last")
    assert await pair.client.next_frame() == (WSMsgType.CLOSE, b"\x03\xf5full")
    reading_ended.set()
    await pair.client.send(frame(b"\x03\xe8", WSMsgType.CLOSE))
    await closing
    assert b"late" not in await pair.client.read_to_end()


@pytest.mark.parametrize(
    ("ending", "code"),
    [(frame(b"\x03\xe8", WSMsgType.CLOSE), b"\x03\xe8"), (frame(b"x", 3), b"\x03\xea")],
    ids=["a close frame", "a violation of the protocol"],
)
async def test_so_is_the_one_that_answers_the_client(pair: Pair, ending: bytes, code: bytes) -> None:
    """aiohttp writes it while it receives; no frame may follow a close frame."""
    end = pair.handler.response.on_close

    def on_close() -> None:
        pair.socket.send([b"last"])
        end()
        pair.socket.send([b"late"])

    pair.handler.response.on_close = on_close
    await pair.client.send(ending)
    assert await pair.client.next_frame() == (WSMsgType.TEXT, b"last")
    opcode, payload = await pair.client.next_frame()
    assert (opcode, payload[:2]) == (WSMsgType.CLOSE, code)
    assert await pair.client.read_to_end() == b""


async def test_a_disconnect_writes_queued_frames(pair: Pair) -> None:
    pair.socket.send([b"last"])
    await pair.socket.disconnect()
    assert await pair.client.read_to_end() == b"\x81\x04last"


async def test_frames_for_a_lost_connection_are_dropped(pair: Pair) -> None:
    pair.socket.abort()
    await turns()
    pair.socket.send([b"x" * 100_000] * 10)
    pair.socket.control(WSMsgType.PING)
    await pair.socket.drain()
    assert (pair.socket.is_full, pair.socket.queued_bytes) == (False, 0)


async def test_a_part_of_a_message_updates_the_last_receive_time(pair: Pair) -> None:
    began_at = pair.socket.last_received_at
    advance(7)
    await pair.client.send(b"\x81\x8a\x00\x00\x00\x00hal")
    await until(lambda: pair.socket.last_received_at >= began_at + 7)
    assert pair.handler.received == []
    await pair.client.send(b"f a yes")
    await until(lambda: pair.handler.received == [b"half a yes"])


async def test_a_socket_is_full_until_the_client_reads_its_queue(pair: Pair) -> None:
    sent = await pair.fill()
    assert 0 < pair.socket.queued_bytes < sent
    assert pair.socket.sent_bytes == sent - pair.socket.queued_bytes
    draining = asyncio.create_task(pair.socket.drain())
    await turns(100)
    assert not draining.done()
    await pair.take_all()
    await draining
    assert (pair.socket.is_full, pair.socket.sent_bytes) == (False, sent)


async def test_cancelling_one_waiter_does_not_cancel_others(pair: Pair) -> None:
    await pair.fill()
    one, two = (asyncio.create_task(pair.socket.drain()) for _ in range(2))
    await turns()
    one.cancel()
    await turns()
    assert one.cancelled()
    assert not two.done()
    await pair.take_all()
    await two


async def test_frames_that_were_not_written_yet_count_as_queued(pair: Pair) -> None:
    pair.socket.send([b"x" * 100])
    assert (pair.socket.queued_bytes, pair.socket.sent_bytes) == (102, 0)
    await pair.client.next_frame()
    assert (pair.socket.queued_bytes, pair.socket.sent_bytes) == (0, 102)


async def test_short_frames_without_end_make_a_socket_full_in_the_iteration_in_which_they_are_sent(pair: Pair) -> None:
    for _ in range(100_000):
        pair.socket.send([b"x" * 1000])
        if pair.socket.is_full:
            break
    assert pair.socket.is_full
    await pair.take_all()


@pytest.mark.parametrize("whose", ["theirs", "ours"])
async def test_waiters_continue_when_the_connection_is_lost(pair: Pair, whose: str) -> None:
    gone = []
    pair.socket.on_disconnect = lambda: gone.append(True)
    await pair.fill()
    draining = asyncio.create_task(pair.socket.drain())
    await turns()
    if whose == "ours":
        pair.socket.abort()
    else:
        pair.client.abort()
    await draining
    assert gone == [True]


async def test_a_disconnect_waits_for_queued_output_up_to_a_deadline(pair: Pair) -> None:
    await pair.fill()
    letting_go = asyncio.create_task(pair.socket.disconnect())
    await turns(200)
    advance(4.9)
    await turns()
    assert not letting_go.done()
    advance(0.2)
    await letting_go
    await pair.socket.disconnect()


async def test_a_disconnect_is_done_when_all_output_is_read(pair: Pair) -> None:
    sent = await pair.fill()
    letting_go = asyncio.create_task(pair.socket.disconnect())
    assert len(await pair.client.read_to_end()) == sent
    await letting_go


async def test_a_cancelled_disconnect_aborts_the_connection(pair: Pair) -> None:
    await pair.fill()
    letting_go = asyncio.create_task(pair.socket.disconnect())
    await turns()
    letting_go.cancel()
    with suppress(asyncio.CancelledError):
        await letting_go
    await until(lambda: not pair.socket.queued_bytes)
