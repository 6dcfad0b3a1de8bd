"""The OpenAI-compatible endpoint: routing by the model's name, and the rewritten body."""

import pytest

from bridge.errors import BadField, BridgeError, UnknownProvider
from bridge.policy.openai_compat import routed
from bridge.protocol.steps import ProviderStep
from bridge.providers import REGISTRY, make_provider
from bridge.settings.step import StepSettings

PROVIDERS = {**REGISTRY, "custom-own": make_provider("custom-own", {"base_url": "https://own.test/v1"})}


def step(body: bytes, endpoint: str = "chat/completions") -> ProviderStep:
    return ProviderStep("compat", endpoint, "POST", {}, {}, body, StepSettings())


@pytest.mark.parametrize(
    ("body", "provider", "rewritten"),
    [
        (b'{"model":"openai/gpt-4o"}', "openai", b'{"model":"gpt-4o"}'),
        (b' { "n":1.0,"model" :\n"groq/a/b" ,"x":"y" } ', "groq", b' { "n":1.0,"model" :\n"a/b" ,"x":"y" } '),
        (b'{"model":"openai\\/gpt-4o"}', "openai", b'{"model":"gpt-4o"}'),
        (b'{"model":"workers-ai/@cf/meta/llama"}', "workers-ai", b'{"model":"@cf/meta/llama"}'),
        (b'{"model":"xai/grok-4"}', "grok", b'{"model":"grok-4"}'),
        (b'{"model":"custom-own/m"}', "custom-own", b'{"model":"m"}'),
        (b'{"model":"openai/"}', "openai", b'{"model":""}'),
        (
            b'{"a":{"model":"openai/x"},"b":"\\"model\\":\\"openai/x\\"","c":["openai/x"],"model":"openai/x","d":"openai/x"}',
            "openai",
            b'{"a":{"model":"openai/x"},"b":"\\"model\\":\\"openai/x\\"","c":["openai/x"],"model":"x","d":"openai/x"}',
        ),
        (b'{"model":"groq/x","model":"openai/x"}', "openai", b'{"model":"groq/x","model":"x"}'),
        (b'{"model":"openai/x","model":"openai/x"}', "openai", b'{"model":"openai/x","model":"x"}'),
        (b'{"s":"\\ud83d","model":"openai/x"}', "openai", b'{"s":"\\ud83d","model":"x"}'),
        (b'{"t":NaN,"model":"openai/x","s":"NaN"}', "openai", b'{"t":NaN,"model":"x","s":"NaN"}'),
        (b'\xef\xbb\xbf{"model":"openai/x"}', "openai", b'{"model":"x"}'),
        ('{"model":"openai/x"}'.encode("utf-16"), "openai", b'{"model":"x"}'),
    ],
)
def test_only_the_provider_prefix_of_the_model_is_removed(body: bytes, provider: str, rewritten: bytes) -> None:
    found = routed(step(body), PROVIDERS)
    assert (found.provider, found.body) == (provider, rewritten)


@pytest.mark.parametrize("endpoint", ["chat/completions", "/chat/completions", "v1/chat/completions"])
def test_the_endpoint_is_the_providers_compatible_path(endpoint: str) -> None:
    found = routed(step(b'{"model":"cohere/command"}', f"{endpoint}?a=%2F"), PROVIDERS)
    assert found.endpoint == "compatibility/v1/chat/completions?a=%2F"


@pytest.mark.parametrize(
    ("body", "endpoint", "error", "keyword"),
    [
        (b"{}", "chat/completions", BadField, "PROVIDER/MODEL"),
        (b'{"model":7}', "chat/completions", BadField, "PROVIDER/MODEL"),
        (b'{"model":null}', "chat/completions", BadField, "PROVIDER/MODEL"),
        (b'{"model":"gpt-4o"}', "chat/completions", BadField, "PROVIDER/MODEL"),
        (b"[]", "chat/completions", BadField, "not a JSON object"),
        (b"", "chat/completions", BadField, "not a JSON object"),
        (b'{"model":"openai/x"', "chat/completions", BadField, "not a JSON object"),
        (b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "chat/completions", BadField, "not a JSON object"),
        (b'{"model":"nobody/x"}', "chat/completions", UnknownProvider, "nobody"),
        (b'{"model":"deepgram/x"}', "chat/completions", BadField, "call its own API, as provider deepgram"),
        (b'{"model":"google-vertex-ai/x"}', "chat/completions", BadField, "as provider google-vertex-ai"),
        (b'{"model":"openai/x"}', "embeddings", BadField, "only chat/completions"),
        (b'{"model":"openai/x"}', "", BadField, "only chat/completions"),
    ],
)
def test_an_unroutable_request_is_refused_with_a_hint(
    body: bytes, endpoint: str, error: type[BridgeError], keyword: str
) -> None:
    with pytest.raises(error, match=keyword):
        routed(step(body, endpoint), PROVIDERS)


def test_a_body_with_many_similar_strings_is_routed() -> None:
    body = b'{"a":[%s"openai/x"],"model":"openai/x"}' % (b'"openai/x",' * 100_000)
    assert routed(step(body), PROVIDERS).body.endswith(b'"model":"x"}')
