"""Lines of JSON, whole and cut. The tables of test_decoders.py hold the rest."""

import pytest

from bridge.formats.decoders import Shape
from bridge.formats.item import Item, ItemKind
from bridge.formats.ndjson import NdjsonDecoder
from tests.support.decoding import LIMIT, decode


def test_a_line_is_there_with_its_line_feed() -> None:
    decoder = NdjsonDecoder(LIMIT)
    assert decoder.feed(b'{"n":1}\r\n{"n"') == [Item(b'{"n":1}')]
    assert decoder.pending_bytes == len(b'{"n"')
    assert decoder.feed(b":2}") == []
    assert decoder.feed(b"\n") == [Item(b'{"n":2}')]


@pytest.mark.parametrize(
    ("last", "items"), [(b'{"n":1}', [Item(b'{"n":1}')]), (b"[DONE]", [Item(b"[DONE]", ItemKind.DONE)]), (b" \t", [])]
)
def test_a_last_line_without_line_feed_is_taken_when_it_is_complete(last: bytes, items: list[Item]) -> None:
    assert decode(Shape.NDJSON, [b"{}\n" + last]) == ([Item(b"{}"), *items], False)


@pytest.mark.parametrize("last", [b'{"n":', b'{"n":1}{', b"[DO", b"data"])
def test_a_last_line_that_is_cut_is_dropped_and_called_truncated(last: bytes) -> None:
    decoder = NdjsonDecoder(LIMIT)
    assert decoder.feed(b"{}\n" + last) == [Item(b"{}")]
    assert decoder.finish() == []
    assert decoder.truncated
    assert decoder.pending_bytes == len(last)
