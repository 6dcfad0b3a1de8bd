"""Events that several services handle: frames, log row, span and metrics agree."""

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
from tests.support.event_harness import DONE, FINISH, ROLE, USAGE, content, step
from tests.support.full_stack import GATEWAY, ClientEnd, FullStack, by_frames, run_full_stack
from tests.support.harness import Frame, connected
from tests.support.provider_script import JSON, REFUSED, RESET, SILENCE, ScriptedResponse, answers, refuses, streams
from tests.support.wall_clock import Wall

PRICED: Final = "custom_cost = { per_token_in = 0.001, per_token_out = 0.01 }\n"
USD: Final = 3 * 0.001 + 2 * 0.01
"""Cost of three input and two output tokens at these prices."""
ANSWER: Final = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
STREAM: Final = (ROLE, content("a"), content("b"), FINISH, USAGE, DONE)
ONE: Final = step()
TWO: Final = step("groq")

WAYS: Final = ("socket", "http")
both = pytest.mark.parametrize("way", WAYS)


def digest(token: str) -> str:
    return f'"sha256:{hashlib.sha256(token.encode()).hexdigest()}"'


async def ask(stack: FullStack, way: str, request: object = None, path: str = GATEWAY, **headers: str) -> ClientEnd:
    """Run one event and return its outcome."""
    return await (stack.on_socket if way == "socket" else stack.over_http)(request, path, **headers)


# Sequential events


@both
@pytest.mark.parametrize("play", [answers(ANSWER), streams(*STREAM)], ids=["whole", "stream"])
async def test_a_repeated_request_gets_the_cached_answer_at_no_cost(
    way: str, play: ScriptedResponse, tmp_path: Path
) -> None:
    async with run_full_stack(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, play) as stack:
        outcomes = [await ask(stack, way) for _ in range(2)]
    miss, hit = assert_consistent(stack, *outcomes)
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
async def test_the_cache_can_answer_a_fallback_step(way: str, tmp_path: Path) -> None:
    plays = [answers(ANSWER), answers(status=500)]
    async with run_full_stack(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, *plays) as stack:
        outcomes = [await ask(stack, way, request) for request in ([TWO], [ONE, TWO])]
    _, row = assert_consistent(stack, *outcomes)
    assert attempts_of(row) == [(0, "openai", 500, 500), (1, "groq", 200, None)]
    assert (row["step"], row["cached"], row["cost"], row["success"]) == (1, 1, 0, 1)


@both
async def test_a_retry_is_logged_as_an_attempt_of_the_same_event(way: str, tmp_path: Path) -> None:
    request = step(maxAttempts=2, retryDelay=0)
    async with run_full_stack(tmp_path, {"gateway": PRICED}, answers(status=503), streams(*STREAM)) as stack:
        outcome = await ask(stack, way, request)
    [row] = assert_consistent(stack, outcome)
    assert attempts_of(row) == [(0, "openai", 503, 503), (0, "openai", 200, None)]
    assert (row["success"], row["cost"], row["tokens_out"]) == (1, pytest.approx(USD), 2)


@both
async def test_if_all_steps_fail_the_last_answer_of_a_provider_is_reported_with_its_step(
    way: str, tmp_path: Path
) -> None:
    busy = answers(b'{"error":{"message":"busy"}}', status=503)
    async with run_full_stack(tmp_path, {"gateway": PRICED}, busy, refuses()) as stack:
        outcome = await ask(stack, way, [ONE, TWO])
    [row] = assert_consistent(stack, outcome)
    assert attempts_of(row) == [(0, "openai", 503, 503), (1, "groq", None, 9010)]
    assert (row["step"], row["provider"], row["status_code"], row["code"], row["cost"]) == (0, "openai", 503, 503, None)


@both
async def test_a_skipped_step_is_logged_as_an_attempt(way: str, tmp_path: Path) -> None:
    plays = [*[answers(status=500)] * 5, answers(ANSWER)]
    async with run_full_stack(tmp_path, {"gateway": PRICED}, *plays) as stack:
        outcomes = [await ask(stack, way, request) for request in (*[ONE] * 5, [ONE, TWO])]
    row = assert_consistent(stack, *outcomes)[-1]
    assert attempts_of(row) == [(0, "openai", None, 9023), (1, "groq", 200, None)]
    assert (row["step"], row["success"]) == (1, 1)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/octet-stream", bytes(9 << 20)), ("application/json", b'{"data":"%s"}' % (b"x" * (9 << 20)))],
    ids=["file", "JSON"],
)
async def test_the_cost_of_an_answer_that_is_too_long_to_buffer_is_not_estimated(
    content_type: str, body: bytes, tmp_path: Path
) -> None:
    """Over HTTP such an answer is passed on as it arrives, and its text is not counted as output of a model."""
    async with run_full_stack(
        tmp_path, {"gateway": PRICED}, ScriptedResponse([body], content_type=content_type)
    ) as stack:
        outcome = await stack.over_http([ONE])
    [row] = assert_consistent(stack, outcome)
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
"""Fields of Cloudflare's log records, without `model_type`."""


@pytest.mark.parametrize(
    ("way", "path", "request_"),
    [("socket", "", ONE), ("http", "", ONE), ("http", "/openai/v1/chat/completions", ONE["query"])],
    ids=["socket", "steps", "a provider's API"],
)
async def test_a_row_has_every_field_of_cloudflares_logs(way: str, path: str, request_: Frame, tmp_path: Path) -> None:
    headers = {"cf_aig_metadata": '{"team":"red"}', "content_type": JSON}
    async with run_full_stack(tmp_path, {"gateway": PRICED}, answers(ANSWER)) as stack:
        before_ms = time.time() * 1000
        outcome = await ask(stack, way, request_, GATEWAY + path, **headers)
    [row] = assert_consistent(stack, outcome)
    assert [name for name in CLOUDFLARES if row.get(name) is None] == []
    assert before_ms - 1 <= row["created_at"] <= time.time() * 1000
    assert row["request_type"] == {"socket": "websocket"}.get(way, way)
    assert (row["model"], row["custom_cost"], row["metadata"]) == ("small", 1, '{"team":"red"}')
    assert row["path"] == ONE["endpoint"]


# Broken streams and clients that disconnect


@both
async def test_a_broken_stream_is_logged_with_its_first_status(way: str, tmp_path: Path) -> None:
    async with run_full_stack(tmp_path, {"gateway": PRICED}, streams(ROLE, content("a"), RESET)) as stack:
        outcome = await ask(stack, way, [ONE, TWO])
    [row] = assert_consistent(stack, outcome)
    assert (row["status_code"], row["code"], row["success"], row["chunks"]) == (200, 9016, 0, 2)
    assert (row["cost_estimated"], row["tokens_out"]) == (1, None)
    assert row["cost"] > 0


@both
async def test_a_broken_stream_is_not_cached(way: str, tmp_path: Path) -> None:
    plays = [streams(ROLE, content("a"), RESET), streams(*STREAM)]
    async with run_full_stack(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, *plays) as stack:
        outcomes = [await ask(stack, way) for _ in range(3)]
    rows = assert_consistent(stack, *outcomes)
    assert [(row["code"], row["cached"]) for row in rows] == [(9016, 0), (None, 0), (None, 1)]


async def test_a_restarted_event_has_one_row_with_the_cost_of_all_its_streams(tmp_path: Path) -> None:
    request = [step(onBreak="restart"), TWO]
    plays = [streams(ROLE, content("x"), RESET), streams(*STREAM)]
    async with run_full_stack(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, *plays) as stack:
        outcomes = [await stack.on_socket(each) for each in (request, TWO)]
    first, again = assert_consistent(stack, *outcomes)
    assert attempts_of(first) == [(0, "openai", 200, 9016), (1, "groq", 200, None)]
    lost_usd = len(orjson.dumps(ONE["query"])) // 4 * 0.001 + 2 * 0.01
    assert (first["step"], first["success"], first["chunks"]) == (1, 1, 7)
    assert (first["cost"], first["cost_estimated"]) == (pytest.approx(lost_usd + USD), 1)
    assert first["response_head"] == b"".join(STREAM).decode()
    assert (again["cached"], again["cost"]) == (1, 0)


@both
async def test_a_client_that_disconnects_during_a_stream_is_logged_with_9020(way: str, tmp_path: Path) -> None:
    play = streams(ROLE, content("a"), SILENCE)
    async with (
        run_full_stack(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, play) as stack,
        stack.started(way) as event,
    ):
        await stack.wait_for_reads(0, 2)
        await event.cancel()
        outcomes = [await event.end()] if way == "socket" else []
        await until(lambda: stack.provider.open_streams == 0)
    assert_consistent(stack, *outcomes)
    [row] = stack.rows.values()
    assert (row["status_code"], row["code"], row["success"], row["chunks"]) == (200, 9020, 0, 2)
    assert (row["cached"], row["cost_estimated"]) == (0, 1)


@both
async def test_a_client_that_disconnects_before_an_answer_is_logged_with_9020(way: str, tmp_path: Path) -> None:
    async with (
        run_full_stack(tmp_path, {"gateway": PRICED}, ScriptedResponse(before_head=[SILENCE])) as stack,
        stack.started(way) as event,
    ):
        await until(lambda: stack.provider.open_streams == 1)
        await event.cancel()
        outcomes = [await event.end()] if way == "socket" else []
        await until(lambda: stack.provider.open_streams == 0)
    assert_consistent(stack, *outcomes)
    [row] = stack.rows.values()
    assert (row["status_code"], row["code"], row["cost"], row["first_answer"]) == (499, 9020, None, None)
    assert attempts_of(row) == [(0, "openai", None, 9020)]


async def test_with_compat_cloudflare_a_broken_stream_ends_with_done(tmp_path: Path) -> None:
    async with run_full_stack(tmp_path, {"gateway": PRICED}, streams(ROLE, content("a"), RESET)) as stack:
        outcome = await stack.on_socket(ONE, f"{GATEWAY}?compat=cloudflare")
    [row] = assert_consistent(stack, outcome)
    assert (outcome.frames[-1]["type"], row["code"]) == ("universal.done", 9016)


# Concurrent events


@pytest.mark.parametrize(("leads", "follows"), [(one, other) for one in WAYS for other in WAYS])
async def test_if_the_leader_of_a_shared_call_disconnects_a_follower_gets_the_answer_and_the_cost(
    leads: str, follows: str, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    play = streams(ROLE, content("a"), gate, content("b"), FINISH, USAGE, DONE)
    async with (
        run_full_stack(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, play) as stack,
        stack.started(leads) as leader,
    ):
        await stack.wait_for_reads(0, 2)
        async with stack.started(follows) as follower:
            await until(lambda: stack.running == 2)
            await turns(100)
            await leader.cancel()
            await until(lambda: stack.running == 1)
            gate.set()
            outcome = await follower.end()
        again = await ask(stack, follows)
        assert len(stack.provider.requests) == 1
    follower_s, again_s = assert_consistent(stack, outcome, again)
    [leader_s] = [row for row in stack.rows.values() if row["code"] == 9020]
    assert (leader_s["success"], leader_s["cost"]) == (0, 0)
    assert (follower_s["success"], follower_s["cost"], follower_s["tokens_out"]) == (1, pytest.approx(USD), 2)
    assert (again_s["cached"], again_s["cost"]) == (1, 0)
    assert follower_s["response_head"] == again_s["response_head"]


@both
async def test_if_a_shared_call_breaks_every_event_fails_and_one_is_charged(way: str, tmp_path: Path) -> None:
    gate = asyncio.Event()
    play = streams(ROLE, USAGE, content("a"), gate, RESET)
    async with (
        run_full_stack(tmp_path, {"gateway": PRICED + "cache_ttl = 60"}, play) as stack,
        stack.started(way) as one,
        stack.started(way) as other,
    ):
        await stack.wait_for_reads(0, 3)
        gate.set()
        outcomes = [await one.end(), await other.end()]
    rows = assert_consistent(stack, *outcomes)
    assert [row["code"] for row in rows] == [9016, 9016]
    assert sorted(row["cached"] for row in rows) == [0, 1]
    assert sorted(row["cost"] > 0 for row in rows) == [False, True]


@both
async def test_a_step_without_a_free_slot_at_its_provider_fails_with_9005(way: str, tmp_path: Path) -> None:
    gateway = PRICED + "max_concurrent_by_provider = { openai = 1 }\nmax_wait = 0"
    gate = asyncio.Event()
    play = ScriptedResponse([gate, ANSWER], content_type=JSON)
    async with (
        run_full_stack(tmp_path, {"gateway": gateway}, play, answers(ANSWER)) as stack,
        stack.started(way) as first,
    ):
        await until(lambda: stack.provider.open_streams == 1)
        outcomes = [await ask(stack, way, request) for request in (ONE, [ONE, TWO])]
        gate.set()
        outcomes.append(await first.end())
    refused, passed_over, answered = assert_consistent(stack, *outcomes)
    assert (refused["code"], attempts_of(refused)) == (9005, [(0, "openai", None, 9005)])
    assert attempts_of(passed_over) == [(0, "openai", None, 9005), (1, "groq", 200, None)]
    assert (answered["success"], answered["cost"]) == (1, pytest.approx(USD))


# Keys, spend limits, rate limits and tokens


KEYED: Final = f"tokens = {{ ci = {digest('ci')} }}\n"
CI: Final = {"cf_aig_authorization": "ci"}
WITHOUT_KEY: Final = {"provider": "openai", "endpoint": "chat/completions", "query": {"model": "small"}}


def keys(folder: Path, **aliases: str) -> str:
    for alias, secret in aliases.items():
        (folder / alias).write_text(secret)
    return "keys.openai = {" + ", ".join(f'{alias} = "file:{alias}"' for alias in aliases) + "}\n"


@both
async def test_cached_answers_are_separate_for_each_stored_key(way: str, tmp_path: Path) -> None:
    gateway = KEYED + "cache_ttl = 60\n"
    async with run_full_stack(
        tmp_path,
        {"gateway": gateway + keys(tmp_path, default="stored-one", spare="stored-two")},
        *[answers(ANSWER)] * 3,
    ) as stack:
        spare = {**CI, "cf_aig_byok_alias": "spare"}
        outcomes = [await ask(stack, way, WITHOUT_KEY, **headers) for headers in (CI, CI, spare, spare)]
        stack.reload(gateway=gateway + keys(tmp_path, default="stored-three"))
        outcomes.append(await ask(stack, way, WITHOUT_KEY, **CI))
    rows = assert_consistent(stack, *outcomes)
    outcome = [(row["cached"], row["byok"], row["token"]) for row in rows]
    assert outcome == [(0, "default", "ci"), (1, None, "ci"), (0, "spare", "ci"), (1, None, "ci"), (0, "default", "ci")]
    sent = [received.headers["authorization"] for received in stack.provider.requests]
    assert sent == ["Bearer stored-one", "Bearer stored-two", "Bearer stored-three"]
    assert b"stored-" not in bytes_of_log(tmp_path)


@both
@pytest.mark.parametrize(
    ("plays", "step_s", "byok"),
    [
        ([answers(status=500), answers(ANSWER)], 1, None),
        ([answers(status=500), ScriptedResponse(before_connect=[REFUSED])], 0, "default"),
    ],
    ids=["the second", "the first"],
)
async def test_the_row_names_the_stored_key_of_the_step_that_answered(
    way: str, plays: list[ScriptedResponse], step_s: int, byok: str | None, tmp_path: Path
) -> None:
    gateway = KEYED + keys(tmp_path, default="stored-one")
    async with run_full_stack(tmp_path, {"gateway": gateway}, *plays) as stack:
        outcome = await ask(stack, way, [WITHOUT_KEY, TWO], **CI)
    [row] = assert_consistent(stack, outcome)
    assert (row["step"], row["byok"]) == (step_s, byok)


async def test_if_a_restart_fails_the_row_is_that_of_the_broken_stream_and_its_key(tmp_path: Path) -> None:
    gateway = PRICED + KEYED + keys(tmp_path, default="stored-one")
    plays = [streams(ROLE, content("a"), RESET), answers(status=500)]
    async with run_full_stack(tmp_path, {"gateway": gateway}, *plays) as stack:
        outcome = await stack.on_socket([{**WITHOUT_KEY, "config": {"onBreak": "restart"}}, TWO], **CI)
    [row] = assert_consistent(stack, outcome)
    assert (row["step"], row["status_code"], row["code"], row["byok"]) == (0, 200, 500, "default")


SECRETS: Final = ("first-and-plain-7391", "second-and-plain-7392")


@both
async def test_a_key_that_a_provider_echoes_is_not_stored_whichever_step_answers(
    way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The secrets do not have the form of a key."""
    caplog.set_level(logging.DEBUG)
    first, second = (
        {**each, "headers": {"authorization": f"Bearer {key}"}} for each, key in zip((ONE, TWO), SECRETS, strict=True)
    )
    refusals = [answers(b'{"error":{"message":"%s?"}}' % key.encode(), status=401) for key in SECRETS]
    async with run_full_stack(tmp_path, {"gateway": ""}, *refusals, refusals[0], answers(ANSWER)) as stack:
        outcomes = [await ask(stack, way, [first, second]) for _ in range(2)]
    refused, answered = assert_consistent(stack, *outcomes)
    assert (refused["code"], answered["code"]) == (401, None)
    kept = bytes_of_log(tmp_path).decode(errors="replace") + caplog.text + str([vars(each) for each in caplog.records])
    kept += "".join(str(seen.span) for seen in (*stack.spans.values(), *stack.attempts()))
    assert not [secret for secret in SECRETS if secret in kept]
    assert refused["reason"].endswith("*?")


@both
async def test_beyond_a_spend_limit_only_cached_answers_are_served(way: str, tmp_path: Path, wall: Wall) -> None:
    rule = "spend_limits.rules = [{ id = 'day', limitType = 'cost', limit = 0.02, window = 86400 }]"
    async with run_full_stack(tmp_path, {"gateway": PRICED + "cache_ttl = 60\n" + rule}, answers(ANSWER)) as stack:
        outcomes = [await ask(stack, way, request) for request in (ONE, ONE, TWO, [TWO, ONE])]
    rows = assert_consistent(stack, *outcomes)
    assert [(row["code"], row["cached"], row["cost"]) for row in rows] == [
        (None, 0, pytest.approx(USD)),
        (None, 1, 0),
        (2041, 0, None),
        (2041, 0, None),
    ]
    assert [attempts_of(row) for row in rows[2:]] == [[(0, "groq", None, 2041)]] * 2


@both
async def test_an_event_beyond_a_limit_added_by_a_reload_is_refused_and_logged(
    way: str, tmp_path: Path, wall: Wall
) -> None:
    gateway = "cache_ttl = 60\n"
    async with run_full_stack(tmp_path, {"gateway": gateway}, answers(ANSWER)) as stack:
        outcomes = [await ask(stack, way)]
        stack.reload(gateway=gateway + "rate_limiting_limit = 1\nrate_limiting_interval = 60")
        outcomes += [await ask(stack, way) for _ in range(2)]
    rows = assert_consistent(stack, *outcomes)
    assert [(row["code"], row["status_code"], row["cached"]) for row in rows] == [
        (None, 200, 0),
        (None, 200, 1),
        (2003, 429, 0),
    ]
    assert (rows[-1]["provider"], rows[-1]["model"], rows[-1]["attempts"]) == ("openai", "small", None)


@both
async def test_an_event_whose_token_is_revoked_has_a_row_and_a_span(way: str, tmp_path: Path) -> None:
    tokens = f"tokens = {{ ci = {digest('ci')}, cd = {digest('cd')} }}\n"
    async with (
        run_full_stack(tmp_path, {"gateway": PRICED + tokens}, streams(ROLE, content("a"), SILENCE)) as stack,
        stack.started(way, **CI) as event,
    ):
        await stack.wait_for_reads(0, 2)
        stack.reload(gateway=PRICED + tokens.replace("ci =", "ce ="))
        outcome = await event.end()
    [row] = assert_consistent(stack, outcome)
    assert (row["status_code"], row["code"], row["token"], row["chunks"]) == (200, 2009, "ci", 2)
    assert row["cost_estimated"] == 1


# Refused events


FAULTS: Final = {"no provider": [{}], "an unknown one": step("nobody"), "a wrong setting": step(maxAttempts="many")}


@both
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_outer_headers_apply_to_a_refused_event(way: str, fault: str, tmp_path: Path) -> None:
    outer_headers = {"cf_aig_metadata": '{"team":"red"}', "cf_aig_otel_trace_id": "a" * 32}
    async with run_full_stack(tmp_path, {"gateway": ""}) as stack:
        outcome = await ask(stack, way, FAULTS[fault], **outer_headers)
    [row] = assert_consistent(stack, outcome)
    assert (row["status_code"], row["metadata"], row["attempts"]) == (400, '{"team":"red"}', None)
    assert stack.spans[outcome.log_id].trace_id == "a" * 32
    async with run_full_stack(tmp_path, {"gateway": ""}) as stack:
        outcome = await ask(stack, way, FAULTS[fault], cf_aig_collect_log="false")
    assert outcome.log_id not in stack.rows


async def test_the_settings_of_an_event_beyond_the_limit_of_events_apply_to_its_row(tmp_path: Path) -> None:
    server = "max_in_flight = 1"
    async with (
        run_full_stack(tmp_path, {"gateway": PRICED}, streams(ROLE, SILENCE), server=server) as stack,
        connected(stack.server) as client,
    ):
        await client.create(step(), eventId="first")
        await stack.wait_for_reads(0, 1)
        outcome = await stack.on(client, step(metadata={"team": "red"}))
        quiet = await stack.on(client, step(collectLog=False))
    assert stack.rows[outcome.log_id]["metadata"] == '{"team":"red"}'
    assert (stack.rows[outcome.log_id]["code"], quiet.code) == (9005, 9005)
    assert quiet.log_id not in stack.rows


# Draining


@both
async def test_events_that_end_during_a_drain_have_rows(way: str, tmp_path: Path) -> None:
    gate = asyncio.Event()
    play = streams(ROLE, content("a"), gate, content("b"), FINISH, USAGE, DONE)
    async with (
        run_full_stack(
            tmp_path, {"gateway": PRICED}, play, streams(ROLE, content("a"), SILENCE), server="drain_timeout = 9000"
        ) as stack,
        stack.started(way) as ends,
        stack.started(way) as hangs,
    ):
        await stack.wait_for_reads(1, 2)
        stopping = asyncio.create_task(stack.server.stop())
        await turns(100)
        gate.set()
        outcomes = [await ends.end()]
        advance(9.1)
        outcomes.append(await hangs.end())
        await stopping
    rows = assert_consistent(stack, *outcomes)
    assert [(row["code"], row["status_code"]) for row in rows] == [(None, 200), (9022, 200)]


async def test_an_event_that_arrives_during_a_drain_is_refused_and_has_a_row(tmp_path: Path) -> None:
    gate = asyncio.Event()
    play = streams(ROLE, gate, content("a"), FINISH, USAGE, DONE)
    async with (
        run_full_stack(tmp_path, {"gateway": PRICED}, play) as stack,
        connected(stack.server, headers={"cf-aig-metadata": '{"team":"red"}'}) as client,
    ):
        await client.create(step(), eventId="first")
        await stack.wait_for_reads(0, 1)
        stopping = asyncio.create_task(stack.server.stop())
        await turns(100)
        late = await stack.on(client, step())
        gate.set()
        first = by_frames(await client.until_last("first"))
        await stopping
    declined, served = assert_consistent(stack, late, first)
    assert (declined["code"], declined["status_code"], declined["attempts"], declined["metadata"]) == (
        9022,
        503,
        None,
        '{"team":"red"}',
    )
    assert (served["success"], served["metadata"]) == (1, '{"team":"red"}')
