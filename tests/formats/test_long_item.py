"""Items that are read in parts: they say the same as in one piece."""

import itertools
import random

import pytest

from bridge.errors import ItemTooLarge
from bridge.formats import long_item, ndjson, sse
from bridge.formats.decoders import Shape, decoder_for
from bridge.formats.item import Item
from bridge.formats.stream_reader import StreamReader
from bridge.protocol.frames import EventFrames
from tests.support.decoding import decode

LINES = [
    b"event: delta",
    b"event:",
    b"id: 7",
    b": comment",
    b":HTTP_STATUS/429",
    b"error: busy",
    b'data: {"a":"0123456789"',
    b'data: ,"b":[1,2]}',
    b'data:{"c":"0123456789012345"}',
    b"data: ping",
    b"data",
    b"data:",
    b"data: [DONE]",
    b'{"bare":1}',
    b"unknown: x",
    b"da",
    b"",
    b"",
]
ENDS = [b"\n", b"\r\n", b"\r"]


def frames(items: list[Item]) -> list[bytes]:
    reader = StreamReader()
    for item in items:
        reader.read(item)
    return [bytes(frame) for frame in EventFrames(b"1", compat=False).items(items)]


def set_limit(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    for module in (sse, ndjson):
        monkeypatch.setattr(module, "LONG_ITEM_BYTES", limit)
    monkeypatch.setattr(long_item, "BLOCK_BYTES", 4)


@pytest.mark.parametrize(("shape", "seed"), list(itertools.product([Shape.SSE, Shape.NDJSON], range(15))))
def test_a_body_gives_the_same_frames_in_parts_and_in_one_piece(
    shape: Shape, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    for _ in range(40):
        end = draw.choice(ENDS)
        lines = draw.choices(LINES, k=draw.randrange(1, 12))
        if shape is Shape.NDJSON:
            end, lines = b"\n", [line.removeprefix(b"data:") for line in lines]
        body = end.join(lines) + draw.choice([b"", end, end * 2])
        cuts = sorted(draw.sample(range(len(body) + 1), min(len(body), draw.randrange(1, 8))))
        reads = [body[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(body)])]
        set_limit(monkeypatch, 8)
        in_parts = decode(shape, reads)
        set_limit(monkeypatch, 1 << 20)
        in_one_piece = decode(shape, reads)
        assert (frames(in_parts[0]), in_parts[1]) == (frames(in_one_piece[0]), in_one_piece[1]), reads


@pytest.mark.parametrize(("shape", "begin"), [(Shape.SSE, b'data: {"a":"'), (Shape.NDJSON, b'{"a":"')])
def test_a_long_item_is_counted_while_it_comes(shape: Shape, begin: bytes) -> None:
    decoder = decoder_for(shape, 1 << 20)
    decoder.feed(begin)
    for count in range(1, 16):
        assert decoder.feed(b"y" * 65_536) == []
        assert decoder.pending_bytes == len(begin) + count * 65_536
    with pytest.raises(ItemTooLarge):
        decoder.feed(b"y" * 65_536)
