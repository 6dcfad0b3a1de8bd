"""A client that does not read stops exactly the provider reads that feed it, and memory stays bounded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.server.server import Server
from tests.support.clock import advance, turns, until
from tests.support.event_harness import said, step
from tests.support.harness import config_of, connected, running
from tests.support.raw_client import RawClient, open_websocket
from tests.support.sibling import HEAD, Sibling, chunk
from tests.support.socket_provider import Line, Provider

PIECE = chunk(said("x" * 50_000))
MOST_BYTES = 32 << 20
"""More than all buffers on the way hold, the kernel's four among them; and a small part of what would be sent."""

CONFIG = """
[providers.openai]
base_url = "http://127.0.0.1:{endless}/v1"
[providers.groq]
base_url = "http://127.0.0.1:{sibling}/v1"
"""


class Endless:
    """Sends as much as it can, and counts."""

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

    async def stands_still(self) -> int:
        """Until it can send no more; how much it sent."""
        await until(lambda: self.sent_bytes)
        sent_bytes = -1
        while sent_bytes != self.sent_bytes:
            sent_bytes = self.sent_bytes
            assert sent_bytes < MOST_BYTES, "nobody holds it up"
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


async def take(client: RawClient, size: int) -> None:
    while size > 0:
        size -= len((await client.next_frame())[1])


async def test_a_client_that_does_not_read_stops_its_provider_and_no_other(tmp_path: Path) -> None:
    endless, sibling = Endless(), Sibling()
    async with (
        serving(tmp_path, endless, sibling) as server,
        open_websocket(server) as client,
        connected(server) as other,
    ):
        await sibling.begins(other)
        await client.send_json(create("a"))
        await endless.stands_still()
        await sibling.ends_well(other)


async def test_it_goes_on_where_it_stood_when_the_client_reads_on(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server, open_websocket(server) as client:
        await client.send_json(create("a"))
        for _ in range(3):
            sent_bytes = await endless.stands_still()
            await take(client, 8 << 20)
            await until(lambda before=sent_bytes: endless.sent_bytes > before)


async def test_many_streams_of_one_client_that_does_not_read_stand_still_together(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server, open_websocket(server) as client:
        for each in range(3):
            await client.send_json(create(each))
        await until(lambda: endless.streams == 3)
        await endless.stands_still()


async def test_an_event_that_is_cancelled_while_the_client_does_not_read_takes_no_other_with_it(tmp_path: Path) -> None:
    """Both wait for the same room."""
    endless, sibling = Endless(), Sibling()
    async with serving(tmp_path, endless, sibling) as server, open_websocket(server) as client:
        await client.send_json(create("a"))
        await client.send_json(create("b"))
        await until(lambda: endless.streams == 2)
        await endless.stands_still()
        await client.send_json({"type": "universal.cancel", "eventId": "a"})
        await until(lambda: endless.left == 1)
        while (heard := await client.receive_json())["type"] != "universal.error":
            pass
        assert (heard["metadata"]["eventId"], heard["error"]["code"]) == ("a", 9020)
        sent_bytes = await endless.stands_still()
        await take(client, 8 << 20)
        await until(lambda: endless.sent_bytes > sent_bytes)
        assert (await client.receive_json())["metadata"]["eventId"] == "b"


async def test_the_clocks_stand_still_while_the_client_does_not_read(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server, open_websocket(server) as client:
        await client.send_json({"type": "universal.create", "request": {"eventId": "a", **step(idleTimeout=5000)}})
        await endless.stands_still()
        for _ in range(4):
            advance(10)
            await turns(50)
        await take(client, 4 << 20)
        assert (endless.left, (await client.receive_json())["type"]) == (0, "universal.stream")


async def test_a_client_that_leaves_while_it_does_not_read_lets_its_providers_go(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server:
        async with open_websocket(server) as client:
            await client.send_json(create("a"))
            await endless.stands_still()
        await until(lambda: endless.left == 1)


async def test_one_that_ends_its_half_and_reads_no_more_is_let_go_of(tmp_path: Path) -> None:
    """Nothing is to be heard of it any more, and nothing says that it is gone."""
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server, open_websocket(server) as client:
        await client.send_json(create("a"))
        await endless.stands_still()
        client.send_eof()
        await until(lambda: endless.left == 1)


async def test_one_that_says_goodbye_and_reads_no_more_is_let_go_of(tmp_path: Path) -> None:
    """It has closed the WebSocket in good order, and keeps the connection."""
    endless = Endless()
    async with serving(tmp_path, endless, Sibling()) as server, open_websocket(server) as client:
        await client.send_json(create("a"))
        await endless.stands_still()
        await client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        await until(lambda: endless.left == 1)
        advance(5.1)
        await turns()
        assert await client.close_code() is None
