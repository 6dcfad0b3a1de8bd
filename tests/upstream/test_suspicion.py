"""A quick look at a body may cost a closer one for nothing, but never a secret."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.upstream.suspicion import is_suspect
from bridge.upstream.tape_redaction import _masked_once

PIECES = (
    *(
        '{"model":"gpt-4o","messages":[',
        '"content":"',
        '"',
        "\\",
        '\\\\"',
        ":",
        " ",
        "&",
        "?",
        "=",
        "\n",
        ",",
        "[",
        "%",
    ),
    *("api_key", "Authorization", "X-TOKEN", "token_count", "max_tokens", "ClientSecret", "passwd", "PWD", "sig"),
    *("JWT", "cookie", "credential", "signature", "Bearer ", "basic%20", "Key ", "Token\t", "%6bey", "k%65y"),
    *("sk-", "AIza", "gsk_", "xai-", "hf_", "r8_", "pplx-", "ghp_", "AKIA", "ASIA", "AWS4-HMAC-SHA256 ", "eyJ"),
    *("https://me:", "@host", "abcdefgh12345678", "1234567890", "Zm9vYmFyYmF6cXV4MTIzNDU2", ".aaaa.bbbb", "keyboard"),
)


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_what_a_closer_look_would_mask_is_suspect(text: str) -> None:
    body = text.encode()
    if _masked_once(body) != body:
        assert is_suspect(body)


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
def test_what_most_bodies_hold_is_not(text: str) -> None:
    assert not is_suspect(text.encode())
