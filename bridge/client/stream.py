"""An answer as its chunks come, and an answer as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from bridge.client.event import Event
from bridge.client.frames import Frame, Metadata, Usage
from bridge.client.response import ResponseReader, failed
from bridge.formats.text import text_of


@dataclass(frozen=True, slots=True)
class Chunk:
    """One item of a stream, or an answer in one piece."""

    response: Any
    """A JSON value; a string where the item was none; bytes for audio and the like."""
    event: str | None = None
    """Of an `event:` line, where the item does not say itself what it is."""
    id: str | None = None
    """Of an `id:` line."""
    malformed: bool = False
    """The response is the text of what should have been JSON."""
    restarted: bool = False
    """The answer broke, and another step gives one from scratch: drop what came before this chunk.

    Only with `onBreak` set to `restart`. Such a chunk may bring nothing but this news.
    """

    @property
    def text(self) -> str:
        """What a person would read of it, whichever provider it is from; empty where there is none."""
        return text_of(self.response) or ""


@dataclass(frozen=True, slots=True)
class Answer:
    response: Any
    """The provider's body, as a chunk has it; None where the provider streamed it."""
    items: Sequence[Chunk]
    """What the provider streamed; empty for an answer in one piece."""
    metadata: Metadata

    @property
    def text(self) -> str:
        """What a person would read of it, whichever provider it is from."""
        return "".join(chunk.text for chunk in self.items) if self.items else text_of(self.response) or ""

    @property
    def usage(self) -> Usage | None:
        """Token counts, the same for every provider; None where they are not known."""
        return self.metadata.usage

    @property
    def cost(self) -> float | None:
        """US dollars, where the provider tells it."""
        return self.metadata.cost


class Stream(ResponseReader):
    """Open, the answer has begun; iterated, it gives its chunks up to its end, which is a promise that it is whole.

    An answer in one piece is one chunk. Opening and iterating raise EventFailed where the event fails: behind all
    chunks that came.
    """

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self._whole: Frame | None = None
        """An answer in one piece, until it is taken."""
        self._is_streamed = True

    @property
    def is_streamed(self) -> bool:
        """Whether the provider streams its answer; the one after a restart may be in one piece."""
        return self._is_streamed

    @property
    def usage(self) -> Usage | None:
        """Known after the end."""
        return self._metadata.usage

    @property
    def cost(self) -> float | None:
        """Known after the end."""
        return self._metadata.cost

    async def collect(self) -> Answer:
        """Take what is left of it."""
        chunks: list[Chunk] = []
        async for chunk in self:
            if chunk.restarted:
                chunks.clear()
            if chunk.response is not None or not chunk.restarted:
                chunks.append(chunk)
        if self._is_streamed:
            return Answer(None, chunks, self._metadata)
        return Answer(chunks[0].response if chunks else None, (), self._metadata)

    def _begin(self, first: Frame) -> None:
        if first.error is not None:
            raise failed(first)
        if first.has_response:
            self._whole, self._is_streamed = first, False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        whole, self._whole = self._whole, None
        frame = whole or await self._next()
        if frame is None or frame.type == "done":
            raise StopAsyncIteration
        if frame.type == "created":
            self._is_streamed = not frame.has_response
        return _chunk(frame)


def _chunk(frame: Frame) -> Chunk:
    return Chunk(frame.content, frame.event, frame.id, frame.malformed, frame.metadata.restarted)
