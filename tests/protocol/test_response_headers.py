"""Response headers are bytes: as text they are UTF-8 if valid, else Latin-1."""

import pytest

from bridge.protocol.response_headers import readable


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        ("报告 🚀.pdf".encode(), "报告 🚀.pdf"),
        (b"caf\xe9", "café"),
        ("café".encode(), "café"),
        (b"\x95\xf1\x8d\x90", "\x95ñ\x8d\x90"),
        (b"half " + "é".encode()[:1], "half Ã"),
    ],
)
def test_a_value_is_utf_8_where_it_is_valid_and_else_latin_1(value: bytes, text: str) -> None:
    assert readable({"x": value.decode("latin-1"), "y": "1"}) == {"x": text, "y": "1"}


def test_decoded_text_stays_unchanged() -> None:
    assert readable({"x": "报告"}) == {"x": "报告"}
