"""Random behaviour of providers and clients: every event has one last frame and releases its resources."""

import asyncio
import re
from itertools import cycle, islice

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.upstream.dial import TlsError
from tests.support.clock import ClockLoop, run_until_idle
from tests.support.event_harness import (
    DONE,
    FINISH,
    OVERLOADED,
    ROLE,
    USAGE,
    EventHarness,
    Frame,
    ScriptedRuntime,
    content,
    step,
)
from tests.support.provider_script import JSON, REFUSED, RESET, SILENCE, SSE, Part, ScriptedResponse

POLICY = b'data: {"error":{"code":"content_filter"}}\n\n'


class UnexpectedError(Exception):
    """An exception of no known type."""


breaks: st.SearchStrategy[Part] = st.sampled_from(
    [RESET, SILENCE, UnexpectedError("boo"), httpx.RemoteProtocolError("malformed head")]
)
reads: st.SearchStrategy[Part] = st.sampled_from(
    [
        ROLE,
        content("a"),
        FINISH,
        USAGE,
        DONE,
        OVERLOADED,
        POLICY,
        b": beat\n\n",
        b"data: text\n\n",
        b"data: {half",
        b"x" * 3000,
    ]
)
bodies = st.tuples(st.lists(reads, max_size=6), st.just([]) | st.lists(breaks, min_size=1, max_size=1)).map(
    lambda parts: [*parts[0], *parts[1]]
)
before: st.SearchStrategy[list[Part]] = st.sampled_from(
    [[], [], [], [], [REFUSED], [TlsError("no TLS")], [RESET], [SILENCE], [UnexpectedError("boo")]]
)
responses = st.builds(
    ScriptedResponse,
    body=bodies,
    status=st.sampled_from([200, 200, 200, 200, 302, 400, 401, 429, 503]),
    content_type=st.sampled_from([SSE, SSE, JSON, "audio/mpeg", ""]),
    headers=st.sampled_from([{}, {}, {"retry-after": "1"}, {"retry-after": "60"}]),
    before_connect=before,
    before_head=before,
)
times_ms = st.sampled_from([1000, 5000, 60_000])
steps = st.builds(
    step,
    st.sampled_from(["openai", "groq", "custom-markless"]),
    maxAttempts=st.integers(1, 3),
    onBreak=st.sampled_from(["error", "restart"]),
    onPolicy=st.sampled_from(["answer", "next"]),
    frames=st.sampled_from(["items", "raw"]),
    connectTimeout=times_ms,
    requestTimeout=times_ms,
    idleTimeout=times_ms,
    totalTimeout=times_ms,
)
chains = st.lists(steps, min_size=1, max_size=3)
client_actions = st.tuples(
    st.integers(0, 2), st.sampled_from(["cancel", "stop reading", "resume reading", "wait", "wait long"])
)

GRAMMAR = re.compile(r"(Cs*)*A|(Cs*)+D|(Cs*)*E")
"""Frames of one event: C created, s stream item, A buffered answer, D done, E error."""


def symbol(frame: Frame) -> str:
    match frame["type"]:
        case "universal.created":
            return "A" if "response" in frame else "C"
        case "universal.stream":
            return "s"
        case other:
            return "D" if other == "universal.done" else "E"


async def perform(events: list[EventHarness], index: int, action: str) -> None:
    event = events[index % len(events)]
    match action:
        case "cancel":
            await event.cancel()
        case "stop reading":
            event.sink.stop_reading()
        case "resume reading":
            event.sink.resume_reading()
            await run_until_idle()
        case _:
            await event.advance(0.7 if action == "wait" else 11)


def check(event: EventHarness) -> None:
    event.check_resources_released()
    assert GRAMMAR.fullmatch("".join(map(symbol, event.frames))), event.types
    starts = [frame["metadata"] for frame in event.frames if frame["type"] == "universal.created"]
    assert [start.get("restarted", False) for start in starts] == [number > 0 for number in range(len(starts))]
    last = event.frames[-1]
    assert last["metadata"]["success"] is ("error" not in last)
    assert last["type"] != "universal.done" or last["metadata"]["success"]


async def run_events(
    requests: list[list[Frame]], script: list[ScriptedResponse], actions: list[tuple[int, str]]
) -> None:
    runtime = ScriptedRuntime(*islice(cycle(script), 30), max_item_bytes=2000)
    events = [await runtime.event(chain).start() for chain in requests]
    for index, action in actions:
        await perform(events, index, action)
    for event in events:
        event.sink.resume_reading()
    for _ in range(3):
        await events[0].advance(100)
    for event in events:
        check(event)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests=st.lists(chains, min_size=1, max_size=3),
    script=st.lists(responses, min_size=1, max_size=6),
    actions=st.lists(client_actions, max_size=8),
)
def test_every_event_has_one_last_frame_and_releases_its_resources(
    requests: list[list[Frame]], script: list[ScriptedResponse], actions: list[tuple[int, str]]
) -> None:
    with asyncio.Runner(loop_factory=ClockLoop) as runner:
        runner.run(run_events(requests, script, actions))
