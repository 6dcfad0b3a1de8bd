"""Decode the content coding of responses while they are read (`formats.codings`)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import httpx

from bridge.formats.codings import CodingError, Inflating, coding_in, hidden_coding, inflater


def inflater_for(content_encoding: str) -> Inflating | None:
    """Return the decoder for the header's value; None if the body is not coded.

    Raises httpx.DecodingError for an unsupported coding, and for several codings.
    """
    try:
        coding = coding_in(content_encoding)
        return None if coding is None else inflater(coding)
    except CodingError as error:
        raise httpx.DecodingError(f"the answer {error}") from None


MAX_TRIED_BYTES: Final = 65_536
"""Number of bytes that are buffered to detect an undeclared coding."""


class InflatedBody(httpx.AsyncByteStream):
    """Decodes a coded body while it is read. Owns `coded`.

    Raises httpx.ReadError for a truncated body, httpx.DecodingError for a damaged one.
    """

    def __init__(self, coded: httpx.AsyncByteStream, undoing: Inflating) -> None:
        self._coded, self._undoing = coded, undoing
        self._reads = aiter(coded)

    def __aiter__(self) -> "InflatedBody":
        return self

    async def __anext__(self) -> bytes:
        if self._undoing.has_output:
            # One read may inflate to a thousand pieces: other tasks run between two of them.
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
    """Decodes a body whose coding is not declared, if its first bytes show one. Owns `body`.

    A body that cannot be decoded is passed on unchanged.
    """

    def __init__(self, body: httpx.AsyncByteStream, ended: Callable[[], bool]) -> None:
        """Wrap `body`; `ended` returns True once all of it was read."""
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
        """Return True if everything was read."""
        return not self._head and (self._undoing is None or not self._undoing.has_output) and self._ended()

    async def _first(self) -> bytes:
        """Return the first piece. A cancelled read loses no data."""
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
        """Return the first decoded piece; None if the body cannot be decoded and stays in `_head`."""
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
