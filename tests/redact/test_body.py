"""Masking of bodies: no secret remains, no byte moves, JSON stays JSON, and masking is idempotent."""

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.formats.eventstream import EventStreamDecoder
from bridge.redact.body import mask_body
from bridge.redact.known_secrets import KnownSecrets
from bridge.redact.prefilter import MAX_MATCH_CHARS, WINDOW_CHARS
from tests.support.aws_eventstream import event

SECRET = "pl4nted/with\"quotes' & spaces+é"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ('{"api_key": "abc", "n": 1}', '{"api_key": "***", "n": 1}'),
        ('{"password":"a\\"b\\\\"}', '{"password":"******"}'),
        ('{"client_secret" : "é"}', '{"client_secret" : "**"}'),
        ('{"api_keys": ["ab", "c" ], "next": "d"}', '{"api_keys": ["**", "*" ], "next": "d"}'),
        ('{"password": 123456, "n": 123456}', '{"password": 111111, "n": 123456}'),
        ('{"password": -1234567}', '{"password": -1111111}'),
        ('{"auth": {"password": "x"}}', '{"auth": {"password": "*"}}'),
        ('{"password": "cut off', '{"password": "*******'),
        ('data: {"api_key":"cut off\n\ndata: {}', 'data: {"api_key":"*******\n\ndata: {}'),
        (r'{"arguments":"{\"api_key\": \"a\\\"b\"}"}', r'{"arguments":"{\"api_key\": \"******\"}"}'),
        (
            r'{"a":"{\"b\":\"{\\\"token\\\":\\\"12345678\\\"}\"}"}',
            r'{"a":"{\"b\":\"{\\\"token\\\":\\\"11111111\\\"}\"}"}',
        ),
        ('{"error": "Incorrect key: sk-proj-abcdef12."}', '{"error": "Incorrect key: sk-*************."}'),
        ('{"say": "Bearer abcdef123456"}', '{"say": "Bearer ************"}'),
        ('{"url": "https://h/x?sig=a%2Fb&n=1"}', '{"url": "https://h/x?sig=*****&n=1"}'),
        (r'{"url": "https://h/x?n=1\u0026sig=ab"}', r'{"url": "https://h/x?n=1\u0026sig=**"}'),
        ("client_secret=ab&grant_type=x", "client_secret=**&grant_type=x"),
        ("see postgres://me:pass@host/db", "see postgres://me:****@host/db"),
    ],
)
def test_secrets_by_name_or_shape_are_replaced_by_equal_length(body: str, shown: str) -> None:
    assert mask_body(body.encode()).decode() == shown
    assert len(mask_body(body.encode())) == len(body.encode())


@pytest.mark.parametrize(
    "body",
    [
        '{"logprobs": {"content": [{"token": "Hello", "logprob": -0.1}, {"token": "                        "}]}}',
        '{"usage": {"prompt_tokens": 1234567, "promptTokenCount": 1234567, "audio_token": 12345}}',
        '{"type":"signature_delta","signature":"EqQBCgIYAhIM1gbcDa9GJwZA2b3h"}',
        '{"api_key": null, "password": true, "token": {"id": 1, "text": "x"}}',
        '{"required": ["api_key"], "properties": {"api_key": {"type": "string"}}}',
        r'{"content": "api_key = \"...\"\nhttps://example.com\nme@example.com"}',
        '{"prompt_cache_key": "my-conversation-0001"}',
        "",
    ],
)
def test_similar_names_are_not_masked(body: str) -> None:
    assert mask_body(body.encode()) == body.encode()


FORMS = {
    "as it is": SECRET.encode(),
    "in JSON": json.dumps(SECRET, ensure_ascii=False).encode(),
    "in JSON of ASCII": json.dumps(SECRET).encode(),
    "in JSON with escaped slashes": json.dumps(SECRET).replace("/", r"\/").encode(),
    "in JSON in JSON": json.dumps(json.dumps(SECRET)).encode(),
    "in a URL": b"pl4nted%2Fwith%22quotes%27%20%26%20spaces%2B%C3%A9",
    "in a path": b"pl4nted/with%22quotes%27%20%26%20spaces%2B%C3%A9",
    "in a form": b"pl4nted%2fwith%22quotes%27+%26+spaces%2b%c3%a9",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("around", [(b"", b""), (b"before ", b" after"), (b"a" * (WINDOW_CHARS - 9), b"b")])
def test_a_known_secret_is_masked_in_every_form_and_place(form: bytes, around: tuple[bytes, bytes]) -> None:
    before, after = around
    masked = mask_body(form.join(around), KnownSecrets([SECRET]))
    assert (len(masked), masked[: len(before)]) == (len(form.join(around)), before)
    assert masked.endswith(after)
    assert b"pl4nted" not in masked
    assert b"spaces" not in masked


@pytest.mark.parametrize("altchars", [b"+/", b"-_"])
@pytest.mark.parametrize("shift", range(6))
@given(secret=st.from_regex(r"\A[a-z0-9>?~]{8,20}[A-Z]\Z"))
def test_a_known_secret_in_base64_is_masked_at_any_offset(shift: int, altchars: bytes, secret: str) -> None:
    whole = '{"a":"' + "-" * shift + secret + '"}'
    masked = base64.b64decode(mask_body(base64.b64encode(whole.encode(), altchars), KnownSecrets([secret])), altchars)
    assert secret[1:-1] not in masked.decode()
    assert len(json.loads(masked)["a"]) == shift + len(secret)
    assert masked.decode().endswith('"}')


@pytest.mark.parametrize("word", ["ollama", "test", "EMPTY", "1234", ""])
def test_a_value_that_may_be_a_word_is_not_masked(word: str) -> None:
    body = b'{"system_fingerprint":"fp_ollama","test":"EMPTY 1234"}'
    assert mask_body(body, KnownSecrets([word])) == body


def test_a_secret_of_digits_inside_a_number_leaves_a_number() -> None:
    assert (
        mask_body(b'{"created":1712345678,"n":12345.5}', KnownSecrets(["12345"]))
        == b'{"created":1712345678,"n":12345.5}'
    )
    assert mask_body(b'{"created":1712345678}', KnownSecrets(["712345"])) == b'{"created":1111111678}'


def test_a_secret_across_two_windows_is_masked() -> None:
    for before in range(WINDOW_CHARS - 40, WINDOW_CHARS + 2):
        masked = mask_body(b"." * before + b' {"api_key":"unheard-of"} sk-abcdefgh12345 ' + b"." * MAX_MATCH_CHARS)
        assert (b"unheard" in masked, b"abcdefgh" in masked) == (False, False)


def test_an_aws_event_stream_is_valid_after_masking() -> None:
    secret = "planted-secret-0001"
    inner = base64.b64encode(b'{"say":"%b"}' % secret.encode())
    stream = event("chunk", b'{"bytes":"%b"}' % inner) + event("other", b'{"api_key":"x"}') + event("last", b"{}")
    items = EventStreamDecoder(1 << 20).feed(mask_body(stream, KnownSecrets([secret])))
    assert [item.data for item in items][1:] == [b'{"api_key":"*"}', b"{}"]
    text = json.loads(items[0].data)["say"]
    assert (len(text), secret[1:-1] in text) == (len(secret), False)


def test_a_damaged_aws_message_stays_damaged() -> None:
    damaged = bytearray(event("x", b'{"api_key":"abcdef"}'))
    damaged[-1] ^= 1
    assert mask_body(bytes(damaged))[-4:] == damaged[-4:]


PIECES = [
    *'"\\:,[]{} \n1x',
    '"api_key":"',
    '\\"password\\":\\"',
    '"token":[',
    "Bearer ",
    "sk-",
    "abcdefgh12345678",
    "?sig=",
    "://a:",
    "@",
    "eyJ",
    SECRET,
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@example('"api_key":"\\"')
@example("Bearer Bearer sk-abcdefgh12345678")
def test_masking_is_idempotent_and_keeps_the_length(text: str) -> None:
    once = mask_body(text.encode(), KnownSecrets([SECRET]))
    assert len(once) == len(text.encode())
    assert mask_body(once) == once


@given(st.binary())
def test_any_bytes_may_be_masked(body: bytes) -> None:
    assert len(mask_body(body)) == len(body)


VALUES = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(["sk-abcdefgh12345678", "12345678", SECRET]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["api_key", "token", "passwords", "a"]), inner),
    max_leaves=10,
)


@given(VALUES, st.booleans())
def test_json_stays_json_with_the_same_structure(value: object, nested: bool) -> None:
    text = json.dumps(json.dumps(value) if nested else value, ensure_ascii=False)
    masked = json.loads(
        mask_body(text.encode("utf-8", "surrogatepass"), KnownSecrets([SECRET])).decode("utf-8", "surrogatepass")
    )
    assert _build(json.loads(masked) if nested else masked) == _build(value)


def _build(value: object) -> object:
    match value:
        case dict():
            return {name: _build(one) for name, one in value.items()}
        case list():
            return [_build(one) for one in value]
        case _:
            return type(value)


@pytest.mark.parametrize(
    "unit",
    [
        "\\",
        '"',
        '\\"',
        '"key":"',
        '"key":["',
        "\n",
        "://a:",
        "?key=",
        "sk-",
        "eyJ",
        "Bearer ",
        '"api_key":"a",',
        '"key":{',
        "key=",
        "keyed=",
        "PRIVATE KEY-----",
    ],
)
def test_a_hostile_body_takes_no_more_than_linear_time(unit: str) -> None:
    """A quadratic search would need minutes for this. The test measures no time, it only has to end."""
    hostile = unit * (300_000 // len(unit))
    assert SECRET.encode() not in mask_body((hostile + SECRET).encode(), KnownSecrets([SECRET]))
