"""Test the content of a row and its redaction."""

import base64
from typing import Any

import orjson
import pytest

from bridge.config.keys import AwsKey, GoogleAccount, StoredKey
from bridge.formats.usage import Usage
from bridge.relay.summary import BodyPreviews, Cost, SentSecrets, SessionTotals
from bridge.services.request_log.rows import MAX_CHARS, memory_bytes, row_of, storable
from bridge.settings.step import StepSettings
from tests.support.summaries import event_summary

KEY = "wunderbar-7391-geheim"
"""A key that matches no known key format."""


def sent(headers: dict[str, str] | None = None, query: str = "", key: StoredKey | None = None) -> SentSecrets:
    return SentSecrets(headers or {}, query, key)


def summary(**changes: Any) -> str:
    """Return all texts of a row as one string."""
    return repr(row_of(event_summary(**changes)))


def test_every_field_of_an_event_has_its_column() -> None:
    made = row_of(
        event_summary(
            token="team",
            cost=Cost(0.25, "custom", estimated=True),
            byok_alias="eu",
            settings=StepSettings(metadata={"team": "search", "paid": True}),
            warnings=["one"],
            bodies=BodyPreviews(b'{"q":1}', b'{"a":2}'),
            request_bytes=7,
            answer_bytes=900,
            usage=Usage(12, 4, 2, 16, None, 8, 3),
            realtime=SessionTotals(4, 5, 7, 900, "client", 1000),
        )
    )
    assert made._asdict() == {
        "id": "01a1f922-c87e-7410-a065-b234aaf9e09e",
        "created_at": 1_700_000_000_000,
        "account": "account",
        "gateway": "gateway",
        "token": "team",
        "request_type": "websocket",
        "event_id": "event",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "method": "POST",
        "path": "chat/completions",
        "step": 0,
        "status_code": 200,
        "success": True,
        "cached": False,
        "duration": 640.25,
        "first_answer": 120.5,
        "added": 0.5,
        "chunks": 0,
        "tokens_in": 12,
        "tokens_out": 4,
        "tokens_cached": 2,
        "tokens_cache_write": None,
        "cost": 0.25,
        "cost_source": "custom",
        "cost_estimated": True,
        "byok": "eu",
        "code": None,
        "reason": None,
        "metadata": '{"team":"search","paid":true}',
        "attempts": '[{"step":"0","provider":"openai","durationMs":639,"status":200}]',
        "warnings": '["one"]',
        "request_content_type": "application/json",
        "request_size": 7,
        "request_head_complete": True,
        "response_content_type": "application/json",
        "response_size": 900,
        "response_head_complete": False,
        "request_head": '{"q":1}',
        "response_head": '{"a":2}',
        "tokens_in_audio": 8,
        "tokens_out_audio": 3,
        "messages_from_client": 4,
        "messages_from_provider": 5,
        "closed_by": "client",
        "close_code": 1000,
        "refused": False,
    }


def test_a_cached_answer_has_no_cost_and_no_tokens() -> None:
    made = row_of(event_summary(cached=True, cost=Cost(0.0, "cache")))
    assert (made.cached, made.cost, made.tokens_in, made.tokens_out) == (True, 0.0, 0, 0)


def test_unknown_values_are_null() -> None:
    made = row_of(event_summary(usage=None, cost=None, first_answer_ms=None, added_ms=None, token=""))
    assert {made.tokens_in, made.tokens_out, made.cost, made.first_answer, made.added, made.token} == {None}


def test_without_bodies_there_are_sizes_only() -> None:
    made = row_of(event_summary(bodies=None))
    assert (made.request_head, made.response_head, made.request_size) == (None, None, 300)
    assert not made.request_head_complete


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("Grüße".encode(), "Grüße"),
        ("Grüße".encode()[:3], "Gr"),  # the bound cut a character
        (b"\xff\xfe\x00audio", b"\xff\xfe\x00audio"),
        (b"", ""),
    ],
)
def test_a_text_body_is_stored_as_text(body: bytes, kept: object) -> None:
    assert row_of(event_summary(bodies=BodyPreviews(body, body))).request_head == kept


@pytest.mark.parametrize(
    "carried",
    [
        sent({"authorization": f"Bearer {KEY}"}),
        sent({"x-api-key": KEY}),
        sent(query=f"alt=sse&key={KEY}"),
        sent(key=StoredKey("openai", "default", KEY, "env:K")),
        sent(key=StoredKey("aws-bedrock", "default", AwsKey("AKIAEXAMPLE", KEY), "env:K")),
        sent(key=StoredKey("aws-bedrock", "default", AwsKey("AKIAEXAMPLE", "other-secret", KEY), "env:K")),
    ],
    ids=["bearer", "header", "query", "stored", "aws", "aws session"],
)
@pytest.mark.parametrize("form", [KEY, base64.b64encode(KEY.encode()).decode()], ids=["plain", "base64"])
def test_a_secret_repeated_by_the_provider_reaches_no_row(carried: SentSecrets, form: str) -> None:
    """A secret of any format is masked in bodies, in the reason and in the reasons of attempts."""
    reason = f"there is no account for {form}"
    body = orjson.dumps({"error": reason})
    text = summary(
        sent=(sent(), carried),
        bodies=BodyPreviews(body, body),
        reason=reason,
        attempts=[{"step": "0", "provider": "openai", "reason": reason}],
    )
    assert form not in text
    assert "there is no account for" in text


@pytest.mark.parametrize("kept", range(4, len(KEY)))
def test_a_secret_cut_at_the_end_of_a_body_reaches_no_row(kept: int) -> None:
    body = b'{"echo":"' + KEY[:kept].encode()
    made = row_of(event_summary(sent=(sent({"authorization": KEY}),), bodies=BodyPreviews(body, body)))
    assert made.request_head == made.response_head == '{"echo":"' + "*" * kept


def test_text_that_looks_like_a_key_is_masked() -> None:
    body = b'{"content":"try sk-abcdefghijklmnop","api_key":"short"}'
    made = row_of(
        event_summary(bodies=BodyPreviews(body, body), reason="Incorrect API key provided: sk-abcdefghijklmnop")
    )
    assert made.request_head == made.response_head == '{"content":"try sk-****************","api_key":"*****"}'
    assert made.reason == "Incorrect API key provided: sk-[redacted]"


def test_a_service_account_key_is_not_searched_for() -> None:
    account = StoredKey("google-vertex-ai", "default", GoogleAccount('{"private_key":"x"}'), "file:F")
    assert row_of(event_summary(sent=(sent(key=account),))).success


def test_texts_from_outside_are_cut() -> None:
    long = "x" * 70_000
    made = row_of(
        event_summary(path=long, reason=long, request_content_type=long, answer_content_type=long, account=long)
    )
    texts = (made.path, made.reason, made.request_content_type, made.response_content_type, made.account)
    assert {len(text or "") for text in texts} == {MAX_CHARS}


def test_a_lone_surrogate_is_replaced() -> None:
    assert storable(row_of(event_summary(account="a\udcff"))).account == "a?"
    assert row_of(event_summary(warnings=["a\udcff"])).warnings == '["a\\udcff"]'


def test_the_estimated_memory_covers_bodies_and_headers() -> None:
    bodies = BodyPreviews(b"x" * 1000, b"y" * 2000)
    light, heavy = (
        event_summary(),
        event_summary(bodies=bodies, sent=(sent({"x": "z" * 3000}, "q" * 100),), path="p" * 500),
    )
    assert memory_bytes(heavy) - memory_bytes(light) >= 1000 + 2000 + 3000 + 100 + 400
