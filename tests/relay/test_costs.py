"""What an event cost: told, estimated where a stream did not tell, or unknown."""

import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from bridge.relay.costs import ESTIMATED
from tests.clock import turns, until
from tests.harness import config_of, connected, running
from tests.provider_script import RESET, SILENCE, Plays, ScriptedProvider, answers, streams
from tests.stage import DONE, FINISH, ROLE, USAGE, WHOLE, Frame, said, step

RATES = {"per_token_in": 1.0, "per_token_out": 100.0}
PRICED = step(customCost=RATES)
INPUT = len(orjson.dumps(PRICED["query"])) // 4
TOLD = b'data: {"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}\n\n'
TEXT = b'data: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'


async def last(folder: Path, play: Plays, request: Frame = PRICED) -> Frame:
    """The last frame's metadata."""
    async with running(config_of("", folder), ScriptedProvider(play)) as server, connected(server) as client:
        frames = await client.call({"eventId": 1, **request})
        metadata: Frame = frames[-1]["metadata"]
        return metadata


ESTIMATES = {
    "cut, and nothing was told": (streams(ROLE, said("a"), said("b"), RESET), INPUT + 300),
    "cut, and the input was told, with the first token": (streams(TOLD, TEXT, TEXT, TEXT, RESET), 7 + 400),
    "whole, and nothing was told": (streams(*WHOLE), INPUT + 300),
}


@pytest.mark.parametrize(("play", "usd"), ESTIMATES.values(), ids=ESTIMATES)
async def test_what_a_stream_did_not_tell_is_estimated_and_warned_of(tmp_path: Path, play: Plays, usd: float):
    metadata = await last(tmp_path, play)
    assert metadata["cost"] == usd
    assert metadata["warnings"] == [ESTIMATED]


KNOWN = {
    "a stream that told its usage": (streams(ROLE, said("a"), FINISH, USAGE, DONE), PRICED, 203.0),
    "an answer in one piece that told its usage": (
        answers(b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'),
        PRICED,
        203.0,
    ),
    "a cut stream at a price for the whole": (streams(said("a"), RESET), step(customCost={"total_cost": 5.0}), 5.0),
    "a cut stream whose provider told what it cost": (
        streams(b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"cost":0.25}}\n\n', RESET),
        step(),
        0.25,
    ),
}


@pytest.mark.parametrize(("play", "request_", "usd"), KNOWN.values(), ids=KNOWN)
async def test_what_was_told_is_no_estimate(tmp_path: Path, play: Plays, request_: Frame, usd: float):
    metadata = await last(tmp_path, play, request_)
    assert metadata["cost"] == usd
    assert "warnings" not in metadata


UNKNOWN = {
    "a stream without a price": (streams(said("a"), RESET), step()),
    "an answer in one piece that told nothing": (answers(), PRICED),
    "a failure": (answers(status=500), PRICED),
    "sound, which has no tokens": (streams(b"abc" * 1000, content_type="audio/mpeg"), PRICED),
}


@pytest.mark.parametrize(("play", "request_"), UNKNOWN.values(), ids=UNKNOWN)
async def test_what_nobody_knows_is_not_told(tmp_path: Path, play: Plays, request_: Frame):
    metadata = await last(tmp_path, play, request_)
    assert "cost" not in metadata
    assert "warnings" not in metadata


async def test_a_cancelled_stream_cost_what_was_seen_of_it(tmp_path: Path):
    provider = ScriptedProvider(streams(ROLE, said("a"), SILENCE))
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        await client.create({"eventId": 1, **PRICED})
        await until(lambda: provider.played and provider.played[0].reads == 2)
        await turns(20)
        await client.cancel(1)
        frames = await client.until_last(1)
        assert frames[-1]["metadata"]["cost"] == INPUT + 200


async def test_an_estimate_is_marked_in_the_log(tmp_path: Path):
    text = '[server]\nlog_path = "log.db"'
    provider = ScriptedProvider(streams(said("a"), RESET))
    async with running(config_of(text, tmp_path), provider) as server, connected(server) as client:
        await client.call({"eventId": 1, **PRICED})
    with closing(sqlite3.connect(tmp_path / "log.db")) as log:
        rows = log.execute("SELECT cost, cost_estimated, cost_source FROM requests").fetchall()
    assert rows == [(INPUT + 100, 1, "custom")]
