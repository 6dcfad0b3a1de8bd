"""Events from their first message to their last frame, and the isolation of events from each other."""

import asyncio
import logging
from pathlib import Path

import pytest

from bridge.errors import Draining
from tests.support.clock import run_until_idle
from tests.support.event_harness import COMPLETE, OVERLOADED, ROLE, Frame, ScriptedRuntime, content, is_last, step
from tests.support.event_harness import run as run_event
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import RESET, SILENCE, ScriptedProvider, ScriptedResponse, answers, refuses, streams

# Invalid requests.

FAULTS: dict[str, tuple[Frame, int, int]] = {
    "an unknown provider": (step("nobody"), 2008, 400),
    "an endpoint that leads away": (step() | {"endpoint": "../../admin"}, 9007, 400),
}


@pytest.mark.parametrize(("request_", "code", "status"), FAULTS.values(), ids=FAULTS)
async def test_an_invalid_step_ends_the_event_with_a_created_frame(request_: Frame, code: int, status: int) -> None:
    event = await run_event(request_)
    assert (event.types, event.code, event.metadata["status"]) == (["created"], code, status)
    assert event.last_frame()["error"]["source"] == "client"
    assert event.last_frame()["response"]["internalCode"] == code


async def test_an_invalid_step_in_a_chain_is_named_and_nothing_is_called() -> None:
    event = await run_event([step(), step("nobody")])
    assert event.last_frame()["error"]["message"].startswith("step 1: ")
    assert event.runtime.provider.requests == []


async def test_a_clamped_setting_adds_a_warning_to_the_last_frame() -> None:
    event = await run_event(step(maxAttempts=9), streams(*COMPLETE))
    assert "warnings" not in event.frames[0]["metadata"]
    (warning,) = event.metadata["warnings"]
    assert "maxAttempts" in warning


async def test_an_event_can_be_refused_before_it_starts() -> None:
    event = ScriptedRuntime().event(step())
    event.runner.refuse(Draining("the bridge is shutting down"))
    (frame,) = event.frames
    assert (frame["type"], frame["error"]["code"], frame["metadata"]["status"]) == ("universal.created", 9022, 503)
    assert event.last_frame_count == 1
    assert event.runtime.budget.used == 0


# Requests to the provider.


async def test_the_provider_receives_the_clients_body_and_headers() -> None:
    request = step() | {"headers": {"Authorization": "Bearer x", "cf-aig-request-timeout": "5000", "X-Mine": "1"}}
    event = await run_event(request, answers())
    (received,) = event.runtime.provider.requests
    assert received.url == "https://api.openai.com/v1/chat/completions"
    assert received.content == b'{"model":"small","stream":true}'
    assert received.headers["authorization"] == "Bearer x"
    assert received.headers["x-mine"] == "1"
    assert not any(name.startswith("cf-aig") for name in received.headers)


# Clients written for Cloudflare.

COMPAT: dict[str, tuple[ScriptedResponse, list[str], int]] = {
    "a broken stream": (streams(content("a"), RESET), ["created", "stream", "done"], 9016),
    "an error inside": (streams(content("a"), OVERLOADED), ["created", "stream", "stream", "done"], 9017),
    "no answer": (refuses(), ["created"], 9010),
}


@pytest.mark.parametrize(("scripted", "types", "code"), COMPAT.values(), ids=COMPAT)
async def test_a_failed_stream_ends_with_done_in_compat_mode(
    scripted: ScriptedResponse, types: list[str], code: int
) -> None:
    event = await ScriptedRuntime(scripted).event(step(), compat=True).start()
    assert (event.types, event.code) == (types, code)
    assert event.metadata["success"] is False


@pytest.mark.parametrize(
    "scripted",
    [streams(content("a"), SILENCE), ScriptedResponse(before_head=[SILENCE])],
    ids=["started", "not started"],
)
async def test_a_cancelled_event_ends_with_done_in_compat_mode(scripted: ScriptedResponse) -> None:
    event = await ScriptedRuntime(scripted).event(step(), compat=True).start()
    await event.cancel()
    assert (event.types[-1], event.code) == ("done", 9020)


async def test_compat_mode_is_requested_in_the_url(tmp_path: Path) -> None:
    provider = ScriptedProvider(*[streams(content("a"), RESET)] * 2)
    async with running(config_of("", tmp_path), provider) as server:
        for query, last in (("?compat=cloudflare", "universal.done"), ("", "universal.error")):
            async with connected(server, f"/v1/account/gateway{query}") as client:
                frames = await client.call({"eventId": 1, **step()})
                assert frames[-1]["type"] == last
                assert frames[-1]["error"]["code"] == 9016


# Unexpected exceptions.


class UnexpectedError(Exception):
    """Neither an error of the bridge nor one of httpx."""


UNEXPECTED = {
    "while connecting": (ScriptedResponse(before_connect=[UnexpectedError("boo")]), "created"),
    "waiting for the head": (ScriptedResponse(before_head=[UnexpectedError("boo")]), "created"),
    "before an answer": (streams(UnexpectedError("boo")), "created"),
    "in a stream": (streams(content("a"), UnexpectedError("boo")), "error"),
}


@pytest.mark.parametrize(("scripted", "last"), UNEXPECTED.values(), ids=UNEXPECTED)
async def test_an_unexpected_exception_ends_its_event_and_is_logged_with_traceback(
    scripted: ScriptedResponse, last: str, caplog: pytest.LogCaptureFixture
) -> None:
    event = await run_event([step(), step("groq")], scripted)
    assert (event.types[-1], event.code) == (last, 9099)
    message = event.last_frame()["error"]["message"]
    assert event.metadata["logId"] in message
    assert "boo" not in message
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], UnexpectedError)


async def test_an_attempt_with_an_unexpected_exception_is_listed(caplog: pytest.LogCaptureFixture) -> None:
    event = await run_event(
        [step(), step("groq")], answers(status=400), ScriptedResponse(before_head=[UnexpectedError("boo")])
    )
    assert [a["code"] for a in event.metadata["attempts"]] == [400, 9099]


async def test_an_unexpected_exception_does_not_affect_other_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider(
        streams(content("a"), gate, *COMPLETE), ScriptedResponse(before_head=[UnexpectedError("boo")])
    )
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        await client.create({"eventId": "good", **step()})
        await client.receive()
        failed = await client.call({"eventId": "bad", **step()})
        assert [frame["error"]["code"] for frame in failed] == [9099]
        gate.set()
        assert (await client.until_last("good"))[-1]["type"] == "universal.done"


# The log.


async def test_every_event_writes_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bridge.event")
    request = [step() | {"query": {"model": "other"}}, step("groq")]
    event = await run_event(request, answers(status=401), streams(*COMPLETE))
    (record,) = caplog.records
    fields = record.__dict__["fields"]
    metadata = event.metadata
    assert fields["eventId"] == "event"
    assert fields["model"] == "small", "model of the step that answered"
    for name in ("logId", "step", "provider", "status", "success", "chunks", "durationMs"):
        assert fields[name] == metadata[name]
    without_reason = [{name: each[name] for name in each if name != "reason"} for each in metadata["attempts"]]
    assert fields["attempts"] == without_reason
    assert not {"headers", "code"} & fields.keys()


async def test_the_log_line_of_a_failed_event_has_its_code(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bridge.event")
    await run_event([step() | {"query": {"model": "first"}}, step("groq")], answers(status=401), refuses())
    (record,) = caplog.records
    fields = record.__dict__["fields"]
    assert (fields["code"], fields["model"], fields["step"]) == (401, "first", "0")


# Isolation.


async def test_a_long_read_does_not_delay_other_events() -> None:
    """At most 64 KiB of a read are processed before other events run."""
    long_read = b"".join(content("x" * 1000) for _ in range(1000))
    runtime = ScriptedRuntime(streams(long_read, SILENCE), streams(*COMPLETE), max_item_bytes=1 << 22)
    event, other = runtime.event(step()), runtime.event(step())
    await event.start(iterations=4)
    frames_before = len(event.frames)
    assert 0 < frames_before < 130
    await other.start(iterations=8)
    assert other.types[-1] == "done"
    assert len(event.frames) < 700
    await run_until_idle()
    assert event.types.count("stream") == 1000
    await event.cancel()


async def test_a_client_that_does_not_read_pauses_only_its_own_event() -> None:
    gate = asyncio.Event()
    runtime = ScriptedRuntime(streams(content("a"), gate, *[content("b")] * 10, *COMPLETE), streams(*COMPLETE))
    slow = await runtime.event(step()).start()
    slow.sink.stop_reading()
    await slow.release(gate)
    assert slow.texts == ["a", "b"], "the read that was in progress"
    other = await runtime.event(step()).start()
    assert other.types[-1] == "done"
    slow.sink.resume_reading()
    await run_until_idle()
    assert slow.types[-1] == "done"


async def test_frames_of_one_read_are_sent_in_one_write() -> None:
    event = await run_event(step(), streams(ROLE + content("a") + content("b"), b"".join(COMPLETE)))
    assert event.sink.frames_per_write == [1, 3, 3, 1]


# Connections.


async def test_a_failed_response_is_read_fully_and_a_broken_one_is_closed() -> None:
    event = await run_event(
        [step(), step("groq"), step("mistral")], answers(status=500), streams(OVERLOADED, content("x")), answers()
    )
    assert [received.was_read_fully for received in event.runtime.provider.requests] == [True, False, True]


async def test_an_event_id_can_be_used_again_after_the_last_frame(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider(ScriptedResponse(before_head=[gate], body=COMPLETE), streams(*COMPLETE))
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        await client.create({"eventId": 1, **step()})
        await client.create({"eventId": 1, **step()})
        refused = await client.receive()
        assert (refused["type"], refused["error"]["code"], refused["error"]["eventId"]) == ("universal.error", 9004, 1)
        assert "eventId" not in refused["metadata"]
        gate.set()
        await client.until_last(1)
        assert sum(map(is_last, client.frames[1:])) == 1
        client.frames.clear()
        assert (await client.call({"eventId": 1, **step()}))[-1]["type"] == "universal.done"
