"""A step whose provider keeps failing is skipped for a while and probed."""

import asyncio

import httpx
import pytest

from bridge.settings.step import StepSettings
from tests.support.clock import advance
from tests.support.event_harness import COMPLETE, OVERLOADED, ROLE, EventHarness, ScriptedRuntime, content, step
from tests.support.provider_script import RESET, SILENCE, ScriptedProvider, ScriptedResponse, answers, refuses, streams

COUNTED: dict[str, ScriptedResponse] = {
    "a connection refused": refuses(),
    "a reset": ScriptedResponse(before_head=[RESET]),
    "HTTP 500": answers(status=500),
    "HTTP 529": answers(status=529),
    "a stream that broke before it answered": streams(ROLE, RESET),
    "a stream that broke after it answered": streams(content("a"), RESET),
    "an error in a stream that means 503": streams(OVERLOADED),
    "an error in HTTP 200 that means 503": answers(b'{"error":{"type":"overloaded_error"}}'),
}
NOT_COUNTED: dict[str, ScriptedResponse] = {
    **{f"HTTP {status}": answers(status=status) for status in (302, 400, 401, 404, 408, 429, 501, 505)},
    "an unknown error type": streams(b'data: {"error":{"type":"gremlins"}}\n\n'),
    "an unknown error type in a buffered answer": answers(b'{"error":{"type":"gremlins"}}'),
    "an error in a stream that means 400": streams(b'data: {"error":{"type":"invalid_request_error"}}\n\n'),
    "another unknown error type in a stream": streams(b'data: {"error":{"type":"unheard_of"}}\n\n'),
    "an error without a type after an answer": streams(content("a"), b'data: {"error":"no word at all"}\n\n'),
    "an unknown error code in HTTP 200": answers(b'{"error":{"code":"unheard_of"}}'),
}
CHAIN = [step(), step("groq")]


async def runtime_after_five(scripted: ScriptedResponse, *more: ScriptedResponse) -> ScriptedRuntime:
    runtime = ScriptedRuntime(*[scripted] * 5, *more)
    for _ in range(5):
        event = await runtime.event(step()).start()
        event.check_resources_released()
    return runtime


def listed(event: EventHarness) -> list[tuple[str, int | None]]:
    """Return step and code of the attempts in the last frame."""
    return [(attempt["step"], attempt.get("code")) for attempt in event.frames[-1]["metadata"]["attempts"]]


@pytest.mark.parametrize("scripted", COUNTED.values(), ids=COUNTED)
async def test_five_failures_in_a_row_open_the_breaker_and_the_skipped_step_is_listed(
    scripted: ScriptedResponse,
) -> None:
    runtime = await runtime_after_five(scripted, answers())
    event = await runtime.event(CHAIN).start()
    assert listed(event) == [("0", 9023), ("1", None)]
    assert event.metadata["step"] == "1"
    assert len(runtime.provider.requests) == 6


@pytest.mark.parametrize("scripted", [streams(*COMPLETE), answers()], ids=["a stream", "in one piece"])
async def test_a_complete_answer_ends_the_row_of_failures(scripted: ScriptedResponse) -> None:
    runtime = ScriptedRuntime(*[refuses()] * 4, scripted, *[refuses()] * 4, answers())
    for _ in range(9):
        event = await runtime.event(step()).start()
        event.check_resources_released()
    assert (await runtime.event(CHAIN).start()).metadata["step"] == "0"


@pytest.mark.parametrize("scripted", NOT_COUNTED.values(), ids=NOT_COUNTED)
async def test_errors_of_credentials_or_input_do_not_count(scripted: ScriptedResponse) -> None:
    runtime = await runtime_after_five(scripted, answers())
    event = await runtime.event(CHAIN).start()
    assert event.metadata["step"] == "0"


@pytest.mark.parametrize(("requested_ms", "skipped"), [(1000, False), (2000, True), (0, True)])
async def test_a_timeout_counts_unless_it_is_shorter_than_the_gateways(requested_ms: int, skipped: bool) -> None:
    gateway_settings = StepSettings(request_timeout=2000, total_timeout=3000)
    runtime = ScriptedRuntime(*[ScriptedResponse(before_head=[SILENCE])] * 5, answers())
    for _ in range(5):
        event = await runtime.event(step(requestTimeout=requested_ms or 2000), settings=gateway_settings).start()
        await event.advance(2.1)
        assert event.code == 9013
    event = await runtime.event(CHAIN, settings=gateway_settings).start()
    assert (event.metadata["step"] == "1") is skipped


async def test_a_breaker_applies_to_one_model_and_base_url() -> None:
    runtime = await runtime_after_five(refuses(), answers(), answers())
    other_model = step() | {"query": {"model": "large"}}
    for request in (other_model, step("groq")):
        event = await runtime.event([request, step("mistral")]).start()
        assert event.metadata["step"] == "0"


async def test_one_event_probes_an_open_step_after_five_seconds() -> None:
    gate = asyncio.Event()
    runtime = await runtime_after_five(refuses(), ScriptedResponse(COMPLETE, before_head=[gate]), answers(), answers())
    advance(5.1)
    probe = await runtime.event(CHAIN).start()
    other = await runtime.event(CHAIN).start()
    assert listed(other) == [("0", 9023), ("1", None)]
    await probe.release(gate)
    assert (probe.code, probe.metadata["step"]) == (None, "0")
    again = await runtime.event(CHAIN).start()
    assert again.metadata["step"] == "0", "the answer closed the breaker"


async def test_a_failed_probe_doubles_the_open_interval() -> None:
    runtime = await runtime_after_five(refuses(), refuses(), *[answers()] * 3)
    advance(5.1)
    probe = await runtime.event(CHAIN).start()
    assert listed(probe) == [("0", 9010), ("1", None)]
    advance(9.8)
    assert (await runtime.event(CHAIN).start()).metadata["step"] == "1"
    advance(0.3)
    assert (await runtime.event(CHAIN).start()).metadata["step"] == "0"


@pytest.mark.parametrize("ending", ["cancelled", "timed out", "invalid input"])
async def test_an_inconclusive_probe_lets_the_next_event_probe(ending: str) -> None:
    scripted = answers(status=400) if ending == "invalid input" else ScriptedResponse(before_head=[SILENCE])
    runtime = await runtime_after_five(refuses(), scripted, answers())
    advance(5.1)
    probe = await runtime.event(step(totalTimeout=1000)).start()
    if ending == "cancelled":
        await probe.cancel()
    elif ending == "timed out":
        await probe.advance(1.1)
    probe.check_resources_released()
    assert (await runtime.event(CHAIN).start()).metadata["step"] == "0"


async def test_the_step_due_first_is_tried_if_all_are_open() -> None:
    runtime = ScriptedRuntime(*[refuses()] * 10, answers())
    for request in [step("groq")] * 5 + [step()] * 5:
        await runtime.event(request).start()
        advance(0.1)
    event = await runtime.event(CHAIN).start()
    assert listed(event) == [("0", 9023), ("1", None)], "the second step opened first"


async def test_an_early_forced_probe_does_not_lengthen_the_open_interval() -> None:
    runtime = await runtime_after_five(refuses(), refuses(), *[answers()] * 2)
    advance(3)
    assert (await runtime.event(step()).start()).code == 9010
    advance(4.9)
    assert (await runtime.event(CHAIN).start()).metadata["step"] == "1"
    advance(0.2)
    assert (await runtime.event(CHAIN).start()).metadata["step"] == "0"


async def test_a_probe_in_flight_does_not_block_an_event_without_another_step() -> None:
    runtime = await runtime_after_five(refuses(), ScriptedResponse(before_head=[SILENCE]), answers(), answers())
    advance(5.1)
    probe = await runtime.event(step()).start()
    concurrent = await runtime.event(step()).start()
    later = await runtime.event(CHAIN).start()
    await probe.cancel()
    assert concurrent.code is None
    assert later.metadata["step"] == "0", "the answer closed the breaker"


class Outage(ScriptedProvider):
    """OpenAI refuses connections until `ends_at`; other providers answer."""

    def __init__(self, ends_at: float) -> None:
        super().__init__()
        self._ends_at = ends_at

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        is_out = request.url.host == "api.openai.com" and asyncio.get_running_loop().time() < self._ends_at
        self._responses.append(refuses() if is_out else answers())
        return await super().handle_async_request(request)


@pytest.mark.parametrize(("outage_s", "unused_s"), [(6, 5.5), (9, 10.5), (30, 20.5), (600, 20.5)])
async def test_a_recovered_primary_is_used_again_soon(outage_s: int, unused_s: float) -> None:
    """Two events a second, each with a fallback; all of them succeed."""
    began_at = asyncio.get_running_loop().time()
    runtime = ScriptedRuntime(provider=Outage(began_at + outage_s))
    answered_by = ""
    while answered_by != "0" or asyncio.get_running_loop().time() < began_at + outage_s:
        event = await runtime.event(CHAIN).start()
        assert event.code is None
        answered_by = event.metadata["step"]
        advance(0.5)
    assert asyncio.get_running_loop().time() - began_at - outage_s <= unused_s + 0.5


@pytest.mark.parametrize(
    "changed", [{"method": "FOO"}, {"method": "GET"}, {"endpoint": "v1/files"}, {"endpoint": "v1/models"}]
)
async def test_only_posts_to_model_endpoints_are_counted_and_skipped(changed: dict[str, str]) -> None:
    runtime = ScriptedRuntime(*[answers(status=503)] * 10, answers(), answers())
    for _ in range(5):
        await runtime.event(step() | changed).start()
    for _ in range(4):
        await runtime.event(step()).start()
    assert (await runtime.event(CHAIN).start()).metadata["step"] == "1", "the fifth in a row"
    assert (await runtime.event([step() | changed, step("groq")]).start()).metadata["step"] == "0"


async def test_the_last_response_is_the_answer_if_all_later_steps_are_skipped() -> None:
    runtime = await runtime_after_five(refuses(), answers(b'{"error":"no"}', 401))
    event = await runtime.event([step("groq"), step()]).start()
    assert listed(event) == [("0", 401), ("1", 9023)]
    assert (event.metadata["step"], event.metadata["status"]) == ("0", 401)


async def test_a_restart_skips_open_steps() -> None:
    runtime = await runtime_after_five(refuses(), streams(content("a"), RESET), answers())
    event = await runtime.event([step("groq", onBreak="restart"), step(), step("mistral")]).start()
    assert listed(event) == [("0", 9016), ("1", 9023), ("2", None)]


# Tokens.


async def fail_for(runtime: ScriptedRuntime, *tokens: str) -> None:
    for token in tokens:
        for _ in range(5):
            assert (await runtime.event(step(), token=token).start()).code is not None


async def test_failures_of_one_token_do_not_affect_another_token() -> None:
    runtime = ScriptedRuntime(*[answers(status=500)] * 5, answers(), answers())
    await fail_for(runtime, "hostile")
    assert (await runtime.event(CHAIN, token="other").start()).metadata["step"] == "0"
    assert (await runtime.event(CHAIN, token="hostile").start()).metadata["step"] == "1"


async def test_a_breaker_open_for_two_tokens_is_open_for_the_gateway() -> None:
    runtime = ScriptedRuntime(*[answers(status=500)] * 10, answers(), answers(), answers())
    await fail_for(runtime, "one", "two")
    third = await runtime.event(CHAIN, token="third").start()
    assert listed(third) == [("0", 9023), ("1", None)]
    assert (await runtime.event(step(), token="third").start()).code is None, (
        "an event without another step is not skipped"
    )
    advance(5.1)
    assert (await runtime.event(CHAIN, token="third").start()).metadata["step"] == "0"
