"""An event beside the tested one: it must continue, whatever happens to its neighbour."""

import asyncio

from tests.support.event_harness import DONE, FINISH, said, step
from tests.support.harness import Client, Frame
from tests.support.provider_script import Plays, streams
from tests.support.socket_provider import Line

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Encode one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Sibling:
    """A stream that pauses in its middle until it is continued. Its provider is scripted or on a socket."""

    def __init__(self, slug: str = "groq") -> None:
        self._slug = slug
        self._goes_on = asyncio.Event()
        self._parts = (said("one"), self._goes_on, said("two"), FINISH, DONE)

    @property
    def plays(self) -> Plays:
        return streams(*self._parts)

    async def script(self, line: Line) -> None:
        await line.request()
        await line.send(HEAD, chunk(said("one")))
        await self._goes_on.wait()
        await line.send(chunk(said("two")), chunk(FINISH + DONE), b"0\r\n\r\n")

    async def begins(self, client: Client) -> None:
        await client.create({"eventId": "sibling", **step(self._slug)})
        while not _texts(client.frames):
            await client.receive()

    async def ends_well(self, client: Client) -> None:
        """The rest comes now, and nothing of it is missing."""
        self._goes_on.set()
        frames = await client.until_last("sibling")
        assert frames[-1]["type"] == "universal.done", frames[-1]
        assert _texts(client.frames) == ["one", "two"]


def _texts(frames: list[Frame]) -> list[str]:
    mine = (each for each in frames if each["metadata"].get("eventId") == "sibling" and "response" in each)
    deltas = (each["response"]["choices"][0]["delta"] for each in mine)
    return [delta["content"] for delta in deltas if delta.get("content")]
