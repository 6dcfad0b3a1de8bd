"""Content codings of answers undone while they are read (`wire.codings`)."""

import asyncio

import httpx

from bridge.wire.codings import CodingError, Inflating, coding_in, inflater


def inflater_for(content_encoding: str) -> Inflating | None:
    """What undoes the coding that the header's value names; None when there is nothing to undo.

    Raises httpx.DecodingError for a coding that cannot be undone here, and for two one over the other.
    """
    try:
        coding = coding_in(content_encoding)
        return None if coding is None else inflater(coding)
    except CodingError as error:
        raise httpx.DecodingError(f"the answer {error}") from None


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
        if self._undoing.more:
            # One read may hold a thousand pieces: between two of them the others get their turn.
            await asyncio.sleep(0)
        try:
            while not (piece := self._undoing.take()):
                self._undoing.feed(await anext(self._reads))
        except StopAsyncIteration:
            if self._undoing.whole:
                raise
            raise httpx.ReadError("the answer ended in the middle of its compressed body") from None
        except CodingError as exc:
            raise httpx.DecodingError("the answer's compressed body is damaged") from exc
        return piece

    async def aclose(self) -> None:
        await self._coded.aclose()
