"""Run an event beside the tested one and check that it is not affected."""

import asyncio

from tests.support.event_harness import DONE, FINISH, content, step
from tests.support.harness import Client, Frame
from tests.support.provider_script import ScriptedResponse, streams
from tests.support.socket_provider import Line

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Encode one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Sibling:
    """A stream that pauses after its first item. Its provider is scripted or on a socket."""

    def __init__(self, slug: str = "groq") -> None:
        self._slug = slug
        self._continued = asyncio.Event()
        self._parts = (content("one"), self._continued, content("two"), FINISH, DONE)

    @property
    def response(self) -> ScriptedResponse:
        return streams(*self._parts)

    async def script(self, line: Line) -> None:
        await line.request()
        await line.send(HEAD, chunk(content("one")))
        await self._continued.wait()
        await line.send(chunk(content("two")), chunk(FINISH + DONE), b"0\r\n\r\n")

    async def start(self, client: Client) -> None:
        await client.create({"eventId": "sibling", **step(self._slug)})
        while not _texts(client.frames):
            await client.receive()

    async def check_completes(self, client: Client) -> None:
        """Send the rest of the stream and check that it is complete."""
        self._continued.set()
        frames = await client.until_last("sibling")
        assert frames[-1]["type"] == "universal.done", frames[-1]
        assert _texts(client.frames) == ["one", "two"]


def _texts(frames: list[Frame]) -> list[str]:
    frames_of_sibling = (each for each in frames if each["metadata"].get("eventId") == "sibling" and "response" in each)
    deltas = (each["response"]["choices"][0]["delta"] for each in frames_of_sibling)
    return [delta["content"] for delta in deltas if delta.get("content")]
