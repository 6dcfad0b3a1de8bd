"""Backpressure: a client that does not read pauses the reads of its own providers only, and memory is bounded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.server.server import Server
from tests.support.clock import advance, turns, until
from tests.support.event_harness import content, step
from tests.support.harness import config_of, connected, running
from tests.support.raw_client import RawClient, open_websocket
from tests.support.sibling import HEAD, Sibling, chunk
from tests.support.socket_provider import Line, Provider

PIECE = chunk(content("x" * 50_000))
MAX_BYTES = 32 << 20
"""More than all buffers between provider and client hold, including four of the kernel."""

CONFIG = """
[providers.openai]
base_url = "http://127.0.0.1:{endless}/v1"
[providers.groq]
base_url = "http://127.0.0.1:{sibling}/v1"
"""


class Endless:
    """A provider that sends as much as it can and counts the bytes."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.streams = self.left = 0

    async def script(self, line: Line) -> None:
        await line.request()
        self.streams += 1
        try:
            await line.send(HEAD)
            while True:
                await line.send(PIECE)
                self.sent_bytes += len(PIECE)
        finally:
            self.left += 1

    async def until_blocked(self) -> int:
        """Wait until no more can be sent, and return the number of bytes sent."""
        await until(lambda: self.sent_bytes)
        sent_bytes = -1
        while sent_bytes != self.sent_bytes:
            sent_bytes = self.sent_bytes
            assert sent_bytes < MAX_BYTES, "the provider was never paused"
            await turns(500)
        return sent_bytes


@asynccontextmanager
async def serving(folder: Path, endless: Endless, sibling: Sibling) -> AsyncIterator[Server]:
    async with Provider(endless.script) as feeding, Provider(sibling.script) as other:
        text = CONFIG.format(endless=feeding.port, sibling=other.port)
        async with running(config_of(text, folder)) as server:
            yield server


def create(event_id: object, slug: str = "openai") -> object:
    return {"type": "universal.create", "request": {"eventId": event_id, **step(slug)}}


async def read_bytes(client: RawClient, size: int) -> None:
    while size > 0:
        size -= len((await client.next_frame())[1])


async def test_a_client_that_does_not_read_pauses_only_its_own_provider(tmp_path: Path) -> None:
    endless, sibling = Endless(), Sibling()
    async with (
        serving(tmp_path, endless, sibling) as server,
        open_websocket(server) as client,
        connected(server) as other,
    ):
        await sibling.start(other)
        await client.send_json(create("a"))
        await endless.until_blocked()
        await sibling.check_completes(other)


async def test_a_paused_stream_continues_when_the_client_reads_again(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server, open_websocket(server) as client:
        await client.send_json(create("a"))
        for _ in range(3):
            sent_bytes = await endless.until_blocked()
            await read_bytes(client, 8 << 20)
            await until(lambda before=sent_bytes: endless.sent_bytes > before)


async def test_all_streams_of_a_client_that_does_not_read_are_paused(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server, open_websocket(server) as client:
        for each in range(3):
            await client.send_json(create(each))
        await until(lambda: endless.streams == 3)
        await endless.until_blocked()


async def test_cancelling_a_paused_event_does_not_end_another_event(tmp_path: Path) -> None:
    """Both events wait for the same buffer."""
    endless, sibling = Endless(), Sibling()
    async with serving(tmp_path, endless, sibling) as server, open_websocket(server) as client:
        await client.send_json(create("a"))
        await client.send_json(create("b"))
        await until(lambda: endless.streams == 2)
        await endless.until_blocked()
        await client.send_json({"type": "universal.cancel", "eventId": "a"})
        await until(lambda: endless.left == 1)
        while (received := await client.receive_json())["type"] != "universal.error":
            pass
        assert (received["metadata"]["eventId"], received["error"]["code"]) == ("a", 9020)
        sent_bytes = await endless.until_blocked()
        await read_bytes(client, 8 << 20)
        await until(lambda: endless.sent_bytes > sent_bytes)
        assert (await client.receive_json())["metadata"]["eventId"] == "b"


async def test_no_timeout_runs_while_the_client_does_not_read(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server, open_websocket(server) as client:
        await client.send_json({"type": "universal.create", "request": {"eventId": "a", **step(idleTimeout=5000)}})
        await endless.until_blocked()
        for _ in range(4):
            advance(10)
            await turns(50)
        await read_bytes(client, 4 << 20)
        assert (endless.left, (await client.receive_json())["type"]) == (0, "universal.stream")


async def test_the_streams_of_a_paused_client_are_closed_when_it_disconnects(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server:
        async with open_websocket(server) as client:
            await client.send_json(create("a"))
            await endless.until_blocked()
        await until(lambda: endless.left == 1)


async def test_a_client_that_half_closes_and_does_not_read_is_disconnected(tmp_path: Path) -> None:
    """The client can send nothing more, and nothing shows that it has gone."""
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server, open_websocket(server) as client:
        await client.send_json(create("a"))
        await endless.until_blocked()
        client.send_eof()
        await until(lambda: endless.left == 1)


async def test_a_client_that_sends_a_close_frame_and_does_not_read_is_disconnected(tmp_path: Path) -> None:
    """The client closes the WebSocket properly, and keeps the connection open."""
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server, open_websocket(server) as client:
        await client.send_json(create("a"))
        await endless.until_blocked()
        await client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        await until(lambda: endless.left == 1)
        advance(5.1)
        await turns()
        assert await client.close_code() is None
