"""Feed a decoder in different ways, and check the properties that hold in each of them."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from bridge.formats.decoders import Decoder, Shape, decoder_for
from bridge.formats.item import Item
from tests.support.paths import FIXTURES

LIMIT = 1 << 20
HOSTILE = FIXTURES / "hostile"


def decode(shape: Shape, reads: Iterable[bytes], limit: int = LIMIT) -> tuple[list[Item], bool]:
    """Return all items of a body that arrives in `reads`, and True if it was truncated."""
    decoder = decoder_for(shape, limit)
    items = [item for read in reads for item in decoder.feed(read)]
    items += decoder.finish()
    return items, decoder.truncated


def bytewise(body: bytes) -> Iterator[bytes]:
    return (body[at : at + 1] for at in range(len(body)))


def cut_at(body: bytes, places: Iterable[int]) -> Iterator[bytes]:
    edges = [0, *sorted(places), len(body)]
    return (body[start:end] for start, end in pairwise(edges))


def in_pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def pending_everywhere(shape: Shape, body: bytes) -> list[int]:
    """Return `pending_bytes` after each byte of `body`, compared with a decoder that received it in one read."""
    decoder = decoder_for(shape, LIMIT)
    items: list[Item] = []
    pending = []
    for length, byte in enumerate(bytewise(body), start=1):
        items += decoder.feed(byte)
        check_pending(shape, body[:length], decoder, items)
        pending.append(decoder.pending_bytes)
    return pending


def check_pending(shape: Shape, fed: bytes, decoder: Decoder, items: list[Item]) -> None:
    """Check that `fed` without the pending bytes results in the same items and leaves nothing pending."""
    at_once = decoder_for(shape, LIMIT)
    at_once.feed(fed)
    assert decoder.pending_bytes == at_once.pending_bytes
    settled = decoder_for(shape, LIMIT)
    assert settled.feed(fed[: -decoder.pending_bytes or None]) == items
    assert settled.pending_bytes == 0
