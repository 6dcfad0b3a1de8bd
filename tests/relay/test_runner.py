"""An event from its first message to its last frame: what is told however it goes, and what it owes its neighbours."""

import asyncio
import logging
from pathlib import Path

import pytest

from bridge.errors import Draining
from tests.support.clock import turns
from tests.support.event_harness import OVERLOADED, ROLE, WHOLE, Frame, House, is_last, said, step
from tests.support.event_harness import run as run_event
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import RESET, SILENCE, Plays, ScriptedProvider, answers, refuses, streams

# Faults of what was asked.

FAULTS: dict[str, tuple[Frame, int, int]] = {
    "an unknown provider": (step("nobody"), 2008, 400),
    "an endpoint that leads away": (step() | {"endpoint": "../../admin"}, 9007, 400),
}


@pytest.mark.parametrize(("request_", "code", "status"), FAULTS.values(), ids=FAULTS)
async def test_what_cannot_be_called_is_the_events_ordinary_last_frame(request_: Frame, code: int, status: int) -> None:
    stage = await run_event(request_)
    assert (stage.types, stage.code, stage.metadata["status"]) == (["created"], code, status)
    assert stage.last()["error"]["source"] == "client"
    assert stage.last()["response"]["internalCode"] == code


async def test_in_a_chain_the_fault_names_its_step_and_nothing_is_called() -> None:
    stage = await run_event([step(), step("nobody")])
    assert stage.last()["error"]["message"].startswith("step 1: ")
    assert stage.runtime.provider.played == []


async def test_clamped_settings_are_warned_of_on_the_last_frame() -> None:
    stage = await run_event(step(maxAttempts=9), streams(*WHOLE))
    assert "warnings" not in stage.frames[0]["metadata"]
    (warning,) = stage.metadata["warnings"]
    assert "maxAttempts" in warning


async def test_an_event_may_be_refused_before_it_begins() -> None:
    stage = House().event(step())
    stage.relay.refuse(Draining("the bridge is shutting down"))
    (frame,) = stage.frames
    assert (frame["type"], frame["error"]["code"], frame["metadata"]["status"]) == ("universal.created", 9022, 503)
    assert stage.lasts == 1
    assert stage.runtime.budget.used == 0


# What reaches the provider.


async def test_the_provider_gets_the_clients_own_bytes_and_headers() -> None:
    request = step() | {"headers": {"Authorization": "Bearer x", "cf-aig-request-timeout": "5000", "X-Mine": "1"}}
    stage = await run_event(request, answers())
    (played,) = stage.runtime.provider.played
    assert played.url == "https://api.openai.com/v1/chat/completions"
    assert played.content == b'{"model":"small","stream":true}'
    assert played.headers["authorization"] == "Bearer x"
    assert played.headers["x-mine"] == "1"
    assert not any(name.startswith("cf-aig") for name in played.headers)


# Clients written for Cloudflare.

COMPAT: dict[str, tuple[Plays, list[str], int]] = {
    "a broken stream": (streams(said("a"), RESET), ["created", "stream", "done"], 9016),
    "an error inside": (streams(said("a"), OVERLOADED), ["created", "stream", "stream", "done"], 9017),
    "no answer": (refuses(), ["created"], 9010),
}


@pytest.mark.parametrize(("play", "types", "code"), COMPAT.values(), ids=COMPAT)
async def test_for_a_client_of_cloudflares_a_failed_stream_ends_with_done(
    play: Plays, types: list[str], code: int
) -> None:
    stage = await House(play).event(step(), compat=True).begin()
    assert (stage.types, stage.code) == (types, code)
    assert stage.metadata["success"] is False


@pytest.mark.parametrize("play", [streams(said("a"), SILENCE), Plays(waiting=[SILENCE])], ids=["begun", "not begun"])
async def test_and_so_does_a_cancelled_one(play: Plays) -> None:
    stage = await House(play).event(step(), compat=True).begin()
    await stage.cancel()
    assert (stage.types[-1], stage.code) == ("done", 9020)


async def test_compat_is_asked_for_on_the_url(tmp_path: Path) -> None:
    provider = ScriptedProvider(*[streams(said("a"), RESET)] * 2)
    async with running(config_of("", tmp_path), provider) as server:
        for query, last in (("?compat=cloudflare", "universal.done"), ("", "universal.error")):
            async with connected(server, f"/v1/account/gateway{query}") as client:
                frames = await client.call({"eventId": 1, **step()})
                assert frames[-1]["type"] == last
                assert frames[-1]["error"]["code"] == 9016


# What nobody expected.


class Surprise(Exception):
    """No error of ours, nor of httpx."""


SURPRISES = {
    "while connecting": (Plays(connecting=[Surprise("boo")]), "created"),
    "waiting for the head": (Plays(waiting=[Surprise("boo")]), "created"),
    "before an answer": (streams(Surprise("boo")), "created"),
    "in a stream": (streams(said("a"), Surprise("boo")), "error"),
}


@pytest.mark.parametrize(("play", "last"), SURPRISES.values(), ids=SURPRISES)
async def test_an_unexpected_exception_ends_its_event_and_the_log_has_the_traceback(
    play: Plays, last: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage = await run_event([step(), step("groq")], play)
    assert (stage.types[-1], stage.code) == (last, 9099)
    message = stage.last()["error"]["message"]
    assert stage.metadata["logId"] in message
    assert "boo" not in message
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Surprise)


async def test_the_attempt_that_met_it_is_listed_with_it(caplog: pytest.LogCaptureFixture) -> None:
    stage = await run_event([step(), step("groq")], answers(status=400), Plays(waiting=[Surprise("boo")]))
    assert [a["code"] for a in stage.metadata["attempts"]] == [400, 9099]


async def test_it_touches_no_neighbour(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider(streams(said("a"), gate, *WHOLE), Plays(waiting=[Surprise("boo")]))
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        await client.create({"eventId": "well", **step()})
        await client.receive()
        failed = await client.call({"eventId": "ill", **step()})
        assert [frame["error"]["code"] for frame in failed] == [9099]
        gate.set()
        assert (await client.until_last("well"))[-1]["type"] == "universal.done"


# The log.


async def test_every_event_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bridge.event")
    request = [step() | {"query": {"model": "other"}}, step("groq")]
    stage = await run_event(request, answers(status=401), streams(*WHOLE))
    (record,) = caplog.records
    fields = record.__dict__["fields"]
    metadata = stage.metadata
    assert fields["eventId"] == "event"
    assert fields["model"] == "small", "of the step that answered"
    for name in ("logId", "step", "provider", "status", "success", "chunks", "durationMs"):
        assert fields[name] == metadata[name]
    without_reason = [{name: each[name] for name in each if name != "reason"} for each in metadata["attempts"]]
    assert fields["attempts"] == without_reason
    assert not {"headers", "code"} & fields.keys()


async def test_a_failed_events_line_has_its_code(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bridge.event")
    await run_event([step() | {"query": {"model": "first"}}, step("groq")], answers(status=401), refuses())
    (record,) = caplog.records
    fields = record.__dict__["fields"]
    assert (fields["code"], fields["model"], fields["step"]) == (401, "first", "0")


# Neighbours.


async def test_a_huge_read_does_not_starve_a_neighbour() -> None:
    """At most 64 KiB of it go out before others have a turn."""
    huge = b"".join(said("x" * 1000) for _ in range(1000))
    runtime = House(streams(huge, SILENCE), streams(*WHOLE), max_item_bytes=1 << 22)
    stage, neighbour = runtime.event(step()), runtime.event(step())
    await stage.begin(in_turns=2)
    begun = len(stage.frames)
    assert 0 < begun < 130
    await neighbour.begin(in_turns=5)
    assert neighbour.types[-1] == "done"
    assert len(stage.frames) < 700
    await turns(50)
    assert stage.types.count("stream") == 1000
    await stage.cancel()


async def test_a_client_that_takes_nothing_stops_the_reads_that_feed_it_and_no_others() -> None:
    gate = asyncio.Event()
    runtime = House(streams(said("a"), gate, *[said("b")] * 10, *WHOLE), streams(*WHOLE))
    slow = await runtime.event(step()).begin()
    slow.sink.stop_reading()
    await slow.open(gate)
    assert slow.texts == ["a", "b"], "what had been asked for when it stopped"
    quick = await runtime.event(step()).begin()
    assert quick.types[-1] == "done"
    slow.sink.read_on()
    await turns(50)
    assert slow.types[-1] == "done"


async def test_frames_of_one_read_leave_in_one_write() -> None:
    stage = await run_event(step(), streams(ROLE + said("a") + said("b"), b"".join(WHOLE)))
    assert stage.sink.writes == [1, 3, 3, 1]


# The connection.


async def test_the_answer_of_a_failed_step_is_read_and_a_broken_off_one_is_closed() -> None:
    stage = await run_event(
        [step(), step("groq"), step("mistral")], answers(status=500), streams(OVERLOADED, said("x")), answers()
    )
    assert [played.was_read_to_its_end for played in stage.runtime.provider.played] == [True, False, True]


async def test_a_neighbour_of_the_same_id_begins_when_the_first_is_over(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider(Plays(waiting=[gate], body=WHOLE), streams(*WHOLE))
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
