"""Resolve the steps of a request."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from bridge.config.gateways import Gateway, Token
from bridge.config.keys import StoredKey
from bridge.errors import BadField, BridgeError, EndpointRefused, NotAllowed, Unauthorized, UnknownKey, UnknownProvider
from bridge.providers import REGISTRY, with_overrides
from bridge.relay.plan import PlannedStep, RequestContext, plan
from bridge.settings.step import StepSettings
from tests.support.messages import created

GATEWAY = StepSettings(connect_timeout=1000, request_timeout=2000, idle_timeout=3000)
CHAT = '{"provider":"openai","endpoint":"chat/completions","query":{"model":"gpt-5"}}'
KEY = StoredKey("openai", "default", "sk", "env:KEY")


def context_of(gateway: str = "mine", account: str = "account", settings: StepSettings = GATEWAY) -> RequestContext:
    return RequestContext(account, gateway, Gateway(gateway, settings=settings), REGISTRY, lambda: Gateway(gateway))


def planned(request: str, context: RequestContext | None = None) -> list[PlannedStep]:
    context = context or context_of()
    return plan(created(request, context.gateway_at_connect.settings).steps, context)


def planned_step(request: str, context: RequestContext | None = None) -> PlannedStep:
    [only] = planned(request, context)
    return only


@pytest.mark.parametrize(
    ("provider", "endpoint", "url"),
    [
        ("openai", "chat/completions", "api.openai.com/v1/chat/completions"),
        ("openai", "v1/chat/completions", "api.openai.com/v1/chat/completions"),
        ("openai", "/v1/models?limit=2&after=a%2Fb", "api.openai.com/v1/models?limit=2&after=a%2Fb"),
        ("anthropic", "v1/messages", "api.anthropic.com/v1/messages"),
        (
            "google-ai-studio",
            "v1beta/models/gemini:streamGenerateContent?alt=sse",
            "generativelanguage.googleapis.com/v1beta/models/gemini:streamGenerateContent?alt=sse",
        ),
    ],
)
def test_an_endpoint_is_resolved_below_the_providers_base_url(provider: str, endpoint: str, url: str) -> None:
    step = planned_step(f'{{"provider":"{provider}","endpoint":"{endpoint}"}}')
    assert step.provider.slug == provider
    assert f"{step.target.host}{step.target.raw_path.decode()}" == url


def test_the_account_of_the_url_is_inserted_into_the_path() -> None:
    account = "0123456789abcdef0123456789abcdef"
    step = planned_step('{"provider":"workers-ai","endpoint":"@cf/meta/llama"}', context_of(account=account))
    assert account.encode() in step.target.raw_path
    assert step.target.raw_path.endswith(b"/@cf/meta/llama")


def test_steps_keep_their_order_model_and_body() -> None:
    first, second = planned(f'[{CHAT},{{"provider":"groq","endpoint":"chat/completions","query":{{"model":"llama"}}}}]')
    assert [first.provider.slug, second.provider.slug] == ["openai", "groq"]
    assert [first.model, second.model] == ["gpt-5", "llama"]
    assert first.step.body == b'{"model":"gpt-5"}'


def test_the_policy_has_the_settings_of_its_step() -> None:
    retries = '"maxAttempts":3,"retryDelay":7,"backoff":"linear","maxRetryAfter":9'
    choices = '"onPolicy":"next","onBreak":"restart"'
    policy = planned_step(f'{{"provider":"openai","endpoint":"x","config":{{{retries},{choices}}}}}').policy
    assert (policy.max_attempts, policy.retry_delay_ms, policy.backoff) == (3, 7, "linear")
    assert (policy.max_retry_after_ms, policy.on_policy, policy.on_break) == (9, "next", "restart")


# Invalid steps.


@pytest.mark.parametrize(
    ("invalid", "error_type"),
    [
        ('{"provider":"nobody","endpoint":"x"}', UnknownProvider),
        ('{"provider":"","endpoint":"x"}', UnknownProvider),
        ('{"provider":"openai","endpoint":"../admin"}', EndpointRefused),
        ('{"provider":"openai","endpoint":"https://evil.example/"}', EndpointRefused),
        ('{"provider":"workers-ai","endpoint":"@cf/meta/llama"}', EndpointRefused),
    ],
)
def test_an_invalid_step_is_named_by_number_if_there_are_several(invalid: str, error_type: type[BridgeError]) -> None:
    with pytest.raises(error_type) as alone:
        planned(invalid)
    with pytest.raises(error_type) as among_others:
        planned(f"[{CHAT},{invalid},{invalid}]")
    assert str(among_others.value) == f"step 1: {alone.value}"
    assert among_others.value.code == alone.value.code


@pytest.mark.parametrize(
    ("slug", "near"),
    [("opnai", "openai"), ("OpenAI", "openai"), ("antropic", "anthropic"), ("google-studio", "google-ai-studio")],
)
def test_an_unknown_provider_is_reported_with_the_nearest_known_slug(slug: str, near: str) -> None:
    with pytest.raises(UnknownProvider, match=f"did you mean {near}\\?"):
        planned(f'{{"provider":"{slug}","endpoint":"x"}}')


def test_an_unknown_provider_without_a_similar_slug_has_no_suggestion() -> None:
    with pytest.raises(UnknownProvider) as unknown:
        planned(f'{{"provider":"{"zq" * 10_000}","endpoint":"x"}}')
    assert "did you mean" not in str(unknown.value)


# Breakers.


def test_a_breaker_key_consists_of_gateway_token_base_url_and_model() -> None:
    custom = with_overrides({"custom-other": {"base_url": "https://other.example/v1"}})
    other_base = RequestContext("account", "mine", Gateway("mine", settings=GATEWAY), custom, lambda: Gateway("mine"))
    keys = [
        planned_step(CHAT).policy.breaker_key,
        planned_step(CHAT, context_of("another")).policy.breaker_key,
        planned_step(CHAT, replace(context_of(), token="another")).policy.breaker_key,
        planned_step(CHAT.replace("gpt-5", "gpt-4")).policy.breaker_key,
        planned_step(CHAT.replace("openai", "custom-other"), other_base).policy.breaker_key,
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert planned_step(CHAT.replace("chat/", "v1/chat/"), context_of(account="another")).policy.breaker_key == keys[0]


@pytest.mark.parametrize(
    "request_", [CHAT.replace("chat/completions", "models"), CHAT.replace("{", '{"method":"FOO",', 1)]
)
def test_only_a_post_to_a_model_endpoint_has_a_breaker(request_: str) -> None:
    assert planned_step(request_).policy.breaker_key is None


def test_the_base_url_of_a_custom_provider_may_contain_the_endpoint() -> None:
    custom = with_overrides({"custom-whole": {"base_url": "https://other.example/v1/chat/completions"}})
    context = RequestContext("account", "mine", Gateway("mine", settings=GATEWAY), custom, lambda: Gateway("mine"))
    assert planned_step('{"provider":"custom-whole","endpoint":""}', context).policy.breaker_key is not None


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        ("{}", True),
        ('{"maxAttempts":3}', True),
        ('{"requestTimeout":2000}', True),
        ('{"requestTimeout":2001}', True),
        ('{"requestTimeout":1999}', False),
        ('{"requestTimeout":0}', True),
        ('{"connectTimeout":999}', False),
        ('{"idleTimeout":2999}', False),
        ('{"connectTimeout":5000,"requestTimeout":5000,"idleTimeout":5000}', True),
        ('{"connectTimeout":0,"requestTimeout":0,"idleTimeout":0}', True),
        ('{"totalTimeout":1}', True),
    ],
)
def test_timeouts_count_if_none_is_shorter_than_the_gateways(config: str, counts: bool) -> None:
    request = f'{{"provider":"openai","endpoint":"x","config":{config}}}'
    assert planned_step(request).policy.request_timeout_counts is counts


@pytest.mark.parametrize(
    ("config", "counts"), [("{}", True), ('{"idleTimeout":0}', True), ('{"idleTimeout":99}', False)]
)
def test_any_timeout_is_shorter_than_no_timeout(config: str, counts: bool) -> None:
    context = context_of(settings=StepSettings(connect_timeout=0, request_timeout=0, idle_timeout=0))
    request = f'{{"provider":"openai","endpoint":"x","config":{config}}}'
    assert planned_step(request, context).policy.request_timeout_counts is counts


# Tokens and keys.


def restricted(*tokens: Token, **fields: Any) -> RequestContext:
    return replace(context_of(), current_gateway=lambda: Gateway("mine", tokens, **fields), token="ci")


def test_a_token_may_call_only_its_providers_in_every_step() -> None:
    context = restricted(Token("ci", b"", providers=frozenset({"openai"})))
    assert planned_step(CHAT, context).provider.slug == "openai"
    with pytest.raises(NotAllowed, match=r"^step 1: .*'ci'.* groq\b.* openai\b") as caught:
        planned(f'[{CHAT},{{"provider":"groq","endpoint":"chat/completions"}}]', context)
    assert (caught.value.code, caught.value.status) == (2009, 403)


def test_each_event_uses_the_current_gateway() -> None:
    """Revoked tokens and new stored keys take effect on open sockets."""
    gateways = iter([Gateway("mine"), Gateway("mine", keys={("openai", "default"): KEY})])
    context = replace(context_of(), current_gateway=lambda: next(gateways))
    assert [planned_step(CHAT, context).key, planned_step(CHAT, context).key] == [None, KEY]


def test_a_revoked_token_fails_the_plan() -> None:
    def revoked() -> Gateway:
        raise Unauthorized("revoked")

    with pytest.raises(Unauthorized, match=r"^revoked$"):
        planned(f"[{CHAT},{CHAT}]", replace(context_of(), current_gateway=revoked))


def test_an_unknown_key_alias_is_reported_with_its_step() -> None:
    with pytest.raises(UnknownKey, match=r"^step 1: .*'openai'.* 'x'"):
        planned(f'[{CHAT},{CHAT[:-1]},"config":{{"byokAlias":"x"}}}}]')


def test_a_token_in_the_target_url_header_is_refused() -> None:
    gateway = Gateway("mine", (Token("t", hashlib.sha256(b"a-token").digest()),), settings=GATEWAY)
    context = RequestContext("account", "mine", gateway, REGISTRY, lambda: gateway, token="t")
    url = "https://queue.fal.run/fal-ai/x?key=a-token"
    with pytest.raises(BadField) as refused:
        planned(f'{{"provider":"fal","endpoint":"","headers":{{"x-fal-target-url":"{url}"}}}}', context)
    assert "a-token" not in str(refused.value)
