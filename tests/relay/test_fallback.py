"""Retries, fallbacks and the final answer, for streams and buffered answers."""

import asyncio
import time
from email.utils import formatdate

import httpx
import pytest

from bridge.upstream.dial import TlsError
from tests.support.event_harness import COMPLETE, DONE, FINISH, OVERLOADED, ROLE, ScriptedRuntime, content, step
from tests.support.event_harness import run as run_event
from tests.support.provider_script import JSON, REFUSED, RESET, SSE, Part, ScriptedResponse, answers, refuses, streams

QUOTA = b'{"error":{"code":"insufficient_quota","message":"quota exhausted"}}'
POLICY = b'{"error":{"code":"content_policy_violation","message":"not that"}}'


def fails(status: int = 500, body: bytes = b'{"error":{"message":"it failed"}}', **headers: str) -> ScriptedResponse:
    return answers(body, status, **headers)


ALWAYS = {"eventId", "cacheStatus", "logId", "step", "contentType", "status", "success", "durationMs", "chunks"}
"""Members of the metadata of every last frame."""

# Answers of the first attempt.


async def test_a_buffered_answer_is_one_frame() -> None:
    body = b'{"id": 1,\n "big": 12345678901234567890123}'
    event = await run_event(step(), answers(body))
    assert event.types == ["created"]
    assert b'"response":%s}' % body in event.sink.raw[0], "unchanged"
    metadata = event.metadata
    assert metadata["success"] is True
    assert (metadata["step"], metadata["status"], metadata["provider"]) == ("0", 200, "openai")
    assert (metadata["chunks"], metadata["contentType"]) == (0, "application/json")
    assert "attempts" not in metadata, "listed only if there are several"


async def test_a_stream_is_created_then_items_then_done_with_the_complete_metadata() -> None:
    event = await run_event(step(), streams(*COMPLETE))
    assert event.types == ["created", "stream", "stream", "stream", "done"]
    first, last = event.frames[0]["metadata"], event.metadata
    assert first.items() <= last.items()
    assert "response" not in event.frames[0]
    assert last["chunks"] == 3
    assert event.runtime.provider.requests[0].was_read_fully


@pytest.mark.parametrize("status", [201, 202, 203, 206, 299])
async def test_any_2xx_status_may_be_a_stream(status: int) -> None:
    event = await run_event(step(), ScriptedResponse(COMPLETE, status))
    assert event.types == ["created", "stream", "stream", "stream", "done"]
    assert (event.metadata["status"], event.metadata["success"]) == (status, True)


async def test_the_first_and_the_last_frame_have_the_providers_headers() -> None:
    scripted = ScriptedResponse(COMPLETE, headers={"X-Request-Id": "r1", "Set-Cookie": "a=b", "X-Cost": "1"})
    event = await run_event(step(), scripted)
    expected = {"content-type": SSE, "x-request-id": "r1", "x-cost": "1"}
    assert [frame["metadata"]["headers"] for frame in (event.frames[0], event.last_frame())] == [expected, expected]


async def test_known_usage_and_cost_are_reported() -> None:
    plain = answers(b'{"usage":{"prompt_tokens":3,"completion_tokens":2,"cost":0.5}}')
    streamed = streams(
        content("a"),
        FINISH,
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"cost":0.5}}\n\n',
        DONE,
    )
    for scripted in (plain, streamed):
        metadata = (await run_event(step("openrouter"), scripted)).metadata
        assert metadata["usage"] == {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
        assert metadata["cost"] == 0.5
    assert not {"usage", "cost"} & (await run_event(step(), answers())).metadata.keys()


# Retries on the same step.

CUT_SHORT = streams(ROLE, RESET)
RETRIED = {
    **{f"HTTP {status}": fails(status) for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)},
    "a connection refused": refuses(),
    "a connection reset before the head": ScriptedResponse(before_head=[RESET]),
    "a buffered answer that is cut": ScriptedResponse([b'{"half":', RESET], content_type="application/json"),
    "a stream that is cut before it answered": CUT_SHORT,
    "a stream that ends before it answered": streams(ROLE),
    "an empty stream": streams(),
    "only comments": streams(b": busy\n\n"),
    "a stream with an error that means 503": streams(ROLE, OVERLOADED),
    "a stream with an error that means 429": streams(b'data: {"error":{"type":"rate_limit_error"}}\n\n'),
    "a bare JSON error instead of a stream": streams(b'{"error":{"code":503,"message":"busy"}}'),
}


@pytest.mark.parametrize("scripted", RETRIED.values(), ids=RETRIED)
async def test_a_temporary_failure_is_retried_on_the_same_step(scripted: ScriptedResponse) -> None:
    event = await ScriptedRuntime(scripted, streams(*COMPLETE)).event([step(maxAttempts=2), step("groq")]).start()
    assert event.frames == [], "no frame is sent before the answer"
    await event.advance(0.6)
    assert event.types == ["created", "stream", "stream", "stream", "done"]
    assert event.metadata["step"] == "0"
    assert [attempt["step"] for attempt in event.metadata["attempts"]] == ["0", "0"]


NOT_RETRIED = {
    **{f"HTTP {status}": fails(status) for status in (300, 301, 304, 400, 401, 402, 403, 404, 413, 422, 501, 505)},
    "a TLS error": ScriptedResponse(before_connect=[TlsError("no common protocol version")]),
    "exhausted quota": fails(429, QUOTA),
    "exhausted quota in a stream": streams(b"data: " + QUOTA + b"\n\n"),
    "a stream with an error that means 400": streams(b'data: {"error":{"type":"invalid_request_error"}}\n\n'),
    "invalid HTTP": ScriptedResponse(before_head=[httpx.RemoteProtocolError("malformed head")]),
    "an item that is too large": streams(ROLE, b"data: {" + b" " * 2000),
}


@pytest.mark.parametrize("scripted", NOT_RETRIED.values(), ids=NOT_RETRIED)
async def test_a_permanent_failure_goes_to_the_next_step_without_a_retry(scripted: ScriptedResponse) -> None:
    runtime = ScriptedRuntime(scripted, streams(*COMPLETE), max_item_bytes=1000)
    event = await runtime.event([step(maxAttempts=5), step("groq")]).start()
    assert event.types == ["created", "stream", "stream", "stream", "done"]
    assert (event.metadata["step"], event.metadata["provider"]) == ("1", "groq")


async def test_by_default_a_step_is_tried_once() -> None:
    event = await run_event(step(), fails(503))
    assert len(event.runtime.provider.requests) == 1


async def test_every_attempt_is_listed_with_its_outcome() -> None:
    runtime = ScriptedRuntime(refuses(), fails(503), streams(ROLE, OVERLOADED), answers())
    event = await runtime.event([step(maxAttempts=2, retryDelay=0), step("groq"), step("mistral")]).start()
    attempts = event.metadata["attempts"]
    assert [(a["step"], a["provider"], a.get("status"), a.get("code")) for a in attempts] == [
        ("0", "openai", None, 9010),
        ("0", "openai", 503, 503),
        ("1", "groq", 200, 9017),
        ("2", "mistral", 200, None),
    ]
    assert [a.get("reason") for a in attempts] == [
        "the provider refused the connection",
        "it failed",
        "too busy",
        None,
    ]
    assert all(isinstance(a["durationMs"], int) for a in attempts)


async def test_an_attempt_is_listed_with_its_duration() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    runtime = ScriptedRuntime(
        ScriptedResponse(before_head=[gates[0], RESET]),
        ScriptedResponse([b"{}"], content_type=JSON, before_head=[gates[1]]),
    )
    event = await runtime.event([step(), step("groq")]).start()
    for gate, seconds in zip(gates, (2, 3), strict=True):
        await event.advance(seconds)
        await event.release(gate)
    assert [round(a["durationMs"], -2) for a in event.metadata["attempts"]] == [2000, 3000]
    assert round(event.metadata["durationMs"], -2) == 5000


async def test_usage_of_a_failed_attempt_is_not_reported() -> None:
    start = b'data: {"type":"message_start","message":{"usage":{"input_tokens":99}}}\n\n'
    event = await run_event([step(), step("groq")], streams(start), answers())
    assert "usage" not in event.metadata
    assert event.metadata["chunks"] == 0
    event = await run_event([step(), step("groq")], streams(start), refuses())
    assert "usage" not in event.metadata


# Delays before a retry.


async def delays(config: dict[str, object], *responses: ScriptedResponse) -> list[tuple[float, float]]:
    """Return, for the delay before each retry, a time in seconds that it exceeded and one that it did not exceed.

    The first counts only what the clock was advanced by, the second also the time that the test itself took.
    """
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    runtime = ScriptedRuntime(*responses, answers())
    event = await runtime.event(step(**config)).start()
    found, waited, tried = [], 0.0, 1
    while not event.is_done:
        polled_at = loop.time()
        await event.advance(0.1)
        waited += 0.1
        if len(runtime.provider.requests) > tried:
            tried += 1
            found.append((waited - 0.1, loop.time() - began_at))
            waited, began_at = 0.0, polled_at
    event.check_resources_released()
    return found


@pytest.mark.parametrize(
    ("backoff", "expected_s"), [("constant", [1, 1, 1]), ("linear", [1, 2, 3]), ("exponential", [1, 2, 4])]
)
async def test_the_delay_follows_the_backoff_setting_with_jitter_of_a_fifth(
    backoff: str, expected_s: list[float]
) -> None:
    config: dict[str, object] = {"maxAttempts": 4, "retryDelay": 1000, "backoff": backoff}
    for pause_s, (after, before) in zip(expected_s, await delays(config, *[fails()] * 3), strict=True):
        assert after <= pause_s * 1.2 + 0.01
        assert pause_s * 0.8 - 0.01 <= before


@pytest.mark.parametrize("headers", [{"retry_after": "3"}, {"retry_after_ms": "3000", "retry_after": "9"}])
async def test_retry_after_replaces_the_delay(headers: dict[str, str]) -> None:
    ((after, before),) = await delays({"maxAttempts": 2, "retryDelay": 100}, fails(429, **headers))
    assert after < 3.01 < before + 0.02


async def test_retry_after_may_be_a_date() -> None:
    at = formatdate(time.time() + 5, usegmt=True)
    ((after, before),) = await delays({"maxAttempts": 2, "retryDelay": 100}, fails(429, retry_after=at))
    assert after <= 5.01, "a date has whole seconds"
    assert before >= 3.8


async def test_a_retry_after_above_max_retry_after_prevents_a_retry() -> None:
    busy = fails(429, retry_after="11")
    event = await run_event(step(maxAttempts=3), busy)
    assert event.last_frame()["error"]["retryAfterMs"] == 11_000
    event = await run_event([step(maxAttempts=3), step("groq")], busy, answers())
    assert event.metadata["step"] == "1"
    ((_, before),) = await delays({"maxAttempts": 2, "maxRetryAfter": 12_000}, busy)
    assert before > 10.99


async def test_retry_after_applies_to_later_steps_of_the_same_origin() -> None:
    runtime = ScriptedRuntime(fails(429, retry_after="3"), answers())
    event = await runtime.event([step(), step()]).start()
    await event.advance(2.9)
    assert len(runtime.provider.requests) == 1
    await event.advance(0.2)
    assert event.metadata["step"] == "1"


async def test_a_step_whose_origin_requested_a_longer_wait_is_skipped_and_listed() -> None:
    event = await run_event([step(), step(), step("groq")], fails(429, retry_after="30"), answers())
    assert event.metadata["step"] == "2"
    first, skipped, answered = event.metadata["attempts"]
    assert (first["status"], skipped["step"], skipped["code"], answered["step"]) == (429, "1", 9023, "2")
    assert "maxRetryAfter" in skipped["reason"]


async def test_the_phase_during_a_delay_is_backing_off() -> None:
    event = await ScriptedRuntime(fails(), answers()).event(step(maxAttempts=2)).start()
    assert event.runner.phase == "backing off"
    await event.advance(0.7)
    assert event.is_done


# Policy refusals.


async def test_a_policy_refusal_is_the_answer() -> None:
    event = await run_event([step(maxAttempts=3), step("groq")], fails(400, POLICY))
    assert event.types == ["created"]
    assert (event.metadata["status"], event.metadata["success"]) == (400, False)
    assert event.last_frame()["response"]["error"]["code"] == "content_policy_violation"


async def test_a_policy_refusal_goes_to_the_next_step_if_on_policy_is_next() -> None:
    event = await run_event([step(onPolicy="next"), step("groq")], fails(400, POLICY), answers())
    assert (event.code, event.metadata["step"]) == (None, "1")


@pytest.mark.parametrize("steps", [[step()], [step(), step("groq")]], ids=["last step", "first of two"])
async def test_a_policy_refusal_inside_a_stream_is_the_answer(steps: list[object]) -> None:
    event = await run_event(steps, streams(ROLE, b"data: " + POLICY + b"\n\n"))
    assert event.types == ["created", "stream", "stream", "error"]
    assert (event.code, event.last_frame()["error"]["retryable"]) == (9017, False)
    event = await run_event(
        [step(onPolicy="next"), step("groq")], streams(ROLE, b"data: " + POLICY + b"\n\n"), answers()
    )
    assert (event.code, event.metadata["step"]) == (None, "1")


async def test_a_policy_refusal_inside_a_stream_replaces_an_earlier_failure() -> None:
    event = await run_event([step(), step("groq")], fails(503), streams(b"data: " + POLICY + b"\n\n"))
    assert (event.types, event.code) == (["created", "stream", "error"], 9017)


# Failure of all steps.


async def test_the_last_provider_response_is_the_answer_if_all_steps_fail() -> None:
    steps = [step(), step("groq"), step("mistral")]
    event = await run_event(steps, fails(401), fails(503, b'{"error":"second"}', x_request_id="r2"), refuses())
    assert event.types == ["created"]
    last = event.last_frame()
    assert last["response"] == {"error": "second"}
    assert last["error"] == {"code": 503, "message": "second", "source": "provider", "retryable": True}
    metadata = event.metadata
    assert (metadata["step"], metadata["provider"], metadata["status"]) == ("1", "groq", 503)
    assert metadata["headers"]["x-request-id"] == "r2"
    assert [a.get("code") for a in metadata["attempts"]] == [401, 503, 9010]


async def test_the_bridges_error_is_the_answer_if_no_provider_responded() -> None:
    event = await run_event([step(), step("groq")], refuses(), ScriptedResponse(before_head=[RESET]))
    last = event.last_frame()
    assert last["type"] == "universal.created"
    assert last["response"] == {
        "success": False,
        "result": [],
        "messages": [],
        "error": [{"code": 9012, "message": "the provider reset the connection"}],
        "name": "AiGatewayError",
        "httpCode": 502,
        "internalCode": 9012,
        "message": "the provider reset the connection",
    }
    assert last["error"]["code"] == 9012
    assert (event.metadata["step"], event.metadata["status"], event.metadata["success"]) == ("1", 502, False)


OWN_ERRORS: dict[str, tuple[list[Part], list[Part], int]] = {
    "connect": ([REFUSED], [], 9010),
    "TLS": ([TlsError("its certificate is not accepted")], [], 9011),
    "reset before an answer": ([], [RESET], 9012),
    "invalid HTTP": ([], [httpx.RemoteProtocolError("malformed head")], 9019),
    "a request that cannot be sent": ([], [httpx.LocalProtocolError("no such header")], 9007),
}


@pytest.mark.parametrize(("before_connect", "before_head", "code"), OWN_ERRORS.values(), ids=OWN_ERRORS)
async def test_each_failure_without_a_response_has_its_code(
    before_connect: list[Part], before_head: list[Part], code: int
) -> None:
    event = await run_event(step(), ScriptedResponse(before_connect=before_connect, before_head=before_head))
    assert (event.types, event.code) == (["created"], code)
    assert event.last_frame()["response"]["internalCode"] == code


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    event = await run_event(step(), answers(b"", status, location="https://elsewhere.test/"))
    assert (event.code, event.metadata["status"]) == (9019, status)
    assert event.last_frame()["response"] is None
    assert len(event.runtime.provider.requests) == 1


async def test_an_empty_stream_on_the_last_step_is_not_started() -> None:
    event = await run_event(step(), streams())
    assert (event.types, event.code) == (["created"], 9016)
    assert event.metadata["status"] == 502
    assert event.last_frame()["error"]["retryable"] is True


async def test_the_memory_of_a_failed_response_is_released_by_the_next_one() -> None:
    """The budget has room for two responses: the buffered one and the next one."""
    big = b'{"error":"%s"}' % (b"x" * 20_000)
    runtime = ScriptedRuntime(*[fails(500, big)] * 4, budget_bytes=45_000)
    event = await runtime.event([step(maxAttempts=4, retryDelay=0)]).start()
    assert [a["code"] for a in event.metadata["attempts"]] == [500] * 4


async def test_an_answer_that_exceeds_the_memory_budget_is_refused() -> None:
    runtime = ScriptedRuntime(answers(b'"%s"' % (b"x" * 20_000)), budget_bytes=10_000)
    event = await runtime.event(step()).start()
    assert (event.types, event.code, event.metadata["status"]) == (["created"], 9008, 503)


async def test_a_response_that_exceeds_the_memory_budget_releases_its_memory() -> None:
    half = b"x" * 9000
    too_long = ScriptedResponse([half, half], content_type="text/plain")
    runtime = ScriptedRuntime(too_long, ScriptedResponse([half], content_type="text/plain"), budget_bytes=12_000)
    event = await runtime.event([step(), step("groq")]).start()
    assert (event.code, event.metadata["step"]) == (None, "1")


# Metadata of failed events.

FAILED: dict[str, tuple[list[ScriptedResponse], set[str]]] = {
    "a connection refused": ([refuses(), refuses()], {"provider", "attempts"}),
    "an HTTP error": ([fails(401), fails(401)], {"provider", "attempts", "headers"}),
    "a redirect": ([fails(302), fails(302)], {"provider", "attempts", "headers"}),
    "an error in a stream": ([fails(), streams(content("a"), OVERLOADED)], {"provider", "attempts", "headers"}),
    "a broken stream": ([streams(content("a"), RESET)], {"provider", "headers"}),
}


@pytest.mark.parametrize(("responses", "more"), FAILED.values(), ids=FAILED)
async def test_the_metadata_of_a_failed_event_is_complete(responses: list[ScriptedResponse], more: set[str]) -> None:
    event = await run_event([step(maxAttempts=0), step("groq")], *responses)
    assert set(event.metadata) == ALWAYS | {"warnings"} | more
    assert set(event.last_frame()["error"]) == {"code", "message", "source", "retryable"}


async def test_the_bridges_error_has_content_type_json() -> None:
    event = await run_event(step(), refuses())
    assert (event.metadata["contentType"], event.metadata["status"]) == ("application/json", 502)


@pytest.mark.parametrize(("body", "retryable"), [(b'{"error":{"code":"rate_limit_exceeded"}}', True), (QUOTA, False)])
async def test_an_exhausted_quota_is_not_retryable(body: bytes, retryable: bool) -> None:
    event = await run_event(step(), fails(429, body))
    assert event.last_frame()["error"]["retryable"] is retryable
