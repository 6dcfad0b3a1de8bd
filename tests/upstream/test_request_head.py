"""The bytes of a request's head, and the requests that have none."""

import httpx
import pytest

from bridge.upstream.request_head import request_head

Headers = list[tuple[bytes, bytes]]


def test_a_head_has_host_and_length_and_then_the_headers_in_order() -> None:
    headers = [(b"x-b", b"2"), (b"X-A", b"1"), (b"x-b", b"3")]
    assert request_head("POST", b"/v1?a=%2F", b"host:1", headers, 7) == (
        b"POST /v1?a=%2F HTTP/1.1\r\nHost: host:1\r\nContent-Length: 7\r\nx-b: 2\r\nX-A: 1\r\nx-b: 3\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "size", "has_length"),
    [("GET", 0, False), ("GET", 1, True), ("HEAD", 0, False), ("POST", 0, True), ("DELETE", 0, True), ("X-Y", 0, True)],
)
def test_an_empty_body_has_a_length_where_the_method_may_have_one(method: str, size: int, has_length: bool) -> None:
    assert (b"Content-Length: %d\r\n" % size in request_head(method, b"/", b"h", [], size)) == has_length


@pytest.mark.parametrize("name", [b"Host", b"content-LENGTH", b"Transfer-Encoding"])
def test_framing_headers_of_the_caller_are_left_out(name: bytes) -> None:
    assert request_head("GET", b"/", b"h", [(name, b"5")], 0) == b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("value", [b"", b"caf\xe9", "✓".encode(), bytes(range(0x80, 0x100)), b"a\tb", b" padded "])
def test_header_values_are_sent_as_the_bytes_that_they_are(value: bytes) -> None:
    assert b"\r\nX: " + value + b"\r\n" in request_head("GET", b"/", b"h", [(b"X", value)], 0)


@pytest.mark.parametrize(
    "value", [bytes([code]) for code in [*range(9), *range(10, 32), 127]] + [b"a\r\nb: c", b"\r\n"]
)
def test_a_control_character_in_a_header_value_is_refused(value: bytes) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        request_head("GET", b"/", b"h", [(b"X", b"a" + value + b"z"), (b"Y", b"z")], 0)


@pytest.mark.parametrize("name", [b"", b" ", b"a b", b"a:", b"a\r\n", b"\xe9", b"a\0", b"(a)", b'"'])
def test_a_header_name_that_is_no_token_is_refused(name: bytes) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        request_head("GET", b"/", b"h", [(name, b"a")], 0)


@pytest.mark.parametrize("target", [b"", b"a", b"*", b"?a", b"http://h/", b"/ ", b"/a#b", b"/\xe9", b"/\r\n", b"/\x7f"])
def test_a_target_that_would_be_read_differently_is_refused(target: bytes) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        request_head("GET", target, b"h", [], 0)


@pytest.mark.parametrize("method", ["", "GET /", "G\r\nT", "GÉT", "G:T"])
def test_a_method_that_is_no_token_is_refused(method: str) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        request_head(method, b"/", b"h", [], 0)


def test_the_error_quotes_nothing_of_the_request() -> None:
    with pytest.raises(httpx.LocalProtocolError) as raised:
        request_head("GET", b"/secret target", b"h", [(b"authorization", b"secret\n")], 0)
    assert "secret" not in str(raised.value)
