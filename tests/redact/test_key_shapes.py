"""No secret of a known shape or name remains on a tape, in a row, in a span, in a log line or in an error."""

import json
import logging

import msgspec
import pytest

from bridge.logs.format import as_json, as_text
from bridge.redact.key_shapes import PREFIXES
from bridge.redact.known_secrets import NO_SECRETS
from bridge.relay.summary import BodyPreviews
from bridge.services.request_log.rows import row_of
from bridge.services.secret_scrubbing import scrub_reason
from bridge.services.tracing.context import TraceContext
from bridge.services.tracing.spans import spans_of
from bridge.settings.step import StepSettings
from bridge.tapes.exchange import ReceivedHead, RecordedExchange, SentRequest, tape_exchange
from bridge.tapes.file import StreamEnd, TapeEnding
from tests.support.summaries import event_summary

TAIL = "Zq81xvTnW30bLp5Kd92mRfQa"
"""The secret part of every planted secret."""


def key_of(begin: str) -> str:
    return f"{begin}{TAIL}.{TAIL}" if begin == "eyJ" else f"{begin}{TAIL}"


PEM = f"-----BEGIN PRIVATE KEY-----\n{TAIL}{TAIL}\n{TAIL}==\n-----END PRIVATE KEY-----"
KEYS = {f"a key that begins with {begin}": f"got {key_of(begin)} here" for begin in PREFIXES}
NAMED = {
    "a value in an object with a secret name": json.dumps({"client_secret": {"value": TAIL, "expires_at": 1}}),
    "a header as a pair": json.dumps({"headers": [{"name": "Authorization", "value": TAIL}]}),
    "a bearer as a pair": json.dumps({"name": "Authorization", "value": f"Bearer {TAIL}"}),
    "a field": json.dumps({"api_key": TAIL}),
    "a setting of the environment": f"export DB_PASSWORD={TAIL}",
    "a line of YAML": f"user: me\npassword: {TAIL}\n",
    "an option of curl": f"curl -H 'x-api-key: {TAIL}' https://example.com",
    "a bearer of curl": f'curl -H "Authorization: Bearer {TAIL}" https://example.com',
    "a private key": f"the key:\n{PEM}\n",
    "a private key of RSA": PEM.replace("PRIVATE", "RSA PRIVATE"),
    "a query": f"https://example.com/x?api_key={TAIL}",
    "a userinfo": f"postgres://me:{TAIL}@db/x",
}
ALL = KEYS | NAMED
IN_BODIES = {
    "a pair in the other order": json.dumps({"value": TAIL, "name": "x-api-key"}),
    "a field of a form": f'--b\r\nContent-Disposition: form-data; name="api_key"\r\n\r\n{TAIL}\r\n--b--\r\n',
    "a private key in JSON": json.dumps({"content": PEM}),
    "an option of curl in JSON": json.dumps({"content": f"curl -H 'x-api-key: {TAIL}'\nDB_PASSWORD={TAIL}"}),
    "a pair in JSON in JSON": json.dumps({"arguments": json.dumps({"name": "x-api-key", "value": TAIL})}),
}


@pytest.mark.parametrize("text", (ALL | IN_BODIES).values(), ids=ALL | IN_BODIES)
def test_a_planted_secret_is_on_no_tape(text: str) -> None:
    sent = SentRequest("POST", "https://api.example.com/v1", [], text.encode())
    tape = tape_exchange(
        RecordedExchange(sent, ReceivedHead(200, [], 1), [(2, text.encode())], TapeEnding(end=StreamEnd.EOF))
    )
    assert TAIL.encode() not in b"".join(msgspec.json.encode(line) for line in (tape.request, *tape.chunks))


@pytest.mark.parametrize("text", (ALL | IN_BODIES).values(), ids=ALL | IN_BODIES)
def test_a_planted_secret_is_in_no_body_of_a_row_or_span(text: str) -> None:
    kept = event_summary(
        bodies=BodyPreviews(text.encode(), text.encode()), request_bytes=len(text), answer_bytes=len(text)
    )
    assert TAIL not in str(row_of(kept))
    assert TAIL not in str(spans_of(kept, TraceContext(1, None, sampled=True)))


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_a_planted_secret_is_in_no_field_of_a_row_or_span(text: str) -> None:
    settings = msgspec.structs.replace(StepSettings(), metadata={"note": text, "api_key": "short"})
    summary = event_summary(
        event_id=text,
        model=text,
        account=text,
        reason=text,
        code=401,
        success=False,
        warnings=[text],
        settings=settings,
        attempts=[{"step": "0", "provider": "openai", "durationMs": 1, "code": 401, "reason": text}],
    )
    spans = spans_of(summary, TraceContext(1, None, sampled=True))
    assert TAIL not in str(row_of(summary))
    assert TAIL not in str(spans)
    assert "short" not in str(row_of(summary)) + str(spans)


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_a_planted_secret_is_in_no_log_line(text: str) -> None:
    record = logging.LogRecord("bridge", logging.INFO, "x", 1, "%s", (text,), None)
    record.fields = {"eventId": text, "model": text}
    assert TAIL.encode() not in as_json(record) + as_text(record)


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_a_planted_secret_is_in_no_error(text: str) -> None:
    assert TAIL not in scrub_reason(text, NO_SECRETS)


@pytest.mark.parametrize(
    "text",
    [
        "the password: it must have eight characters, and a token: what comes next",
        "call(api_key=api_key, password=password, key=lambda x: x",
        '{"name": "token", "value": "Hello"}',
        '{"properties": {"api_key": {"type": "string", "description": "the key of your account 12345"}}}',
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
        "task_force_of_the_day and risk-takers are no keys",
    ],
)
def test_similar_text_stays_in_a_body(text: str) -> None:
    sent = SentRequest("POST", "https://api.example.com/v1", [], text.encode())
    assert tape_exchange(RecordedExchange(sent, None, [], TapeEnding(end=StreamEnd.EOF))).request.body == text.encode()
