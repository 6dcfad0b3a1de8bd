"""From an exchange to its tape: what was secret in it is in no line of the tape, wherever it came back."""

import base64
import json

import httpx
import msgspec
import pytest

from bridge.tapes.exchange import ReceivedHead, RecordedExchange, SentRequest, tape_exchange, tape_request
from bridge.tapes.file import Pairs, StreamEnd, Tape, TapeEnding, check, pairs

URL = "https://api.example.com/v1/chat"
SECRET = "planted-secret/0001"
TYPE = ("content-type", "application/json")


def exchange(
    *reads: bytes, url: str = URL, headers: Pairs | None = None, body: bytes = b"{}", answered: Pairs | None = None
) -> RecordedExchange:
    """One read every millisecond."""
    sent = SentRequest("POST", url, headers or [], body)
    return RecordedExchange(
        sent, ReceivedHead(200, [TYPE, *(answered or [])], 1), list(enumerate(reads, 2)), TapeEnding(end=StreamEnd.EOF)
    )


def written(tape: Tape) -> bytes:
    return b"\n".join(msgspec.json.encode(line) for line in (tape.request, tape.head, *tape.chunks) if line)


SHOWN_BY = {
    "a bearer": {"headers": [("authorization", f"Bearer {SECRET}")]},
    "a bare key": {"headers": [("x-api-key", SECRET)]},
    "a key with an id": {"headers": [("authorization", f"Key my-id:{SECRET}")]},
    "a basic password": {"headers": [("authorization", "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode())]},
    "a cookie": {"headers": [("cookie", f"a=b; session={SECRET}; c=d")]},
    "a signature": {
        "headers": [("authorization", f"AWS4-HMAC-SHA256 Credential=A/b, SignedHeaders=host, Signature={SECRET}")]
    },
    "a subprotocol": {"headers": [("sec-websocket-protocol", f"realtime, openai-insecure-api-key.{SECRET}")]},
    "a subprotocol after its name": {"headers": [("sec-websocket-protocol", f"token, {SECRET}")]},
    "a query parameter": {"url": f"{URL}?alt=sse&key={SECRET}"},
    "a coded query parameter": {"url": f"{URL}?%6Bey=planted-secret%2F0001"},
    "a userinfo": {"url": f"https://me:{SECRET.replace('/', '%2F')}@api.example.com/v1/chat"},
    "a field": {"body": json.dumps({"a": [{"client_secret": SECRET}]}).encode()},
    "a list of fields": {"body": json.dumps({"api_keys": ["other", SECRET]}).encode()},
    "a field in ASCII": {"body": b'{"api_key":"planted-secret\\u002f0001"}'},
    "a cookie that is set": {"answered": [("set-cookie", f"session={SECRET}; Path=/; Domain=api.example.com")]},
}


@pytest.mark.parametrize("shown", SHOWN_BY.values(), ids=SHOWN_BY)
def test_a_secret_is_removed_from_the_whole_response(shown: dict[str, object]) -> None:
    """Of an error that echoes it, cut in its middle; of a header that no one would take for a secret; of the path."""
    body = json.dumps({"error": f"no such thing: {SECRET}", "url": "https://h/?q=planted-secret%2F0001"}).encode()
    parts = {"answered": [("x-debug", f"got {SECRET}")], **shown}
    tape = tape_exchange(exchange(body[:30], body[30:], **parts))  # type: ignore[arg-type]  # the table's own values
    assert b"planted-secret" not in written(tape)
    assert SECRET[4:-4].encode() not in written(tape)
    assert [len(chunk.data) for chunk in tape.chunks] == [30, len(body) - 30]
    assert json.loads(b"".join(chunk.data for chunk in tape.chunks)).keys() == {"error", "url"}
    assert check(tape) == []


def test_other_data_is_recorded_unchanged() -> None:
    headers = [("authorization", f"Bearer {SECRET}"), ("anthropic-version", "2023-06-01"), ("x-double", "1")]
    body = b'{"model":"m", "big":12345678901234567890, "odd":1.0e0}'
    tape = tape_exchange(exchange(b"caf\xc3", b"\xa9", headers=[*headers, ("x-double", "2")], body=body))
    assert pairs(tape.request.headers) == [("authorization", "Bearer [redacted]"), *headers[1:], ("x-double", "2")]
    assert (tape.request.method, tape.request.url, tape.request.body) == ("POST", URL, body)
    assert [(chunk.ms, chunk.data) for chunk in tape.chunks] == [(2, b"caf\xc3"), (3, b"\xa9")]
    assert (tape.head and tape.head.status, tape.ending) == (200, TapeEnding(end=StreamEnd.EOF))


def test_the_attributes_of_a_cookie_and_the_names_that_were_signed_are_no_secrets() -> None:
    body = b"api.example.com x-amz-content-sha256 31536000"
    signed = [("authorization", "AWS4-HMAC-SHA256 SignedHeaders=host;x-amz-content-sha256, Signature=abc")]
    cookie = [("set-cookie", "a=b; Domain=api.example.com; Max-Age=31536000")]
    assert tape_exchange(exchange(body, headers=signed, answered=cookie)).chunks[0].data == body


def test_an_answer_that_never_came_leaves_a_tape_of_the_request() -> None:
    sent = SentRequest("POST", f"{URL}?key={SECRET}", [("x-api-key", SECRET)], SECRET.encode())
    tape = tape_exchange(RecordedExchange(sent, None, [], TapeEnding(end=StreamEnd.RESET, ms=3)))
    assert (tape.head, tape.chunks, tape.ending) == (None, (), TapeEnding(end=StreamEnd.RESET, ms=3))
    assert tape.request == tape_request(sent)
    assert SECRET.encode() not in written(tape)


def test_a_header_outside_ascii_can_be_recorded() -> None:
    tape = tape_exchange(exchange(b"", answered=[("x-title", "caf\xe9"), ("x-euro", "\u20ac")]))
    assert tape.head is not None
    assert pairs(tape.head.headers)[1:] == [("x-title", "caf\xe9"), ("x-euro", "?")]


def test_the_url_of_a_tape_can_be_asked_for() -> None:
    tape = tape_exchange(exchange(b"", url=f"{URL}?key={SECRET}&a=1"))
    assert httpx.URL(tape.request.url).params["a"] == "1"
