"""Arrays in pieces, compared with the standard library."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.formats.decoders import Shape
from bridge.formats.item import Item, ItemKind
from bridge.formats.json_array import JsonArrayDecoder
from tests.support.decoding import LIMIT, cut_at, decode

VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('ab"\\[]{}, \n\u2028é')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
CLOSED = Item(b"]", ItemKind.DONE)


@given(elements=st.lists(VALUES), indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans(), data=st.data())
def test_elements_are_returned_byte_for_byte_with_any_split(
    elements: list[object], indent: int | None, ascii_only: bool, data: st.DataObject
) -> None:
    texts = [json.dumps(element, indent=indent, ensure_ascii=ascii_only).encode() for element in elements]
    body = b"\r\n[ " + b"\n,\n".join(texts) + b" ]\n"
    places = data.draw(st.lists(st.integers(0, len(body))))
    assert decode(Shape.JSON_ARRAY, cut_at(body, places)) == ([Item(text) for text in texts] + [CLOSED], False)


def test_an_object_is_returned_with_its_last_brace() -> None:
    decoder = JsonArrayDecoder(LIMIT)
    assert decoder.feed(b'[{"a":{"b":"}"}') == []
    assert decoder.feed(b"}") == [Item(b'{"a":{"b":"}"}}')]
    assert decoder.pending_bytes == 0
    assert decoder.feed(b"\r\n]") == [CLOSED]


@pytest.mark.parametrize("body", [b"", b" \n", b"[]", b"[ ]\n", b"\xef\xbb\xbf[]"])
def test_an_array_without_elements_has_none(body: bytes) -> None:
    items, truncated = decode(Shape.JSON_ARRAY, [body])
    assert items == ([CLOSED] if b"[" in body else [])
    assert not truncated


@pytest.mark.parametrize(
    "body", [b'{"error":{"code":400}}', b' {"a":[1,{"b":2}]}\n', b'"text, [not] an array"', b"null"]
)
def test_a_body_that_is_not_an_array_is_one_item_at_the_end(body: bytes) -> None:
    decoder = JsonArrayDecoder(LIMIT)
    assert decoder.feed(body) == []
    assert decoder.finish() == [Item(body.strip())]
    assert not decoder.truncated


@pytest.mark.parametrize("body", [b"[", b"[{},", b"[{}", b'[{},{"a":', b"[1", b'{"error":', b"[{}] <html>", b'["a'])
def test_a_body_that_breaks_off_is_truncated(body: bytes) -> None:
    assert decode(Shape.JSON_ARRAY, [body])[1]
