"""Content codings of answers undone while they are read (`wire.codings`)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import httpx

from bridge.formats.codings import CodingError, Inflating, coding_in, hidden_coding, inflater


def inflater_for(content_encoding: str) -> Inflating | None:
    """What undoes the coding that the header's value names; None when there is nothing to undo.

    Raises httpx.DecodingError for a coding that cannot be undone here, and for two one over the other.
    """
    try:
        coding = coding_in(content_encoding)
        return None if coding is None else inflater(coding)
    except CodingError as error:
        raise httpx.DecodingError(f"the answer {error}") from None


MAX_TRIED_BYTES: Final = 65_536
"""How much of a body is held until it shows that it is coded."""


class InflatedBody(httpx.AsyncByteStream):
    """A coded body, read as the plain one. Owns `coded`.

    Raises httpx.ReadError for a body cut in the middle of its coding, httpx.DecodingError for one that does not hold.
    """

    def __init__(self, coded: httpx.AsyncByteStream, undoing: Inflating) -> None:
        self._coded, self._undoing = coded, undoing
        self._reads = aiter(coded)

    def __aiter__(self) -> "InflatedBody":
        return self

    async def __anext__(self) -> bytes:
        if self._undoing.has_output:
            # One read may hold a thousand pieces: between two of them the others get their turn.
            await asyncio.sleep(0)
        try:
            while not (piece := self._undoing.take()):
                self._undoing.feed(await anext(self._reads))
        except StopAsyncIteration:
            if self._undoing.is_complete:
                raise
            raise httpx.ReadError("the answer ended in the middle of its compressed body") from None
        except CodingError as exc:
            raise httpx.DecodingError("the answer's compressed body is damaged") from exc
        return piece

    async def aclose(self) -> None:
        await self._coded.aclose()


class UnlabelledBody(httpx.AsyncByteStream):
    """A body that may be coded without saying so: its first bytes tell. Owns `body`.

    What cannot be undone stays as it came.
    """

    def __init__(self, body: httpx.AsyncByteStream, ended: Callable[[], bool]) -> None:
        """`ended`: the whole body has been read."""
        self._body = body
        self._reads = aiter(body)
        self._ended = ended
        self._head = b""
        self._undoing: Inflating | None = None
        self._next: Callable[[], Awaitable[bytes]] = self._first

    def __aiter__(self) -> "UnlabelledBody":
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._next()

    def ended(self) -> bool:
        """Everything has been read."""
        return not self._head and (self._undoing is None or not self._undoing.has_output) and self._ended()

    async def _first(self) -> bytes:
        """The first piece. A read that is cancelled takes nothing away from the next."""
        coding, is_certain = hidden_coding(self._head)
        while not is_certain and await self._more():
            coding, is_certain = hidden_coding(self._head)
        if coding is not None and (piece := await self._undone(coding)) is not None:
            self._head = b""
            return piece or await self._next()
        self._next = self._reads.__anext__
        head, self._head = self._head, b""
        return head or await self._next()

    async def _undone(self, coding: str) -> bytes | None:
        """The first piece of the plain body; None if the body does not hold, then it stays in `_head`."""
        try:
            undoing = inflater(coding)
            undoing.feed(self._head)
            while not (piece := undoing.take()) and len(self._head) < MAX_TRIED_BYTES:
                before = len(self._head)
                if not await self._more():
                    if undoing.is_complete:
                        break
                    return None
                undoing.feed(self._head[before:])
        except CodingError:
            return None
        self._undoing = undoing
        self._next = InflatedBody(self._body, undoing).__anext__
        return piece

    async def _more(self) -> bool:
        try:
            self._head += await anext(self._reads)
        except StopAsyncIteration:
            return False
        return True

    async def aclose(self) -> None:
        await self._body.aclose()
