"""Decode the content coding of request bodies for the fields that the bridge reads (`bridge/docs/protocol.md`, "What is
streamed").

Providers receive the coded bodies. At most 1 MiB is inflated per turn of the loop. Decoded bodies count in the event's
memory reservation.
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
    """Return the steps with `decoded` set for coded bodies; it is empty for a body that cannot be decoded.

    Raises OutOfMemoryBudget. For a step of `compat`, whose body is rewritten, raises BadMessage and TooLarge.
    """
    if not any("content-encoding" in step.provider_headers for step in steps):
        return steps
    remaining, found = MAX_INFLATED_BYTES, list[ProviderStep]()
    for step in steps:
        try:
            body = await decoded(step.body, step.provider_headers.get("content-encoding", ""), reservation, remaining)
        except (BadMessage, TooLarge):
            if step.provider == openai_compat.SLUG:
                raise
            body = b""
        remaining -= len(body or b"")
        found.append(msgspec.structs.replace(step, decoded=body))
    return found


async def decoded(body: bytes, content_encoding: str, reservation: MemoryReservation, max_bytes: int) -> bytes | None:
    """Return the decoded body, None if it has no coding. The result is counted in `reservation`.

    Raises BadMessage for a body that cannot be decoded, TooLarge for more than `max_bytes`, and OutOfMemoryBudget.
    """
    plain = BytesIO()
    try:
        coding = coding_in(content_encoding)
        if coding is None:
            return None
        await _inflate(body, coding, plain, reservation, max_bytes)
    except BaseException as error:
        reservation.release(plain.tell())
        if isinstance(error, CodingError):
            raise BadMessage(f"the body {error}") from None
        raise
    return plain.getvalue()


async def _inflate(body: bytes, coding: str, plain: BytesIO, reservation: MemoryReservation, max_bytes: int) -> None:
    turn_ends, reads = _TURN_BYTES, 0
    for piece in inflate(body, coding):
        if plain.tell() + len(piece) > max_bytes:
            raise TooLarge(f"the decoded body is longer than {max_bytes} bytes")
        reservation.add(len(piece))
        plain.write(piece)
        reads += not piece
        if plain.tell() >= turn_ends or reads >= _READS_PER_TURN:
            turn_ends, reads = plain.tell() + _TURN_BYTES, 0
            await asyncio.sleep(0)
