"""A search at hints finds the same matches as a search everywhere."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.redact import body
from bridge.redact import text as redact_text
from bridge.redact.body import mask_body
from bridge.redact.prefilter import MAX_MATCH_CHARS, WINDOW_CHARS, build, finditer
from bridge.redact.text import _KEY_HINTS, _SCHEME_HINTS, _SCHEME_IN_TEXT, _SHAPES

PIECES = (
    *('{"model":"gpt-4o","messages":[', '"content":"', '"', "\\", '\\\\"', '\\"', ":", " ", "&", "?", "=", "\n", ","),
    *("[", "%", "}", '{"api_key":"', '": "', '":["a","b"]', '\\"key\\": \\"', "123456789", "x" * 70, "é", "\u0130"),
    *("api_key", "Authorization", "X-TOKEN", "token_count", "max_tokens", "ClientSecret", "passwd", "PWD", "sig"),
    *("JWT", "cookie", "credential", "signature", "Bearer ", "basic%20", "Key ", "Token\t", "Api-Key ", "%6bey"),
    *("sk-", "AIza", "gsk_", "xai-", "hf_", "r8_", "pplx-", "ghp_", "ubt_", "AKIA", "ASIA", "AWS4-HMAC-SHA256 "),
    *("eyJ", "https://me:", "@host", "abcdefgh12345678", "1234567890", "Zm9vYmFyYmF6cXV4MTIzNDU2", ".aaaa.bbbb"),
)
bodies = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@given(bodies)
@settings(max_examples=500)
def test_a_body_without_a_hint_has_nothing_to_mask(text: str) -> None:
    """The reference is the same search with a hint at every character."""
    with pytest.MonkeyPatch.context() as patch:
        everywhere = re.compile(r"(?s:.)")
        for module, name in (
            (redact_text, "NAME_HINTS"),
            (redact_text, "_SCHEME_HINTS"),
            (redact_text, "_KEY_HINTS"),
            (body, "_SUSPECT"),
        ):
            patch.setattr(module, name, everywhere)
        thorough = mask_body(text.encode())
    assert mask_body(text.encode()) == thorough


@given(bodies)
@settings(max_examples=300)
def test_a_plain_search_finds_the_same_credentials(text: str) -> None:
    shapes = [found.span() for found in finditer(_SHAPES, _KEY_HINTS, text)]
    schemes = [found.span() for found in finditer(_SCHEME_IN_TEXT, _SCHEME_HINTS, text)]
    assert shapes == [found.span() for found in _SHAPES.finditer(text)]
    assert schemes == [found.span() for found in _SCHEME_IN_TEXT.finditer(text)]


@pytest.mark.parametrize("before", range(WINDOW_CHARS - 8, WINDOW_CHARS + 2))
def test_a_match_across_two_windows_is_found_once(before: int) -> None:
    text = "." * before + "needle-1" + "." * MAX_MATCH_CHARS + "NEEDLE-2"
    pattern = re.compile(r"(?i:needle)-\d")
    assert [found[0] for found in finditer(pattern, build([("needle", "")]), text)] == ["needle-1", "NEEDLE-2"]


def test_a_hint_may_require_the_text_after_it() -> None:
    wanted = build([("token", "(?!s)"), ("key", "")])
    assert [bool(wanted.search(text)) for text in ("tokens", "token", "the key", "k e y")] == [False, True, True, False]


@pytest.mark.parametrize(
    "text",
    [
        '{"model":"gpt-4o","max_tokens":5,"messages":[{"role":"user","content":"How deep is the sea?"}]}',
        '{"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{}}}',
        '{"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2,"totalTokenCount":3}}',
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"delta":{"content":"a"}}]}\n\n',
    ],
    ids=["request", "openai", "gemini", "stream"],
)
def test_common_text_is_not_a_hint(text: str) -> None:
    assert not body._SUSPECT.search(text.lower())
