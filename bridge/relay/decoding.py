"""Request bodies without their content coding: for what the bridge must read of them (PROTOCOL.md, "What is streamed").

Providers get them as they came. They are inflated a megabyte per turn of the loop, and count in the event's hold.
"""

import asyncio
from io import BytesIO
from typing import Final

import msgspec

from bridge.errors import BadMessage, TooLarge
from bridge.formats.codings import MAX_INFLATED_BYTES, CodingError, coding_in, inflate
from bridge.policy import openai_compat
from bridge.protocol.steps import ProviderStep
from bridge.relay.memory import MemoryReservation

_TURN_BYTES: Final = 1 << 20
_READS_PER_TURN: Final = 16


async def with_decoded_bodies(steps: list[ProviderStep], reservation: MemoryReservation) -> list[ProviderStep]:
    """The steps, those with a coded body with `decoded`; empty for a body that nobody can decode.

    Raises OutOfMemoryBudget; for a step of `compat`, whose body has to be rewritten, BadMessage and TooLarge.
    """
    if not any("content-encoding" in step.provider_headers for step in steps):
        return steps
    left, found = MAX_INFLATED_BYTES, list[ProviderStep]()
    for step in steps:
        try:
            body = await decoded(step.body, step.provider_headers.get("content-encoding", ""), reservation, left)
        except (BadMessage, TooLarge):
            if step.provider == openai_compat.SLUG:
                raise
            body = b""
        left -= len(body or b"")
        found.append(msgspec.structs.replace(step, decoded=body))
    return found


async def decoded(body: bytes, content_encoding: str, reservation: MemoryReservation, most: int) -> bytes | None:
    """The body without its coding, None if it has none. What is returned is counted in the hold.

    Raises BadMessage for a body that cannot be decoded, TooLarge for one of more than `most` bytes, OutOfMemoryBudget.
    """
    plain = BytesIO()
    try:
        coding = coding_in(content_encoding)
        if coding is None:
            return None
        await _inflate(body, coding, plain, reservation, most)
    except BaseException as error:
        reservation.release(plain.tell())
        if isinstance(error, CodingError):
            raise BadMessage(f"the body {error}") from None
        raise
    return plain.getvalue()


async def _inflate(body: bytes, coding: str, plain: BytesIO, reservation: MemoryReservation, most: int) -> None:
    turn_ends, reads = _TURN_BYTES, 0
    for piece in inflate(body, coding):
        if plain.tell() + len(piece) > most:
            raise TooLarge(f"the body has more than {most} bytes when it is decoded; no longer one is taken")
        reservation.add(len(piece))
        plain.write(piece)
        reads += not piece
        if plain.tell() >= turn_ends or reads >= _READS_PER_TURN:
            turn_ends, reads = plain.tell() + _TURN_BYTES, 0
            await asyncio.sleep(0)
