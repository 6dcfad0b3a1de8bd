"""Write the head of an HTTP response and the framing of its body."""

import pytest

from bridge.server.http.framing import Framing, chunk, framing_of, head


@pytest.mark.parametrize(
    ("method", "status", "length", "is_http_1_1", "framing"),
    [
        ("POST", 200, 5, True, Framing.LENGTH),
        ("POST", 200, 0, True, Framing.LENGTH),
        ("POST", 200, 5, False, Framing.LENGTH),
        ("POST", 200, None, True, Framing.CHUNKED),
        ("POST", 200, None, False, Framing.UNTIL_CLOSE),
        ("HEAD", 200, 5, True, Framing.NONE),
        ("HEAD", 200, None, False, Framing.NONE),
        ("GET", 204, 0, True, Framing.NONE),
        ("GET", 304, None, False, Framing.NONE),
    ],
)
def test_a_response_has_its_framing(
    method: str, status: int, length: int | None, is_http_1_1: bool, framing: Framing
) -> None:
    assert framing_of(method, status, length=length, is_http_1_1=is_http_1_1) is framing


@pytest.mark.parametrize(
    ("status", "is_http_1_1", "line"),
    [(200, True, b"HTTP/1.1 200 OK"), (404, False, b"HTTP/1.0 404 Not Found"), (529, True, b"HTTP/1.1 529 ")],
)
def test_a_status_has_its_phrase_if_there_is_one(status: int, is_http_1_1: bool, line: bytes) -> None:
    assert head(status, [], is_http_1_1=is_http_1_1) == line + b"\r\n\r\n"


def test_headers_keep_their_order_and_each_character_is_one_byte() -> None:
    headers = [("b", "caf\u00e9"), ("a", "x\ty"), ("b", "")]
    assert head(200, headers, is_http_1_1=True) == b"HTTP/1.1 200 OK\r\nb: caf\xe9\r\na: x\ty\r\nb: \r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b", "\x7f", "\x1b[0m"])
def test_headers_with_control_characters_are_left_out(value: str) -> None:
    assert head(200, [("a", value), ("b", "1")], is_http_1_1=True) == b"HTTP/1.1 200 OK\r\nb: 1\r\n\r\n"


def test_characters_beyond_one_byte_become_question_marks() -> None:
    assert head(200, [("a", "\u20ac")], is_http_1_1=True) == b"HTTP/1.1 200 OK\r\na: ?\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "framed"), [([b"x"], b"1\r\nx\r\n"), ([b"ab", b"", b"c" * 14], b"10\r\nab" + b"c" * 14 + b"\r\n")]
)
def test_several_parts_form_one_chunk(parts: list[bytes], framed: bytes) -> None:
    assert chunk(parts) == framed
