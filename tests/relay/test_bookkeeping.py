"""Items before the answer are held back within limits, so that the next step can replace them unnoticed."""

import asyncio

import pytest

from tests.support.event_harness import COMPLETE, FINISH, ROLE, EventHarness, Frame, ScriptedRuntime, content, step
from tests.support.event_harness import run as run_event
from tests.support.provider_script import RESET, SILENCE, answers, streams

TWO_STEPS = [step(), step("groq")]


def sse(*items: bytes) -> bytes:
    return b"".join(b"data: %s\n\n" % item for item in items)


BOOKKEEPING = {
    "Anthropic's message_start": sse(b'{"type":"message_start","message":{}}'),
    "Responses' response.created": sse(b'{"type":"response.created","response":{}}'),
    "Responses' response.queued": sse(b'{"type":"response.queued"}'),
    "Responses' response.in_progress": sse(b'{"type":"response.in_progress"}'),
    "an OpenAI chunk without choices": sse(b'{"choices":[]}'),
    "a delta with only a role": ROLE,
    "a delta with only nulls": sse(b'{"choices":[{"delta":{"content":null,"refusal":null}}]}'),
    "Cohere's message-start": sse(b'{"type":"message-start","delta":{}}'),
    "Cohere's stream-start": sse(b'{"is_finished":false,"event_type":"stream-start"}'),
    "a Gemini chunk without candidates": sse(b'{"usageMetadata":{"promptTokenCount":3}}'),
}


@pytest.mark.parametrize("item", BOOKKEEPING.values(), ids=BOOKKEEPING)
async def test_bookkeeping_does_not_start_the_answer(item: bytes) -> None:
    event = await run_event(TWO_STEPS, streams(item, RESET), answers())
    assert (event.types, event.metadata["step"]) == (["created"], "1")


ANSWERS = {
    "content": content("a"),
    "a finish mark": FINISH,
    "reasoning": sse(b'{"choices":[{"delta":{"reasoning_content":"hm"}}]}'),
    "a tool call": sse(b'{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}'),
    "a refusal": sse(b'{"choices":[{"delta":{"refusal":"no"}}]}'),
    "a blocked Gemini prompt": sse(b'{"promptFeedback":{"blockReason":"SAFETY"}}'),
    "an item of an unknown dialect": sse(b'{"hello":"world"}'),
    "text": sse(b"hello"),
    "invalid JSON": sse(b"{hello"),
}


@pytest.mark.parametrize("item", ANSWERS.values(), ids=ANSWERS)
async def test_any_other_item_starts_the_answer(item: bytes) -> None:
    event = await ScriptedRuntime(streams(ROLE + item, SILENCE)).event(TWO_STEPS).start()
    assert event.types[:2] == ["created", "stream"]
    await event.cancel()


async def test_held_items_are_sent_in_order_with_the_answer_in_one_write() -> None:
    gate = asyncio.Event()
    ids = [sse(b'{"type":"response.created","n":%d}' % n) for n in range(3)]
    answer = sse(b'{"type":"response.output_text.delta","n":3}')
    event = await ScriptedRuntime(streams(*ids, gate, answer, SILENCE)).event(TWO_STEPS).start()
    assert event.frames == []
    await event.release(gate)
    assert event.types == ["created", *["stream"] * 4]
    assert [frame["response"]["n"] for frame in event.frames[1:]] == [0, 1, 2, 3]
    assert event.sink.frames_per_write == [5]
    await event.cancel()


async def held(*parts: bytes, steps: list[Frame] = TWO_STEPS) -> EventHarness:
    return await ScriptedRuntime(streams(*parts, SILENCE)).event(steps).start()


@pytest.mark.parametrize("in_one_read", [False, True], ids=["in separate reads", "in one read"])
async def test_at_most_sixty_four_items_are_held(in_one_read: bool) -> None:
    event = await held(*([ROLE * 64] if in_one_read else [ROLE] * 64))
    assert event.types == []
    await event.cancel()
    event = await held(*([ROLE * 65] if in_one_read else [ROLE] * 65))
    assert event.types == ["created", *["stream"] * 65]
    await event.cancel()


@pytest.mark.parametrize("frames", ["items", "raw"])
async def test_at_most_one_mebibyte_is_held(frames: str) -> None:
    item = sse(b'{"type":"message_start","pad":"%s"}' % (b"x" * (1 << 18)))
    steps = [step(frames=frames), step("groq")]
    runtime = ScriptedRuntime(streams(*[item] * 3, SILENCE), max_item_bytes=1 << 21)
    event = await runtime.event(steps).start()
    assert event.types == []
    await event.cancel()
    event = await ScriptedRuntime(streams(*[item] * 4, SILENCE), max_item_bytes=1 << 21).event(steps).start()
    assert event.types[:2] == ["created", "stream"]
    await event.cancel()


async def test_bookkeeping_is_held_for_ten_seconds_after_its_first_item() -> None:
    gate = asyncio.Event()
    event = await ScriptedRuntime(streams(b": no item\n\n", gate, ROLE, SILENCE)).event(TWO_STEPS).start()
    await event.advance(100)
    assert event.types == []
    await event.release(gate)
    await event.advance(9.9)
    assert event.types == []
    await event.advance(0.2)
    assert event.types == ["created", "stream"]
    await event.cancel()


async def test_more_bookkeeping_does_not_prolong_the_hold() -> None:
    gate = asyncio.Event()
    event = await ScriptedRuntime(streams(ROLE, gate, ROLE, SILENCE)).event(TWO_STEPS).start()
    await event.advance(9)
    await event.release(gate)
    await event.advance(1.1)
    assert event.types == ["created", "stream", "stream"]
    await event.cancel()


LIMITS = {"64 items": ([ROLE] * 65, 0.0), "10 s": ([ROLE], 10.1)}


@pytest.mark.parametrize(("parts", "seconds"), LIMITS.values(), ids=LIMITS)
async def test_a_step_that_exceeds_a_hold_limit_counts_as_answered(parts: list[bytes], seconds: float) -> None:
    gate = asyncio.Event()
    event = await ScriptedRuntime(streams(*parts, gate, RESET)).event([step(maxAttempts=2), step("groq")]).start()
    await event.advance(seconds)
    await event.release(gate)
    assert (event.types[-1], event.code) == ("error", 9016), "no other step is tried"
    assert len(event.runtime.provider.requests) == 1


LAST = {
    "the only step": [step()],
    "the last step": [step("groq"), step()],
    "the last attempt": [step(maxAttempts=2, retryDelay=0)],
}


@pytest.mark.parametrize("steps", LAST.values(), ids=LAST)
async def test_nothing_is_held_on_the_last_attempt_of_the_last_step(steps: list[Frame]) -> None:
    responses = [answers(status=503)] if len(steps) > 1 or steps[0]["config"] else []
    event = await ScriptedRuntime(*responses, streams(ROLE, SILENCE)).event(steps).start()
    await event.advance(0.1)
    assert event.types == ["created", "stream"]
    await event.cancel()


async def test_items_are_held_on_earlier_attempts_of_the_last_step() -> None:
    event = await held(ROLE, steps=[step(maxAttempts=2)])
    assert event.types == []
    await event.cancel()


async def test_held_items_of_a_failed_step_are_never_sent() -> None:
    first = sse(b'{"type":"response.created","n":"first"}')
    event = await run_event(TWO_STEPS, streams(first, RESET), streams(*COMPLETE))
    assert event.types == ["created", "stream", "stream", "stream", "done"]
    assert b"first" not in b"".join(event.sink.raw)
