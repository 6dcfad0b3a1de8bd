"""Answers of providers: chunk by chunk, or complete."""

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
    """A JSON value; a string if the item is not JSON; bytes for binary content such as audio."""
    event: str | None = None
    """Value of an `event:` line, if the item itself does not contain it."""
    id: str | None = None
    """Value of an `id:` line."""
    malformed: bool = False
    """The response is text that should have been JSON."""
    restarted: bool = False
    """The answer broke and another step starts again: discard all earlier chunks.

    It occurs only with `onBreak` set to `restart`. Such a chunk may have no response.
    """

    @property
    def text(self) -> str:
        """Return the human-readable text of any provider's format; empty without text."""
        return text_of(self.response) or ""


@dataclass(frozen=True, slots=True)
class Answer:
    response: Any
    """Body of the provider in the form of a chunk's response; None for a streamed answer."""
    items: Sequence[Chunk]
    """Items of a streamed answer; empty for an answer in one piece."""
    metadata: Metadata

    @property
    def text(self) -> str:
        """Return the human-readable text of any provider's format."""
        return "".join(chunk.text for chunk in self.items) if self.items else text_of(self.response) or ""

    @property
    def usage(self) -> Usage | None:
        """Return token counts in one form for all providers; None if unknown."""
        return self.metadata.usage

    @property
    def cost(self) -> float | None:
        """Return US dollars, if the provider reports them."""
        return self.metadata.cost


class Stream(ResponseReader):
    """Yields the chunks of an answer. The end of the iteration guarantees that the answer is complete.

    An answer in one piece is one chunk. Opening and iterating raise EventFailed if the event fails, after all chunks
    that arrived.
    """

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self._single_frame: Frame | None = None
        """Frame of an answer in one piece, until it is consumed."""
        self._is_streamed = True

    @property
    def is_streamed(self) -> bool:
        """Return true if the provider streams its answer; after a restart it may be in one piece."""
        return self._is_streamed

    @property
    def usage(self) -> Usage | None:
        """Return token counts; they are known after the end."""
        return self._metadata.usage

    @property
    def cost(self) -> float | None:
        """Return US dollars; they are known after the end."""
        return self._metadata.cost

    async def collect(self) -> Answer:
        """Return the rest of the stream as one answer."""
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
            self._single_frame, self._is_streamed = first, False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        single, self._single_frame = self._single_frame, None
        frame = single or await self._next()
        if frame is None or frame.type == "done":
            raise StopAsyncIteration
        if frame.type == "created":
            self._is_streamed = not frame.has_response
        return _chunk(frame)


def _chunk(frame: Frame) -> Chunk:
    return Chunk(frame.content, frame.event, frame.id, frame.malformed, frame.metadata.restarted)
