"""Test when an answer may come from the cache, and its key."""

from dataclasses import replace

import pytest

from bridge.providers import Target
from bridge.services.cache.key import MAX_REQUEST_BYTES, CacheableRequest, is_fresh, key_of, ttl_s
from bridge.settings.step import StepSettings

TARGET = Target("https", "api.openai.com", None, b"/v1/chat/completions?a=1", "https://api.openai.com/v1")
ASKED = CacheableRequest(
    "gateway",
    "token",
    "openai",
    "POST",
    TARGET,
    [("authorization", "Bearer one"), ("content-type", "application/json"), ("openai-project", "p")],
    b'{"model":"m"}',
)


def settings(**value: object) -> StepSettings:
    return StepSettings(**value)  # type: ignore[arg-type]  # the fields of one case


def with_header(name: str, value: str) -> CacheableRequest:
    return ASKED._replace(headers=[*((key, old) for key, old in ASKED.headers if key != name), (name, value)])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ({}, 0),
        ({"cache_ttl": 0}, 0),
        ({"cache_ttl": 60}, 60),
        ({"cache_key": "mine"}, 300),
        ({"cache_key": "mine", "cache_ttl": 0}, 300),
        ({"cache_key": "mine", "cache_ttl": 3600}, 3600),
        ({"cache_ttl": 60, "skip_cache": True}, 0),
        ({"cache_key": "mine", "skip_cache": True}, 0),
    ],
)
def test_settings_determine_the_lifetime(value: dict[str, object], seconds: int) -> None:
    assert ttl_s(settings(**value), "POST", b"") == seconds


@pytest.mark.parametrize(
    ("method", "is_on"),
    [("GET", True), ("HEAD", True), ("POST", True), ("PUT", False), ("PATCH", False), ("DELETE", False)],
)
def test_methods_with_side_effects_are_not_cached(method: str, is_on: bool) -> None:
    assert bool(ttl_s(settings(cache_ttl=60), method, b"")) is is_on


def test_a_request_over_25_mib_is_not_cached() -> None:
    body = bytes(MAX_REQUEST_BYTES)
    assert ttl_s(settings(cache_ttl=60), "POST", body) == 60
    assert ttl_s(settings(cache_ttl=60), "POST", body + b"1") == 0


@pytest.mark.parametrize(
    ("ttl_s", "ttl", "age_s", "fresh"),
    [(60, 60, 59, True), (60, 60, 60, False), (60, 3600, 61, False), (3600, 60, 59, True), (3600, 60, 61, False)],
)
def test_the_shorter_of_stored_and_requested_lifetime_counts(ttl_s: int, ttl: int, age_s: int, fresh: bool) -> None:
    assert is_fresh(1000.0, ttl_s, ttl, 1000.0 + age_s) is fresh


def key(request: CacheableRequest, cache_key: str | None = None, *, is_shared: bool = False) -> bytes:
    return key_of(request, cache_key, is_shared=is_shared)


DIFFERENT = {
    "gateway": ASKED._replace(gateway="other"),
    "token": ASKED._replace(token="another"),
    "provider": ASKED._replace(provider="custom-openai"),
    "method": ASKED._replace(method="GET"),
    "scheme": ASKED._replace(target=replace(TARGET, scheme="http")),
    "host": ASKED._replace(target=replace(TARGET, host="api.openai.org")),
    "port": ASKED._replace(target=replace(TARGET, port=8443)),
    "path": ASKED._replace(target=replace(TARGET, raw_path=b"/v1/completions?a=1")),
    "query": ASKED._replace(target=replace(TARGET, raw_path=b"/v1/chat/completions?a=2")),
    "body": ASKED._replace(body=b'{"model": "m"}'),
    "credential": with_header("authorization", "Bearer two"),
    "credential in another header": with_header("x-api-key", "one"),
    "stored key": ASKED._replace(stored_key=b"digest"),
    "a header": with_header("openai-project", "q"),
    "another header": with_header("anthropic-beta", "x"),
}
SAME = {
    name: with_header(name, "any")
    for name in (
        "user-agent",
        "traceparent",
        "tracestate",
        "baggage",
        "b3",
        "x-b3-traceid",
        "x-request-id",
        "x-amzn-trace-id",
        "x-stainless-retry-count",
        "x-stainless-runtime-version",
        "x-fern-sdk-version",
        "x-goog-api-client",
        "amz-sdk-invocation-id",
        "idempotency-key",
    )
}


@pytest.mark.parametrize("other", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_every_part_that_changes_the_answer_changes_the_key(other: CacheableRequest) -> None:
    assert key(other) != key(ASKED)


@pytest.mark.parametrize("other", SAME.values(), ids=SAME.keys())
def test_client_and_retry_headers_do_not_change_the_key(other: CacheableRequest) -> None:
    assert key(other) == key(ASKED)


def test_the_order_of_headers_does_not_change_the_key() -> None:
    assert key(ASKED._replace(headers=ASKED.headers[::-1])) == key(ASKED)


def test_one_part_of_a_key_cannot_imitate_another() -> None:
    shifted = ASKED._replace(gateway="gate", provider="wayopenai")
    assert key(shifted) != key(ASKED)
    quoted = ASKED._replace(gateway="gateway', 'openai", provider="")
    assert key(quoted) != key(ASKED)
    assert key(ASKED._replace(headers=[("x-a", "\udcff")])) != key(ASKED._replace(headers=[("x-a", "\\udcff")]))


@pytest.mark.parametrize("what", ["token", "credential", "credential in another header", "stored key"])
def test_a_shared_cache_ignores_the_credential(what: str) -> None:
    assert key(DIFFERENT[what], is_shared=True) == key(ASKED, is_shared=True)
    assert key(ASKED, is_shared=True) != key(ASKED)


def test_a_shared_cache_compares_all_other_parts() -> None:
    private = {"token", "credential", "credential in another header", "stored key"}
    others = [key(request, is_shared=True) for what, request in DIFFERENT.items() if what not in private]
    assert key(ASKED, is_shared=True) not in others


@pytest.mark.parametrize("what", ["gateway", "token", "provider", "credential", "stored key"])
def test_a_cache_key_is_scoped_to_gateway_token_provider_and_credential(what: str) -> None:
    assert key(DIFFERENT[what], "mine") != key(ASKED, "mine")


@pytest.mark.parametrize("what", ["method", "host", "path", "query", "body", "a header"])
def test_a_cache_key_replaces_all_other_parts(what: str) -> None:
    assert key(DIFFERENT[what], "mine") == key(ASKED, "mine") != key(ASKED, "yours")


@pytest.mark.parametrize("name", ["x-session", "x-user", "dg-project", "x-custom"])
def test_a_cache_key_is_scoped_to_every_possible_credential_header(name: str) -> None:
    assert key(with_header(name, "one"), "mine") != key(with_header(name, "two"), "mine")
    assert key(with_header(name, "one"), "mine", is_shared=True) == key(
        with_header(name, "two"), "mine", is_shared=True
    )


@pytest.mark.parametrize("name", ["content-type", "accept", "anthropic-version", "user-agent", "x-stainless-os"])
def test_a_cache_key_replaces_headers_without_credentials(name: str) -> None:
    assert key(with_header(name, "one"), "mine") == key(with_header(name, "two"), "mine")


@pytest.mark.parametrize(
    "query", [b"key=%b", b"alt=sse&key=%b", b"access_token=%b&alt=sse", b"%%6bey=%b", b"a=1;key=%b"]
)
def test_a_cache_key_is_scoped_to_the_credential_of_a_url(query: bytes) -> None:
    """Google's `?key=` is such a credential."""
    one, two = (
        ASKED._replace(
            headers=[], target=replace(TARGET, raw_path=b"/v1beta/models/x:generateContent?" + query % whose)
        )
        for whose in (b"one", b"two")
    )
    assert key(one, "mine") != key(two, "mine")
    assert key(one, "mine", is_shared=True) == key(two, "mine", is_shared=True)


def test_a_cache_key_in_a_shared_cache_is_common_to_all() -> None:
    assert key(DIFFERENT["credential"], "mine", is_shared=True) == key(ASKED, "mine", is_shared=True)
    assert key(ASKED, "mine", is_shared=True) != key(ASKED, "mine")


def test_a_missing_credential_differs_from_an_empty_one() -> None:
    bare = ASKED._replace(headers=[])
    assert key(bare._replace(headers=[("authorization", "")])) != key(bare)
