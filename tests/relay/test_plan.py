"""From what was asked to what can be called."""

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


def ground(gateway: str = "mine", account: str = "account", settings: StepSettings = GATEWAY) -> RequestContext:
    return RequestContext(account, gateway, Gateway(gateway, settings=settings), REGISTRY, lambda: Gateway(gateway))


def planned(request: str, where: RequestContext | None = None) -> list[PlannedStep]:
    where = where or ground()
    return plan(created(request, where.gateway_at_connect.settings).steps, where)


def the_step(request: str, where: RequestContext | None = None) -> PlannedStep:
    [only] = planned(request, where)
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
def test_a_step_s_endpoint_becomes_an_address_below_its_provider_s(provider: str, endpoint: str, url: str) -> None:
    step = the_step(f'{{"provider":"{provider}","endpoint":"{endpoint}"}}')
    assert step.provider.slug == provider
    assert f"{step.target.host}{step.target.raw_path.decode()}" == url


def test_the_account_of_the_url_stands_where_a_provider_wants_it() -> None:
    account = "0123456789abcdef0123456789abcdef"
    step = the_step('{"provider":"workers-ai","endpoint":"@cf/meta/llama"}', ground(account=account))
    assert account.encode() in step.target.raw_path
    assert step.target.raw_path.endswith(b"/@cf/meta/llama")


def test_the_steps_keep_their_order_and_what_was_asked() -> None:
    first, second = planned(f'[{CHAT},{{"provider":"groq","endpoint":"chat/completions","query":{{"model":"llama"}}}}]')
    assert [first.provider.slug, second.provider.slug] == ["openai", "groq"]
    assert [first.model, second.model] == ["gpt-5", "llama"]
    assert first.step.body == b'{"model":"gpt-5"}'


def test_the_chain_is_told_the_settings_of_each_step() -> None:
    waits = '"maxAttempts":3,"retryDelay":7,"backoff":"linear","maxRetryAfter":9'
    turns = '"onPolicy":"next","onBreak":"restart"'
    policy = the_step(f'{{"provider":"openai","endpoint":"x","config":{{{waits},{turns}}}}}').policy
    assert (policy.max_attempts, policy.retry_delay_ms, policy.backoff) == (3, 7, "linear")
    assert (policy.max_retry_after_ms, policy.on_policy, policy.on_break) == (9, "next", "restart")


# Faults.


@pytest.mark.parametrize(
    ("faulty", "kind"),
    [
        ('{"provider":"nobody","endpoint":"x"}', UnknownProvider),
        ('{"provider":"","endpoint":"x"}', UnknownProvider),
        ('{"provider":"openai","endpoint":"../admin"}', EndpointRefused),
        ('{"provider":"openai","endpoint":"https://evil.example/"}', EndpointRefused),
        ('{"provider":"workers-ai","endpoint":"@cf/meta/llama"}', EndpointRefused),
    ],
)
def test_a_step_that_cannot_be_called_is_its_event_s_fault_and_named_among_several(
    faulty: str, kind: type[BridgeError]
) -> None:
    with pytest.raises(kind) as alone:
        planned(faulty)
    with pytest.raises(kind) as among_others:
        planned(f"[{CHAT},{faulty},{faulty}]")
    assert str(among_others.value) == f"step 1: {alone.value}"
    assert among_others.value.code == alone.value.code


@pytest.mark.parametrize(
    ("slug", "near"),
    [("opnai", "openai"), ("OpenAI", "openai"), ("antropic", "anthropic"), ("google-studio", "google-ai-studio")],
)
def test_a_provider_that_is_unknown_is_told_with_the_nearest_that_is_not(slug: str, near: str) -> None:
    with pytest.raises(UnknownProvider, match=f"did you mean {near}\\?"):
        planned(f'{{"provider":"{slug}","endpoint":"x"}}')


def test_a_provider_that_is_like_none_is_told_without() -> None:
    with pytest.raises(UnknownProvider) as unknown:
        planned(f'{{"provider":"{"zq" * 10_000}","endpoint":"x"}}')
    assert "did you mean" not in str(unknown.value)


# Breakers.


def test_steps_of_one_gateway_token_base_and_model_share_a_breaker_and_no_others_do() -> None:
    custom = with_overrides({"custom-other": {"base_url": "https://other.example/v1"}})
    other_base = RequestContext("account", "mine", Gateway("mine", settings=GATEWAY), custom, lambda: Gateway("mine"))
    keys = [
        the_step(CHAT).policy.breaker_key,
        the_step(CHAT, ground("another")).policy.breaker_key,
        the_step(CHAT, replace(ground(), token="another")).policy.breaker_key,
        the_step(CHAT.replace("gpt-5", "gpt-4")).policy.breaker_key,
        the_step(CHAT.replace("openai", "custom-other"), other_base).policy.breaker_key,
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert the_step(CHAT.replace("chat/", "v1/chat/"), ground(account="another")).policy.breaker_key == keys[0]


@pytest.mark.parametrize(
    "request_", [CHAT.replace("chat/completions", "models"), CHAT.replace("{", '{"method":"FOO",', 1)]
)
def test_only_a_post_to_a_model_endpoint_has_a_breaker(request_: str) -> None:
    assert the_step(request_).policy.breaker_key is None


def test_the_base_url_of_a_custom_provider_may_hold_the_whole_path() -> None:
    custom = with_overrides({"custom-whole": {"base_url": "https://other.example/v1/chat/completions"}})
    where = RequestContext("account", "mine", Gateway("mine", settings=GATEWAY), custom, lambda: Gateway("mine"))
    assert the_step('{"provider":"custom-whole","endpoint":""}', where).policy.breaker_key is not None


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
def test_a_timeout_counts_against_the_provider_if_none_is_shorter_than_the_gateway_s_own(
    config: str, counts: bool
) -> None:
    request = f'{{"provider":"openai","endpoint":"x","config":{config}}}'
    assert the_step(request).policy.request_timeout_counts is counts


@pytest.mark.parametrize(
    ("config", "counts"), [("{}", True), ('{"idleTimeout":0}', True), ('{"idleTimeout":99}', False)]
)
def test_any_timeout_is_shorter_than_none(config: str, counts: bool) -> None:
    where = ground(settings=StepSettings(connect_timeout=0, request_timeout=0, idle_timeout=0))
    request = f'{{"provider":"openai","endpoint":"x","config":{config}}}'
    assert the_step(request, where).policy.request_timeout_counts is counts


# Who may.


def closed(*tokens: Token, **fields: Any) -> RequestContext:
    return replace(ground(), current_gateway=lambda: Gateway("mine", tokens, **fields), token="ci")


def test_a_token_s_providers_are_all_that_it_may_call_in_any_step() -> None:
    where = closed(Token("ci", b"", providers=frozenset({"openai"})))
    assert the_step(CHAT, where).provider.slug == "openai"
    with pytest.raises(NotAllowed, match=r"^step 1: The token 'ci' may not call groq; it may call openai\.$") as caught:
        planned(f'[{CHAT},{{"provider":"groq","endpoint":"chat/completions"}}]', where)
    assert (caught.value.code, caught.value.status) == (2009, 403)


def test_the_gateway_is_asked_anew_for_each_event() -> None:
    """So that a token which is revoked, or a key which is stored meanwhile, counts on sockets that are open."""
    gateways = iter([Gateway("mine"), Gateway("mine", keys={("openai", "default"): KEY})])
    where = replace(ground(), current_gateway=lambda: next(gateways))
    assert [the_step(CHAT, where).key, the_step(CHAT, where).key] == [None, KEY]


def test_who_is_not_entitled_any_more_plans_nothing() -> None:
    def revoked() -> Gateway:
        raise Unauthorized("revoked")

    with pytest.raises(Unauthorized, match=r"^revoked$"):
        planned(f"[{CHAT},{CHAT}]", replace(ground(), current_gateway=revoked))


def test_a_key_that_is_not_stored_is_told_with_its_step() -> None:
    with pytest.raises(UnknownKey, match=r"^step 1: Provider 'openai' has no BYOK credential named 'x'"):
        planned(f'[{CHAT},{CHAT[:-1]},"config":{{"byokAlias":"x"}}}}]')


def test_a_token_in_the_url_that_fal_s_header_names_is_refused() -> None:
    gateway = Gateway("mine", (Token("t", hashlib.sha256(b"a-token").digest()),), settings=GATEWAY)
    where = RequestContext("account", "mine", gateway, REGISTRY, lambda: gateway, token="t")
    url = "https://queue.fal.run/fal-ai/x?key=a-token"
    with pytest.raises(BadField) as refused:
        planned(f'{{"provider":"fal","endpoint":"","headers":{{"x-fal-target-url":"{url}"}}}}', where)
    assert "a-token" not in str(refused.value)
