"""Masking of text: no secret remains, its surroundings do, and masking is idempotent."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.redact.text import (
    REDACTED,
    find_credentials,
    is_secret_field,
    is_secret_name,
    redact_headers,
    redact_text,
    redact_url,
)

SECRET = "s3cr3tVALUE0123456789"


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "xi-api-key",
        "cf-aig-authorization",
        "Cookie",
        "Set-Cookie",
        "Proxy-Authorization",
        "X-Auth-Token",
        "client_secret",
        "key",
        "api_key",
        "access_token",
        "fal_jwt_token",
        "password",
        "sig",
        "X-Amz-Signature",
        "X-Amz-Credential",
        "X-Amz-Security-Token",
    ],
)
def test_names_that_carry_credentials_are_secret(name: str) -> None:
    assert is_secret_name(name)
    assert is_secret_name(name.upper())


@pytest.mark.parametrize(
    "name",
    [
        "content-type",
        "max_tokens",
        "x-ratelimit-remaining-tokens",
        "anthropic-ratelimit-input-tokens-reset",
        "www-authenticate",
        "sec-websocket-key",
        "idempotency-key",
        "cf-aig-cache-key",
        "keep-alive",
        "keywords",
        "model",
        "Cartesia-Version",
    ],
)
def test_similar_names_are_not_secret(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", f"Bearer {SECRET}", "Bearer [redacted]"),
        ("Authorization", f"Key id:{SECRET}", "Key [redacted]"),
        ("Authorization", SECRET, "[redacted]"),
        ("Authorization", f"AWS4-HMAC-SHA256 Credential=AKIA/x, Signature={SECRET}", "AWS4-HMAC-SHA256 [redacted]"),
        ("X-API-Key", "short", "[redacted]"),
        ("cookie", f"a=b; session={SECRET}", "[redacted]"),
        ("content-type", "text/event-stream; charset=utf-8", "text/event-stream; charset=utf-8"),
        ("x-ratelimit-remaining-tokens", "149984", "149984"),
        ("x-note", f"Bearer {SECRET}", "Bearer [redacted]"),
        ("referer", "https://h/x?api_key=short&y=1", "https://h/x?api_key=[redacted]&y=1"),
        (
            "sec-websocket-protocol",
            f"realtime, openai-insecure-api-key.{SECRET}",
            "realtime, openai-insecure-api-key.[redacted]",
        ),
        ("Sec-WebSocket-Protocol", f"cf-aig-authorization.{SECRET}", "cf-aig-authorization.[redacted]"),
        ("sec-websocket-protocol", "xi-api-key.a,fal-api-key.b", "xi-api-key.[redacted], fal-api-key.[redacted]"),
        ("sec-websocket-protocol", f"token, {SECRET}", "token, [redacted]"),
        ("sec-websocket-protocol", "realtime, openai-beta.realtime-v1", "realtime, openai-beta.realtime-v1"),
    ],
)
def test_only_the_scheme_of_a_secret_header_remains(name: str, value: str, shown: str) -> None:
    assert redact_headers([("a", "b"), (name, value)]) == [("a", "b"), (name, shown)]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pa@ss@h/x", "https://[redacted]@h/x"),
        ("https://user@h", "https://[redacted]@h"),
        ("https://h/run/@cf/x", "https://h/run/@cf/x"),
        ("https://h/x?key=short&alt=sse", "https://h/x?key=[redacted]&alt=sse"),
        ("v1beta/models/x:generate?alt=sse&key=short", "v1beta/models/x:generate?alt=sse&key=[redacted]"),
        ("wss://h/?%6bey=short", "wss://h/?%6bey=[redacted]"),
        ("https://h/#access_token=short", "https://h/#access_token=[redacted]"),
        (
            "https://h/?X-Amz-Date=1&X-Amz-Credential=a%2Fb&X-Amz-Signature=c",
            "https://h/?X-Amz-Date=1&X-Amz-Credential=[redacted]&X-Amz-Signature=[redacted]",
        ),
        ("https://h/?keywords=a&max_tokens=5&model=m", "https://h/?keywords=a&max_tokens=5&model=m"),
        ("https://h/?next=https://g/?token=short", "https://h/?next=https://g/?token=[redacted]"),
        ("https://h/x?", "https://h/x?"),
        ("", ""),
    ],
)
def test_a_url_keeps_all_but_its_secrets(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"sent Bearer {SECRET}.", "sent Bearer [redacted]"),
        ("Authorization: Bearer hunter", "Authorization: Bearer [redacted]"),
        (f"Token {SECRET} was refused", "Token [redacted] was refused"),
        (f"Key 0f-1:{SECRET}", "Key [redacted]"),
        ("Incorrect API key provided: sk-proj-abcdEFGH_1234.", "Incorrect API key provided: sk-[redacted]."),
        ("sk-ant-api03-abcdefgh", "sk-[redacted]"),
        ("AIzaSyA1234567890abcdefghij", "AIza[redacted]"),
        ("(gsk_0123456789abcdefghij)", "(gsk_[redacted])"),
        ("xai-0123456789abcdefghij", "xai-[redacted]"),
        ("hf_0123456789abcdefghij", "hf_[redacted]"),
        ("r8_0123456789abcdefghij", "r8_[redacted]"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIA[redacted]"),
        (
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, SignedHeaders=host, Signature=abc\nHost: h",
            "Authorization: AWS4-HMAC-SHA256 [redacted]\nHost: h",
        ),
        ("GET /?X-Amz-Signature=abc&signature=abc", "GET /?X-Amz-Signature=[redacted]&signature=[redacted]"),
        ("got eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl here", "got eyJ[redacted] here"),
        ("{'x-api-key': 'hunter2', 'accept': '*/*'}", "{'x-api-key': '[redacted]', 'accept': '*/*'}"),
        ('{"api_key": "a b c", "model": "m"}', '{"api_key": "[redacted]", "model": "m"}'),
        ("[(b'X-Api-Key', b'hunter2'), (b'Accept', b'*/*')]", "[(b'X-Api-Key', b'[redacted]'), (b'Accept', b'*/*')]"),
        ("password=hunter2 user=x", "password=[redacted] user=x"),
        ("body: api_key=hunter2", "body: api_key=[redacted]"),
        ("KeyError: api_key=hunter2", "KeyError: api_key=[redacted]"),
        ("Cannot connect to https://h/x?key=hunter2&a=b ssl", "Cannot connect to https://h/x?key=[redacted]&a=b ssl"),
        ("postgres://user:hunter2@db/x", "postgres://[redacted]@db/x"),
    ],
)
def test_credentials_are_masked_in_free_text(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Missing bearer or basic authentication in header",
        "Bearer authentication required",
        "KeyError: 'choices'",
        "KeyError: 'gpt-4o-mini-2024'",
        "401 Unauthorized: Incorrect API key",
        "Unexpected token: }",
        "missing key: model",
        '{"type":"signature_delta","signature":"EqQBCgIYAhIM1gbcDa9GJwZA2b3h"}',
        '{"thoughtSignature": "EqQBCgIYAhIM1gbcDa9GJwZA"}',
        '{"prompt_cache_key":null,"promptTokenCount": 11,"token_id":16,"api_key":null}',
        '{"logprobs": {"content": [{"token": "Hello"}]}}',
        "max_tokens: 4096, total_tokens=12345678901234567890123",
        'File "bridge/relay.py", line 10, in run\n    key = fields[name]\nValueError: scikit sk-learn',
        "task-specific-1234567890 and hf_hub_download",
        "Cannot connect to host api.openai.com:443 ssl:default [Connection refused]",
        "eyJ is how a JWT begins",
    ],
)
def test_ordinary_text_is_not_masked(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Bearer {SECRET} and sk-abcdefgh12", [SECRET, "abcdefgh12"]),
        ("api_key=hunter2, or AIzaSyA1234567890abcdefghij", ["SyA1234567890abcdefghij"]),
        ("Bearer authentication", []),
    ],
)
def test_credentials_are_found_by_their_shape(text: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in find_credentials(text)] == found


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("api_key", "x", True),
        ("Client-Secret", "", True),
        ("token", "Hello", False),
        ("token", SECRET, True),
        ("token", " " * 40, False),
        ("key", "value", False),
        ("thoughtSignature", SECRET, False),
        ("api_key", "null", False),
        ("model", SECRET, False),
    ],
)
def test_a_field_is_secret_by_its_name_or_by_its_value_if_the_name_is_a_word(
    name: str, value: str, secret: bool
) -> None:
    assert is_secret_field(name, value) is secret


PIECES = [
    *"=:&?;,@/[]'\" \n.%-_a7",
    "://",
    "key",
    "password",
    "Authorization: ",
    "Bearer ",
    "Token ",
    "%20",
    "sk-",
    "AKIA",
    "AWS4-HMAC-SHA256 ",
    "signature",
    "eyJ",
    "abcdefgh",
    "0123456789abcdef",
    REDACTED,
    "KeyError",
    "b'",
]


@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.text()))
@example(";Token Authorization: 0123456789abcdef@?? =&")
@example("Bearer  a0123456789abcdef.&signature'.password")
@example("Token sk-abcdefgh:Bearer AWS4-HMAC-SHA256")
@example("?a=b?key=c,d?%6bey=e")
@example("x://key=aaaaaaaaaaaaaaaaaaaaa/b,c@h")
@example('key: "password=a"')
def test_redacting_twice_changes_nothing(given_text: str) -> None:
    for once in (redact_text, redact_url, lambda value: redact_headers([("sec-websocket-protocol", value)])[0][1]):
        assert once(once(given_text)) == once(given_text)


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_a_known_key_never_survives_wherever_it_stands(around: str) -> None:
    key = "sk-proj-" + SECRET
    assert SECRET not in redact_text(f"{around} {key} {around}")
    assert SECRET not in redact_url(f"{around}&key={SECRET}")


@pytest.mark.parametrize(
    "unit", [*PIECES, "key=", "key='", "key: Bearer ", "://a", "?key", "Bearer  ", "a.", "sk-a", "password", "\r\n"]
)
def test_a_hostile_text_takes_no_more_than_linear_time(unit: str) -> None:
    """A quadratic pattern would need minutes for this. The test measures no time, it only has to end."""
    hostile = unit * (300_000 // len(unit))
    assert REDACTED in redact_text(hostile + f" Bearer {SECRET}")
    assert REDACTED in redact_url(hostile + f"&key={SECRET}")


@given(
    st.text("abskghp_AKIAr8-.,/+~0123456789", max_size=48).map(
        lambda word: f"sk-proj-{word}" if len(word) > 40 else word
    )
)
@example("sk-proj-" + "a1B2" * 10)
@example("ghp_" + "a1B2" * 9)
def test_one_word_is_masked_like_a_part_of_a_text(word: str) -> None:
    assert redact_text(word) == redact_text(f"({word})").removeprefix("(").removesuffix(")")
