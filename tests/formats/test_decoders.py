"""Properties of every decoder, for any body and any split into reads."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ItemTooLarge
from bridge.formats.buffer import is_complete
from bridge.formats.decoders import Shape, decoder_for, sniff
from bridge.formats.item import Item, ItemKind
from tests.support.aws_eventstream import event
from tests.support.decoding import HOSTILE, bytewise, cut_at, decode, in_pieces, pending_everywhere

DONE = Item(b"[DONE]", ItemKind.DONE)
CLOSED = Item(b"]", ItemKind.DONE)
SHAPES = {".sse": Shape.SSE, ".ndjson": Shape.NDJSON, ".json": Shape.JSON_ARRAY, ".bin": Shape.EVENT_STREAM}


def text(data: str, event: str | None = None, id: str | None = None) -> Item:  # noqa: A002 - the field's own name
    return Item(data.encode(), ItemKind.TEXT, event, id)


HOSTILE_ITEMS: dict[str, list[Item]] = {
    "bom.sse": [Item(b'{"choices":[]}'), text("\ufeff{}"), DONE],
    "lone-cr.sse": [Item(b'{"text":"a"}', event="delta", id="1"), Item(b'{"text":"b"}'), DONE],
    "mixed-line-ends.sse": [
        Item(b'{"n":1}', event="a"),
        Item(b'{"n":2}'),
        Item(b'{"n":3}'),
        Item(b'{"n":\n4}'),
    ],
    "split-utf8.sse": [Item('{"text":"naïve … 東京 👩‍👩‍👧"}'.encode()), text("ü", event="größe")],
    "broken-utf8.sse": [Item(b'{"text":"\xf0\x9f\x91"}'), Item(b"\xc3", ItemKind.TEXT, "\ufffd")],
    "line-separators.sse": [Item('{"text":"a\u2028b\u2029c\u0085d\x0be\x0cf"}'.encode()), text("x\u2028y")],
    "cut-mid-event.sse": [Item(b'{"n":1}')],
    "cut-before-blank-line.sse": [Item(b'{"type":"message_stop"}', event="message_stop")],
    "cut-done.sse": [Item(b'{"n":1}')],
    "done-without-blank-line.sse": [Item(b'{"n":1}'), DONE],
    "bare-error.sse": [
        Item(b'{"candidates":[]}'),
        Item(b'{\n  "error": {\n    "code": 503,\n    "status": "UNAVAILABLE"\n  }\n}'),
    ],
    "bare-error-cut.sse": [Item(b'{"candidates":[]}')],
    "fields.sse": [
        Item(b'{"no":"space"}'),
        text(" 5"),
        text("null"),
        text(""),
        Item(b"[1]", id=""),
        text("text"),
    ],
    "text-lines.sse": [text(":\n\nWhy", event="output", id="1:0"), Item(b"{}", event="done")],
    "comments.sse": [Item(b'{"n":\n1}')],
    "pretty-array.json": [
        Item(b'{\r\n  "text": "a \\"quoted\\" ]} \\\\"\r\n}'),
        Item(b'{"nested":[[1,{"]":"["}],[]]}'),
        Item(b"7"),
        Item(b'"s,]"'),
        Item(b"null"),
        CLOSED,
    ],
    "array-left-open.json": [Item(b'{"n":1}'), Item(b'{"n":2}')],
    "array-cut.json": [Item(b'{"n":1}')],
    "no-array.json": [Item(b'{\n  "error": {"code": 400}\n}')],
    "lines.ndjson": [
        Item(b'{"n":1}'),
        Item('{"text":"a\u2028b"}'.encode()),
        Item(b"[2]"),
        Item(b"5"),
        DONE,
        Item(b'{"done":true}'),
    ],
    "lines-cut.ndjson": [Item(b'{"n":1}')],
}
TRUNCATED = {
    "cut-mid-event.sse",
    "cut-done.sse",
    "bare-error-cut.sse",
    "array-left-open.json",
    "array-cut.json",
    "lines-cut.ndjson",
}


def shape_and_body(name: str) -> tuple[Shape, bytes]:
    path = HOSTILE / name
    return SHAPES[path.suffix], path.read_bytes()


hostile = pytest.mark.parametrize("name", HOSTILE_ITEMS)


def test_every_hostile_body_has_expected_items() -> None:
    assert {path.name for path in HOSTILE.iterdir() if path.suffix in SHAPES} == set(HOSTILE_ITEMS)


@hostile
def test_a_body_has_the_same_items_in_one_read_in_single_bytes_and_in_two_reads(name: str) -> None:
    shape, body = shape_and_body(name)
    expected = HOSTILE_ITEMS[name], name in TRUNCATED
    assert decode(shape, [body]) == expected
    assert decode(shape, bytewise(body)) == expected
    for place in range(len(body)):
        assert decode(shape, cut_at(body, [place])) == expected


@hostile
@given(data=st.data())
def test_a_body_has_the_same_items_with_any_split_and_empty_reads(name: str, data: st.DataObject) -> None:
    shape, body = shape_and_body(name)
    places = data.draw(st.lists(st.integers(0, len(body))))
    assert decode(shape, cut_at(body, places)) == (HOSTILE_ITEMS[name], name in TRUNCATED)


@hostile
def test_the_bytes_that_are_not_pending_end_with_an_item(name: str) -> None:
    shape, body = shape_and_body(name)
    assert pending_everywhere(shape, body)


@hostile
def test_only_a_truncated_body_leaves_bytes_pending_at_its_end(name: str) -> None:
    shape, body = shape_and_body(name)
    decoder = decoder_for(shape, 1 << 20)
    decoder.feed(body)
    decoder.finish()
    assert decoder.truncated or decoder.pending_bytes == 0


LONG = b'{"text":"' + b'\\" \\\\ ' * 64 + b'"}'
FRAMED = {
    Shape.SSE: b"data: %s\n\n" % LONG,
    Shape.NDJSON: LONG + b"\n",
    Shape.JSON_ARRAY: b"[%s]" % LONG,
    Shape.EVENT_STREAM: event("messageStart", LONG),
}
framed = pytest.mark.parametrize(("shape", "body"), FRAMED.items(), ids=lambda value: getattr(value, "name", ""))


@framed
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_item_over_the_limit_is_rejected_in_one_read_and_in_many(shape: Shape, body: bytes, size: int) -> None:
    assert decode(shape, in_pieces(body, size), limit=len(body))[0][0] == Item(LONG, event=event_name(shape))
    with pytest.raises(ItemTooLarge, match="longer than 100 bytes"):
        decode(shape, in_pieces(body, size), limit=100)


def event_name(shape: Shape) -> str | None:
    return "messageStart" if shape is Shape.EVENT_STREAM else None


@framed
def test_the_limit_applies_to_single_items(shape: Shape, body: bytes) -> None:
    small = body if shape is not Shape.JSON_ARRAY else LONG + b","
    start = b"[" if shape is Shape.JSON_ARRAY else b""
    items, _ = decode(shape, [start + small * 50], limit=len(small) + 1)
    assert len(items) == 50


@framed
def test_the_cost_of_a_long_item_is_linear_with_any_number_of_reads(shape: Shape, body: bytes) -> None:
    """The item has 13 MB in reads of 64 bytes: copying the buffer at each read would copy a terabyte and take
    minutes.
    """
    long = b'{"text":"' + b'data: [{\\"\\n ' * (1 << 20) + b'"}'
    start, _, end = FRAMED[shape].partition(LONG)
    whole = event("messageStart", long) if shape is Shape.EVENT_STREAM else start + long + end
    items, truncated = decode(shape, in_pieces(whole, 64), limit=1 << 26)
    assert b"".join(items[0].parts or [items[0].data]) == long
    assert not truncated


def recorded() -> Iterator[tuple[Path, Shape | None]]:
    """Return each stream in the index of the folder, with the shape of its content type, path and bytes."""
    folder = Path(os.environ["BRIDGE_STREAMS"])
    for row in csv.DictReader((folder / "index.tsv").read_text().splitlines(), delimiter="\t"):
        path = folder / row["file"]
        media_type, *_ = re.split("[; ]", row["content_type"])
        yield path, sniff(media_type, row["endpoint"].partition("?")[0], path.read_bytes(), ended=True)


@pytest.mark.needs("streams")
def test_recorded_streams_have_the_same_items_in_one_read_and_in_single_bytes() -> None:
    """They have the shape in their name, are complete, and items of kind JSON are JSON."""
    for path, shape in recorded():
        assert shape is SHAPES[path.suffix], path
        body = path.read_bytes()
        items, truncated = decode(shape, [body])
        assert decode(shape, bytewise(body)) == (items, truncated), path
        assert items, path
        assert not truncated, path
        assert all(is_complete(item.data) for item in items if item.kind is ItemKind.JSON), path
