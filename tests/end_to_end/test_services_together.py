"""What all services make of one event, where several of them have a say: frames, row, span and metrics agree."""

import asyncio
import hashlib
import logging
import time
from pathlib import Path
from typing import Final

import orjson
import pytest

from tests.end_to_end.test_request_log import bytes_of_log
from tests.support.clock import advance, turns, until
from tests.support.consistency import assert_consistent, attempts_of
from tests.support.event_harness import DONE, FINISH, ROLE, USAGE, said, step
from tests.support.full_stack import GATEWAY, ClientEnd, FullStack, by_frames, witnessing
from tests.support.harness import Frame, connected
from tests.support.provider_script import JSON, REFUSED, RESET, SILENCE, Plays, answers, refuses, streams
from tests.support.wall_clock import Wall

PRICED: Final = "custom_cost = { per_token_in = 0.001, per_token_out = 0.01 }\n"
USD: Final = 3 * 0.001 + 2 * 0.01
"""What three tokens in and two out cost so."""
ANSWER: Final = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
STREAM: Final = (ROLE, said("a"), said("b"), FINISH, USAGE, DONE)
ONE: Final = step()
TWO: Final = step("groq")

WAYS: Final = ("socket", "http")
both = pytest.mark.parametrize("way", WAYS)


def digest(token: str) -> str:
    return f'"sha256:{hashlib.sha256(token.encode()).hexdigest()}"'


async def ask(witness: FullStack, way: str, request: object = None, path: str = GATEWAY, **headers: str) -> ClientEnd:
    """One event from its beginning to its end."""
    return await (witness.on_socket if way == "socket" else witness.over_http)(request, path, **headers)


# One after the other.


@both
@pytest.mark.parametrize("play", [answers(ANSWER), streams(*STREAM)], ids=["whole", "stream"])
async def test_what_was_asked_again_is_the_same_answer_and_costs_nothing(way: str, play: Plays, tmp_path: Path) -> None:
    async with witnessing(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, play) as listener:
        tolds = [await ask(listener, way) for _ in range(2)]
    miss, hit = assert_consistent(listener, *tolds)
    assert (miss["cached"], miss["cost"], miss["cost_source"], miss["tokens_in"]) == (
        0,
        pytest.approx(USD),
        "custom",
        3,
    )
    assert (hit["cached"], hit["cost"], hit["cost_source"], hit["tokens_in"]) == (1, 0, "cache", 0)
    assert (miss["response_head"], miss["response_size"]) == (hit["response_head"], hit["response_size"])
    assert miss["added"] is not None
    assert hit["added"] is None


@both
async def test_a_fallback_may_be_answered_by_the_cache(way: str, tmp_path: Path) -> None:
    plays = [answers(ANSWER), answers(status=500)]
    async with witnessing(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, *plays) as listener:
        tolds = [await ask(listener, way, asked) for asked in ([TWO], [ONE, TWO])]
    _, row = assert_consistent(listener, *tolds)
    assert attempts_of(row) == [(0, "openai", 500, 500), (1, "groq", 200, None)]
    assert (row["step"], row["cached"], row["cost"], row["success"]) == (1, 1, 0, 1)


@both
async def test_a_retry_is_another_attempt_of_one_event(way: str, tmp_path: Path) -> None:
    asked = step(maxAttempts=2, retryDelay=0)
    async with witnessing(tmp_path, {"gateway": PRICED}, answers(status=503), streams(*STREAM)) as listener:
        told = await ask(listener, way, asked)
    [row] = assert_consistent(listener, told)
    assert attempts_of(row) == [(0, "openai", 503, 503), (0, "openai", 200, None)]
    assert (row["success"], row["cost"], row["tokens_out"]) == (1, pytest.approx(USD), 2)


@both
async def test_when_all_fail_the_last_answer_of_a_provider_is_told_with_its_step(way: str, tmp_path: Path) -> None:
    busy = answers(b'{"error":{"message":"busy"}}', status=503)
    async with witnessing(tmp_path, {"gateway": PRICED}, busy, refuses()) as listener:
        told = await ask(listener, way, [ONE, TWO])
    [row] = assert_consistent(listener, told)
    assert attempts_of(row) == [(0, "openai", 503, 503), (1, "groq", None, 9010)]
    assert (row["step"], row["provider"], row["status_code"], row["code"], row["cost"]) == (0, "openai", 503, 503, None)


@both
async def test_a_step_that_is_skipped_is_told_like_an_attempt(way: str, tmp_path: Path) -> None:
    plays = [*[answers(status=500)] * 5, answers(ANSWER)]
    async with witnessing(tmp_path, {"gateway": PRICED}, *plays) as listener:
        tolds = [await ask(listener, way, asked) for asked in (*[ONE] * 5, [ONE, TWO])]
    row = assert_consistent(listener, *tolds)[-1]
    assert attempts_of(row) == [(0, "openai", None, 9023), (1, "groq", 200, None)]
    assert (row["step"], row["success"]) == (1, 1)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/octet-stream", bytes(9 << 20)), ("application/json", b'{"data":"%s"}' % (b"x" * (9 << 20)))],
    ids=["file", "JSON"],
)
async def test_what_is_too_long_to_be_held_costs_what_is_told_and_no_guess(
    content_type: str, body: bytes, tmp_path: Path
) -> None:
    """Over HTTP it is passed on as it comes, and that makes no model's words of it."""
    async with witnessing(tmp_path, {"gateway": PRICED}, Plays([body], content_type=content_type)) as listener:
        told = await listener.over_http([ONE])
    [row] = assert_consistent(listener, told)
    assert (row["success"], row["response_size"]) == (1, len(body))
    assert (row["cost"], row["cost_estimated"], row["warnings"]) == (None, 0, None)


CLOUDFLARES: Final = (
    "id",
    "provider",
    "model",
    "path",
    "duration",
    "request_type",
    "request_content_type",
    "status_code",
    "response_content_type",
    "success",
    "cached",
    "tokens_in",
    "tokens_out",
    "metadata",
    "step",
    "cost",
    "custom_cost",
    "request_size",
    "request_head",
    "request_head_complete",
    "response_size",
    "response_head",
    "response_head_complete",
    "created_at",
)
"""The fields of its log records, but for `model_type`."""


@pytest.mark.parametrize(
    ("way", "path", "request_"),
    [("socket", "", ONE), ("http", "", ONE), ("http", "/openai/v1/chat/completions", ONE["query"])],
    ids=["socket", "steps", "a provider's API"],
)
async def test_a_row_has_every_field_that_cloudflares_has(way: str, path: str, request_: Frame, tmp_path: Path) -> None:
    headers = {"cf_aig_metadata": '{"team":"red"}', "content_type": JSON}
    async with witnessing(tmp_path, {"gateway": PRICED}, answers(ANSWER)) as listener:
        before_ms = time.time() * 1000
        told = await ask(listener, way, request_, GATEWAY + path, **headers)
    [row] = assert_consistent(listener, told)
    assert [name for name in CLOUDFLARES if row.get(name) is None] == []
    assert before_ms - 1 <= row["created_at"] <= time.time() * 1000
    assert row["request_type"] == {"socket": "websocket"}.get(way, way)
    assert (row["model"], row["custom_cost"], row["metadata"]) == ("small", 1, '{"team":"red"}')
    assert row["path"] == ONE["endpoint"]


# Broken off.


@both
async def test_a_stream_that_breaks_is_a_failure_with_the_status_that_it_began_with(way: str, tmp_path: Path) -> None:
    async with witnessing(tmp_path, {"gateway": PRICED}, streams(ROLE, said("a"), RESET)) as listener:
        told = await ask(listener, way, [ONE, TWO])
    [row] = assert_consistent(listener, told)
    assert (row["status_code"], row["code"], row["success"], row["chunks"]) == (200, 9016, 0, 2)
    assert (row["cost_estimated"], row["tokens_out"]) == (1, None)
    assert row["cost"] > 0


@both
async def test_an_answer_that_is_given_again_is_no_more_broken_than_it_was(way: str, tmp_path: Path) -> None:
    plays = [streams(ROLE, said("a"), RESET), streams(*STREAM)]
    async with witnessing(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, *plays) as listener:
        tolds = [await ask(listener, way) for _ in range(3)]
    rows = assert_consistent(listener, *tolds)
    assert [(row["code"], row["cached"]) for row in rows] == [(9016, 0), (None, 0), (None, 1)]


async def test_a_restart_is_one_event_whose_last_stream_counts_and_all_are_charged(tmp_path: Path) -> None:
    asked = [step(onBreak="restart"), TWO]
    plays = [streams(ROLE, said("x"), RESET), streams(*STREAM)]
    async with witnessing(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, *plays) as listener:
        tolds = [await listener.on_socket(each) for each in (asked, TWO)]
    first, again = assert_consistent(listener, *tolds)
    assert attempts_of(first) == [(0, "openai", 200, 9016), (1, "groq", 200, None)]
    lost_usd = len(orjson.dumps(ONE["query"])) // 4 * 0.001 + 2 * 0.01
    assert (first["step"], first["success"], first["chunks"]) == (1, 1, 7)
    assert (first["cost"], first["cost_estimated"]) == (pytest.approx(lost_usd + USD), 1)
    assert first["response_head"] == b"".join(STREAM).decode()
    assert (again["cached"], again["cost"]) == (1, 0)


@both
async def test_who_leaves_in_the_middle_is_told_of_as_cancelled(way: str, tmp_path: Path) -> None:
    play = streams(ROLE, said("a"), SILENCE)
    async with (
        witnessing(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, play) as listener,
        listener.begun(way) as event,
    ):
        await listener.reading(0, 2)
        await event.leave()
        tolds = [await event.end()] if way == "socket" else []
        await until(lambda: listener.provider.open_streams == 0)
    assert_consistent(listener, *tolds)
    [row] = listener.rows.values()
    assert (row["status_code"], row["code"], row["success"], row["chunks"]) == (200, 9020, 0, 2)
    assert (row["cached"], row["cost_estimated"]) == (0, 1)


@both
async def test_who_leaves_before_there_is_an_answer_is_told_of_too(way: str, tmp_path: Path) -> None:
    async with (
        witnessing(tmp_path, {"gateway": PRICED}, Plays(waiting=[SILENCE])) as listener,
        listener.begun(way) as event,
    ):
        await until(lambda: listener.provider.open_streams == 1)
        await event.leave()
        tolds = [await event.end()] if way == "socket" else []
        await until(lambda: listener.provider.open_streams == 0)
    assert_consistent(listener, *tolds)
    [row] = listener.rows.values()
    assert (row["status_code"], row["code"], row["cost"], row["first_answer"]) == (499, 9020, None, None)
    assert attempts_of(row) == [(0, "openai", None, 9020)]


async def test_a_client_written_for_cloudflare_is_told_the_same_in_words_that_it_knows(tmp_path: Path) -> None:
    async with witnessing(tmp_path, {"gateway": PRICED}, streams(ROLE, said("a"), RESET)) as listener:
        told = await listener.on_socket(ONE, f"{GATEWAY}?compat=cloudflare")
    [row] = assert_consistent(listener, told)
    assert (told.frames[-1]["type"], row["code"]) == ("universal.done", 9016)


# Several at once.


@pytest.mark.parametrize(("leads", "follows"), [(one, other) for one in WAYS for other in WAYS])
async def test_when_the_one_whose_call_it_is_leaves_another_has_the_answer_and_the_bill(
    leads: str, follows: str, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    play = streams(ROLE, said("a"), gate, said("b"), FINISH, USAGE, DONE)
    async with (
        witnessing(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, play) as listener,
        listener.begun(leads) as leader,
    ):
        await listener.reading(0, 2)
        async with listener.begun(follows) as follower:
            await until(lambda: listener.running == 2)
            await turns(100)
            await leader.leave()
            await until(lambda: listener.running == 1)
            gate.set()
            told = await follower.end()
        again = await ask(listener, follows)
        assert len(listener.provider.played) == 1
    follower_s, again_s = assert_consistent(listener, told, again)
    [leader_s] = [row for row in listener.rows.values() if row["code"] == 9020]
    assert (leader_s["success"], leader_s["cost"]) == (0, 0)
    assert (follower_s["success"], follower_s["cost"], follower_s["tokens_out"]) == (1, pytest.approx(USD), 2)
    assert (again_s["cached"], again_s["cost"]) == (1, 0)
    assert follower_s["response_head"] == again_s["response_head"]


@both
async def test_of_those_who_share_a_call_one_pays_and_all_are_told_when_it_breaks(way: str, tmp_path: Path) -> None:
    gate = asyncio.Event()
    play = streams(ROLE, USAGE, said("a"), gate, RESET)
    async with (
        witnessing(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, play) as listener,
        listener.begun(way) as one,
        listener.begun(way) as other,
    ):
        await listener.reading(0, 3)
        gate.set()
        tolds = [await one.end(), await other.end()]
    rows = assert_consistent(listener, *tolds)
    assert [row["code"] for row in rows] == [9016, 9016]
    assert sorted(row["cached"] for row in rows) == [0, 1]
    assert sorted(row["cost"] > 0 for row in rows) == [False, True]


@both
async def test_who_gets_no_turn_at_a_provider_has_failed_there(way: str, tmp_path: Path) -> None:
    gateway = PRICED + "max_concurrent_by_provider = { openai = 1 }\nmax_wait = 0"
    gate = asyncio.Event()
    play = Plays([gate, ANSWER], content_type=JSON)
    async with (
        witnessing(tmp_path, {"gateway": gateway}, play, answers(ANSWER)) as listener,
        listener.begun(way) as first,
    ):
        await until(lambda: listener.provider.open_streams == 1)
        tolds = [await ask(listener, way, asked) for asked in (ONE, [ONE, TWO])]
        gate.set()
        tolds.append(await first.end())
    refused, passed_over, answered = assert_consistent(listener, *tolds)
    assert (refused["code"], attempts_of(refused)) == (9005, [(0, "openai", None, 9005)])
    assert attempts_of(passed_over) == [(0, "openai", None, 9005), (1, "groq", 200, None)]
    assert (answered["success"], answered["cost"]) == (1, pytest.approx(USD))


# Keys, money, limits, tokens.


KEYED: Final = f"tokens = {{ ci = {digest('ci')} }}\n"
CI: Final = {"cf_aig_authorization": "ci"}
WITHOUT_KEY: Final = {"provider": "openai", "endpoint": "chat/completions", "query": {"model": "small"}}


def keys(folder: Path, **aliases: str) -> str:
    for alias, secret in aliases.items():
        (folder / alias).write_text(secret)
    return "keys.openai = {" + ", ".join(f'{alias} = "file:{alias}"' for alias in aliases) + "}\n"


@both
async def test_an_answer_belongs_to_the_stored_key_that_was_used(way: str, tmp_path: Path) -> None:
    gateway = KEYED + "cache_ttl = 60\n"
    async with witnessing(
        tmp_path,
        {"gateway": gateway + keys(tmp_path, default="stored-one", spare="stored-two")},
        *[answers(ANSWER)] * 3,
    ) as listener:
        spare = {**CI, "cf_aig_byok_alias": "spare"}
        tolds = [await ask(listener, way, WITHOUT_KEY, **headers) for headers in (CI, CI, spare, spare)]
        listener.reload(gateway=gateway + keys(tmp_path, default="stored-three"))
        tolds.append(await ask(listener, way, WITHOUT_KEY, **CI))
    rows = assert_consistent(listener, *tolds)
    told = [(row["cached"], row["byok"], row["token"]) for row in rows]
    assert told == [(0, "default", "ci"), (1, None, "ci"), (0, "spare", "ci"), (1, None, "ci"), (0, "default", "ci")]
    sent = [played.headers["authorization"] for played in listener.provider.played]
    assert sent == ["Bearer stored-one", "Bearer stored-two", "Bearer stored-three"]
    assert b"stored-" not in bytes_of_log(tmp_path)


@both
@pytest.mark.parametrize(
    ("plays", "step_s", "byok"),
    [
        ([answers(status=500), answers(ANSWER)], 1, None),
        ([answers(status=500), Plays(connecting=[REFUSED])], 0, "default"),
    ],
    ids=["the second", "the first"],
)
async def test_the_stored_key_in_the_row_is_that_of_the_step_that_answered(
    way: str, plays: list[Plays], step_s: int, byok: str | None, tmp_path: Path
) -> None:
    gateway = KEYED + keys(tmp_path, default="stored-one")
    async with witnessing(tmp_path, {"gateway": gateway}, *plays) as listener:
        told = await ask(listener, way, [WITHOUT_KEY, TWO], **CI)
    [row] = assert_consistent(listener, told)
    assert (row["step"], row["byok"]) == (step_s, byok)


async def test_of_a_restart_that_comes_to_nothing_the_broken_stream_is_told_with_its_key(tmp_path: Path) -> None:
    gateway = PRICED + KEYED + keys(tmp_path, default="stored-one")
    plays = [streams(ROLE, said("a"), RESET), answers(status=500)]
    async with witnessing(tmp_path, {"gateway": gateway}, *plays) as listener:
        told = await listener.on_socket([{**WITHOUT_KEY, "config": {"onBreak": "restart"}}, TWO], **CI)
    [row] = assert_consistent(listener, told)
    assert (row["step"], row["status_code"], row["code"], row["byok"]) == (0, 200, 500, "default")


SECRETS: Final = ("first-and-plain-7391", "second-and-plain-7392")


@both
async def test_what_a_provider_tells_back_of_a_key_is_nowhere_kept_whichever_step_answers(
    way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of these keys looks like one."""
    caplog.set_level(logging.DEBUG)
    first, second = (
        {**each, "headers": {"authorization": f"Bearer {key}"}} for each, key in zip((ONE, TWO), SECRETS, strict=True)
    )
    refusals = [answers(b'{"error":{"message":"%s?"}}' % key.encode(), status=401) for key in SECRETS]
    async with witnessing(tmp_path, {"gateway": ""}, *refusals, refusals[0], answers(ANSWER)) as listener:
        tolds = [await ask(listener, way, [first, second]) for _ in range(2)]
    refused, answered = assert_consistent(listener, *tolds)
    assert (refused["code"], answered["code"]) == (401, None)
    kept = bytes_of_log(tmp_path).decode(errors="replace") + caplog.text + str([vars(each) for each in caplog.records])
    kept += "".join(str(seen.span) for seen in (*listener.spans.values(), *listener.attempts()))
    assert not [secret for secret in SECRETS if secret in kept]
    assert refused["reason"].endswith("*?")


@both
async def test_who_has_no_money_left_gets_what_the_cache_has_and_nothing_else(
    way: str, tmp_path: Path, wall: Wall
) -> None:
    rule = "spend_limits.rules = [{ id = 'day', limitType = 'cost', limit = 0.02, window = 86400 }]"
    async with witnessing(tmp_path, {"gateway": PRICED + "cache_ttl = 60\n" + rule}, answers(ANSWER)) as listener:
        tolds = [await ask(listener, way, asked) for asked in (ONE, ONE, TWO, [TWO, ONE])]
    rows = assert_consistent(listener, *tolds)
    assert [(row["code"], row["cached"], row["cost"]) for row in rows] == [
        (None, 0, pytest.approx(USD)),
        (None, 1, 0),
        (2041, 0, None),
        (2041, 0, None),
    ]
    assert [attempts_of(row) for row in rows[2:]] == [[(0, "groq", None, 2041)]] * 2


@both
async def test_a_limit_that_a_reload_brings_refuses_an_event_that_is_logged_and_counted(
    way: str, tmp_path: Path, wall: Wall
) -> None:
    gateway = "cache_ttl = 60\n"
    async with witnessing(tmp_path, {"gateway": gateway}, answers(ANSWER)) as listener:
        tolds = [await ask(listener, way)]
        listener.reload(gateway=gateway + "rate_limiting_limit = 1\nrate_limiting_interval = 60")
        tolds += [await ask(listener, way) for _ in range(2)]
    rows = assert_consistent(listener, *tolds)
    assert [(row["code"], row["status_code"], row["cached"]) for row in rows] == [
        (None, 200, 0),
        (None, 200, 1),
        (2003, 429, 0),
    ]
    assert (rows[-1]["provider"], rows[-1]["model"], rows[-1]["attempts"]) == ("openai", "small", None)


@both
async def test_an_event_whose_token_is_revoked_has_its_row_and_its_span_like_any_other(
    way: str, tmp_path: Path
) -> None:
    tokens = f"tokens = {{ ci = {digest('ci')}, cd = {digest('cd')} }}\n"
    async with (
        witnessing(tmp_path, {"gateway": PRICED + tokens}, streams(ROLE, said("a"), SILENCE)) as listener,
        listener.begun(way, **CI) as event,
    ):
        await listener.reading(0, 2)
        listener.reload(gateway=PRICED + tokens.replace("ci =", "ce ="))
        told = await event.end()
    [row] = assert_consistent(listener, told)
    assert (row["status_code"], row["code"], row["token"], row["chunks"]) == (200, 2009, "ci", 2)
    assert row["cost_estimated"] == 1


# Refused.


FAULTS: Final = {"no provider": [{}], "an unknown one": step("nobody"), "a wrong setting": step(maxAttempts="many")}


@both
@pytest.mark.parametrize("fault", FAULTS)
async def test_of_an_event_that_is_refused_what_was_said_outside_of_it_holds(
    way: str, fault: str, tmp_path: Path
) -> None:
    said_outside = {"cf_aig_metadata": '{"team":"red"}', "cf_aig_otel_trace_id": "a" * 32}
    async with witnessing(tmp_path, {"gateway": ""}) as listener:
        told = await ask(listener, way, FAULTS[fault], **said_outside)
    [row] = assert_consistent(listener, told)
    assert (row["status_code"], row["metadata"], row["attempts"]) == (400, '{"team":"red"}', None)
    assert listener.spans[told.log_id].trace_id == "a" * 32
    async with witnessing(tmp_path, {"gateway": ""}) as listener:
        told = await ask(listener, way, FAULTS[fault], cf_aig_collect_log="false")
    assert told.log_id not in listener.rows


async def test_so_it_does_for_one_too_many_in_flight(tmp_path: Path) -> None:
    server = "max_in_flight = 1"
    async with (
        witnessing(tmp_path, {"gateway": PRICED}, streams(ROLE, SILENCE), server=server) as listener,
        connected(listener.server) as client,
    ):
        await client.create(step(), eventId="first")
        await listener.reading(0, 1)
        told = await listener.on(client, step(metadata={"team": "red"}))
        quiet = await listener.on(client, step(collectLog=False))
    assert listener.rows[told.log_id]["metadata"] == '{"team":"red"}'
    assert (listener.rows[told.log_id]["code"], quiet.code) == (9005, 9005)
    assert quiet.log_id not in listener.rows


# The end.


@both
async def test_a_bridge_that_drains_tells_of_all_that_it_served_and_of_what_it_declined(
    way: str, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    play = streams(ROLE, said("a"), gate, said("b"), FINISH, USAGE, DONE)
    async with (
        witnessing(
            tmp_path, {"gateway": PRICED}, play, streams(ROLE, said("a"), SILENCE), server="drain_timeout = 9000"
        ) as listener,
        listener.begun(way) as ends,
        listener.begun(way) as hangs,
    ):
        await listener.reading(1, 2)
        stopping = asyncio.create_task(listener.server.stop())
        await turns(100)
        gate.set()
        tolds = [await ends.end()]
        advance(9.1)
        tolds.append(await hangs.end())
        await stopping
    rows = assert_consistent(listener, *tolds)
    assert [(row["code"], row["status_code"]) for row in rows] == [(None, 200), (9022, 200)]


async def test_an_event_that_comes_while_the_bridge_drains_is_declined_and_has_its_row(tmp_path: Path) -> None:
    gate = asyncio.Event()
    play = streams(ROLE, gate, said("a"), FINISH, USAGE, DONE)
    async with (
        witnessing(tmp_path, {"gateway": PRICED}, play) as listener,
        connected(listener.server, headers={"cf-aig-metadata": '{"team":"red"}'}) as client,
    ):
        await client.create(step(), eventId="first")
        await listener.reading(0, 1)
        stopping = asyncio.create_task(listener.server.stop())
        await turns(100)
        late = await listener.on(client, step())
        gate.set()
        first = by_frames(await client.until_last("first"))
        await stopping
    told, served = assert_consistent(listener, late, first)
    assert (told["code"], told["status_code"], told["attempts"], told["metadata"]) == (
        9022,
        503,
        None,
        '{"team":"red"}',
    )
    assert (served["success"], served["metadata"]) == (1, '{"team":"red"}')
