"""Responses from bytes: what ends them, what keeps the connection, and the bounds on what a provider may send."""

import pytest

from bridge.upstream.answer_reader import AnswerFault, AnswerReader

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def read(*reads: bytes, method: str = "POST") -> tuple[AnswerReader, bytes]:
    """Feed the reads until the response is over; return the reader and the body."""
    reader, body = AnswerReader(), b""
    reader.start(method)
    for data in reads:
        if reader.is_complete or reader.fault:
            break
        body += reader.feed(data)
    return reader, body


def in_parts(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        (EMPTY, True),
        (OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", True),
        (CHUNKED + b"0\r\n\r\n", True),
        (CHUNKED + b"0\r\nX-Trailer: 1\r\n\r\n", True),
        (EMPTY + b"\r\n", True),
        (EMPTY + b"H", False),
        (EMPTY + b"HTTP/1.1 408", False),
        (EMPTY + EMPTY, False),
        (EMPTY + b"HTTP/1.1 100 Continue\r\n\r\n" * 99, False),
    ],
)
def test_a_complete_response_keeps_its_connection_unless_something_says_otherwise(answer: bytes, is_kept: bool) -> None:
    reader, body = read(answer)
    assert (reader.is_complete, reader.fault, reader.keeps_connection, body) == (True, None, is_kept, b"")


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 5\r\n\r\n",
        CHUNKED,
        EMPTY,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + EMPTY,
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\n",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_answer_to_head_ends_with_its_head_and_keeps_the_connection(answer: bytes, size: int) -> None:
    reader, body = read(*in_parts(answer, size), method="HEAD")
    assert (reader.is_complete, reader.keeps_connection, body) == (True, True, b"")
    reader.start("GET")
    assert reader.feed(OK + b"Content-Length: 2\r\n\r\nok") == b"ok"
    assert reader.keeps_connection


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"\r\n",
        OK + b"Content-Length: 5\r\n\r\nabcde",
        OK + b"Content-Length: 5\r\n\r\na",
        OK + b"Content-Length: 5\r\n\r\n\r\n",
        CHUNKED + b"0\r\n\r\n",
        CHUNKED + b"5",
        EMPTY + b"H",
    ],
)
def test_an_answer_to_head_loses_the_connection_if_anything_follows_or_no_length_is_given(answer: bytes) -> None:
    reader, body = read(answer, method="HEAD")
    assert (reader.is_complete, reader.keeps_connection, body) == (True, False, b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 099 Less\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 000 None\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding:\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\na",
        OK + b"Content-Length: 1, 1\r\n\r\na",
        OK + b"Content-Length: 1\r\n 2\r\n\r\na",
        OK + b"X-Null: a\0b\r\nContent-Length: 0\r\n\r\n",
        OK + b"X-Bell: a\x07b\r\nContent-Length: 0\r\n\r\n",
        OK + b"X-Return: a\rb\r\nContent-Length: 0\r\n\r\n",
        OK + b"X Space: a\r\nContent-Length: 0\r\n\r\n",
        OK + b"X-Space : a\r\nContent-Length: 0\r\n\r\n",
        CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
        CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\n",
        CHUNKED + b"0\r\nContent-Length: 1\r\n\r\n",
    ],
)
def test_a_response_that_can_be_read_in_two_ways_is_refused(answer: bytes) -> None:
    reader, _ = read(answer)
    assert reader.fault is AnswerFault.UNREADABLE
    reader, _ = read(*in_parts(answer, 1))
    assert reader.fault is AnswerFault.UNREADABLE


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (b"HTTP/1.1 200 OK\nX: a\nContent-Length: 2\n\nok", b"a"),
        (OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok", b"a b"),
        (OK + b"X: \ta\t \r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n", b"a"),
        (b"HTTP/1.1 200\r\nX:\r\nContent-Length: 2\r\n\r\nok", b""),
        (b"\r\nHTTP/1.1 200 OK\r\nX: \xff\r\nContent-Length: 2 \r\n\r\nok", b"\xff"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_common_deviations_that_have_one_meaning_are_accepted(answer: bytes, value: bytes, size: int) -> None:
    reader, body = read(*in_parts(answer, size))
    assert (reader.headers[0], body, reader.is_complete) == ((b"X", value), b"ok", True)


@pytest.mark.parametrize("upgrade", [b"Connection: upgrade\r\nUpgrade: websocket\r\n", b""])
def test_a_switch_of_protocols_is_no_answer(upgrade: bytes) -> None:
    reader, _ = read(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\nabc")
    assert reader.fault is AnswerFault.SWITCHED


def test_an_offer_of_another_protocol_is_an_answer() -> None:
    reader, body = read(OK + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok")
    assert (reader.is_complete, reader.fault, body) == (True, None, b"ok")


def test_only_the_head_counts_towards_the_bound_on_heads() -> None:
    body = bytes(2_000_000)
    reader, received = read(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert (received, reader.is_complete) == (body, True)


@pytest.mark.parametrize(("size", "fault"), [(65_500, None), (65_600, AnswerFault.TOO_LONG)])
@pytest.mark.parametrize("read_size", [1000, 65_536, 1_000_000])
def test_a_header_has_at_most_64_kib(size: int, fault: AnswerFault | None, read_size: int) -> None:
    answer = OK + b"X: " + b"a" * size + b"\r\nContent-Length: 0\r\n\r\n"
    reader, _ = read(*in_parts(answer, read_size))
    assert reader.fault is fault


@pytest.mark.parametrize(("count", "fault"), [(128, None), (129, AnswerFault.TOO_LONG)])
def test_a_head_has_at_most_128_headers(count: int, fault: AnswerFault | None) -> None:
    reader, _ = read(OK + b"a: b\r\n" * (count - 1) + b"Content-Length: 0\r\n\r\n")
    assert reader.fault is fault


@pytest.mark.parametrize(
    "part",
    [b"X-Trailer: a\r\n", b"a" * 1000, b"X-Trailer: " + b"a" * 1000],
    ids=["many", "a long name", "long values"],
)
def test_trailers_are_bounded(part: bytes) -> None:
    reader, body = read(CHUNKED + b"2\r\nok\r\n", b"0\r\n", *[part] * 6000)
    assert (body, reader.fault, reader.is_complete) == (b"ok", AnswerFault.UNREADABLE, False)


def test_a_long_extension_of_a_chunk_is_bounded() -> None:
    reader, _ = read(CHUNKED, b"2;", *[b"a" * 1000] * 70)
    assert reader.fault is AnswerFault.UNREADABLE


def test_trailers_are_no_headers() -> None:
    reader, _ = read(CHUNKED + b"0\r\nX-Trailer: 1\r\n\r\n")
    assert reader.headers == [(b"Transfer-Encoding", b"chunked")]


def test_headers_of_interim_responses_are_no_headers() -> None:
    reader, _ = read(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + EMPTY)
    assert reader.headers == [(b"Content-Length", b"0")]


def test_the_bytes_before_a_broken_chunk_are_returned() -> None:
    reader, body = read(CHUNKED + b"3\r\nabc\r\n2\r\nde\r\nzz\r\n")
    assert (body, reader.has_head, reader.fault) == (b"abcde", True, AnswerFault.UNREADABLE)


@pytest.mark.parametrize(
    ("head", "lasts"),
    [
        (OK + b"\r\n", True),
        (b"HTTP/1.0 200 OK\r\n\r\n", True),
        (CHUNKED, False),
        (OK + b"Content-Length: 9\r\n\r\n", False),
    ],
)
def test_a_body_without_a_length_lasts_until_the_connection_is_closed(head: bytes, lasts: bool) -> None:
    reader, _ = read(head + b"1")
    assert (reader.lasts_until_close, reader.is_complete) == (lasts, False)
