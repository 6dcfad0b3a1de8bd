"""Lines of JSON, complete and cut. test_decoders.py tests the common properties."""

import pytest

from bridge.formats.decoders import Shape
from bridge.formats.item import Item, ItemKind
from bridge.formats.ndjson import NdjsonDecoder
from tests.support.decoding import LIMIT, decode


def test_a_line_is_returned_with_its_line_feed() -> None:
    decoder = NdjsonDecoder(LIMIT)
    assert decoder.feed(b'{"n":1}\r\n{"n"') == [Item(b'{"n":1}')]
    assert decoder.pending_bytes == len(b'{"n"')
    assert decoder.feed(b":2}") == []
    assert decoder.feed(b"\n") == [Item(b'{"n":2}')]


@pytest.mark.parametrize(
    ("last", "items"), [(b'{"n":1}', [Item(b'{"n":1}')]), (b"[DONE]", [Item(b"[DONE]", ItemKind.DONE)]), (b" \t", [])]
)
def test_a_complete_last_line_without_line_feed_is_an_item(last: bytes, items: list[Item]) -> None:
    assert decode(Shape.NDJSON, [b"{}\n" + last]) == ([Item(b"{}"), *items], False)


@pytest.mark.parametrize("last", [b'{"n":', b'{"n":1}{', b"[DO", b"data"])
def test_an_incomplete_last_line_is_truncated(last: bytes) -> None:
    decoder = NdjsonDecoder(LIMIT)
    assert decoder.feed(b"{}\n" + last) == [Item(b"{}")]
    assert decoder.finish() == []
    assert decoder.truncated
    assert decoder.pending_bytes == len(last)
