"""The request log of a running bridge: the effect of each header and setting on the rows."""

import errno
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from bridge.config import ConfigError
from bridge.services.request_log.table import RequestTable
from tests.support.clock import until
from tests.support.event_harness import COMPLETE, DONE, FINISH, ROLE, USAGE, content, step
from tests.support.harness import Client, Frame, config_of, connected, running
from tests.support.log_rows import row as stored
from tests.support.provider_script import JSON, ScriptedProvider, ScriptedResponse, answers, streams
from tests.support.raw_http import GATEWAY, connect_http

Row = dict[str, Any]

ANSWER = b'{"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100}}'
MODEL = {"model": "gpt-4o-mini"}
LIMIT = '[gateways.gateway]\nspend_limits.rules = [{ id = "day", limitType = "cost", limit = 5.0, window = 86400 }]\n'
ON = '[server]\nlog_path = "log.db"\n'


def rows(folder: Path) -> list[Row]:
    """Return all rows in the order in which their events began."""
    with closing(sqlite3.connect(folder / "log.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM requests ORDER BY id")]


def bytes_of_log(folder: Path) -> bytes:
    """Return the bytes of all files of the log. SQLite may delete its journal at any time."""
    found = []
    for each in folder.glob("log.db*"):
        with suppress(FileNotFoundError):
            found.append(each.read_bytes())
    return b"".join(found)


@asynccontextmanager
async def logging_client(
    folder: Path, *plays: ScriptedResponse, config: str = ON, **handshake: Any
) -> AsyncIterator[Client]:
    async with (
        running(config_of(config, folder), ScriptedProvider(*plays)) as server,
        connected(server, **handshake) as client,
    ):
        yield client


async def one(folder: Path, play: ScriptedResponse, *, config: str = ON, handshake: Any = None, **request: Any) -> Row:
    """Run a bridge for one event and return its row."""
    async with logging_client(folder, play, config=config, headers=handshake or {}) as client:
        await client.call({"eventId": "e", **step("openai"), "query": MODEL, **request})
    (row,) = rows(folder)
    return row


def with_header(**headers: str) -> Frame:
    """Return a request's headers: the provider's key and these `cf-aig-` headers."""
    named = {f"cf-aig-{name.replace('_', '-')}": value for name, value in headers.items()}
    return {"headers": {"authorization": "Bearer none", **named}}


# Fields of a row


async def test_an_event_on_a_websocket_has_a_row(tmp_path: Path) -> None:
    async with logging_client(tmp_path, answers(ANSWER)) as client:
        (frame,) = await client.call({"eventId": 7, **step("openai"), "query": MODEL})
    (row,) = rows(tmp_path)
    assert row["id"] == frame["metadata"]["logId"]
    expected = {
        "account": "account",
        "gateway": "gateway",
        "request_type": "websocket",
        "event_id": "7",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "method": "POST",
        "path": "v1/chat/completions",
        "step": 0,
        "status_code": 200,
        "success": 1,
        "cached": 0,
        "tokens_in": 1000,
        "tokens_out": 100,
        "cost": frame["metadata"]["cost"],
        "cost_source": "prices",
        "custom_cost": 0,
        "code": None,
        "request_content_type": JSON,
        "request_head": '{"model":"gpt-4o-mini"}',
        "request_size": 23,
        "request_head_complete": 1,
        "response_content_type": JSON,
        "response_head": ANSWER.decode(),
        "response_size": len(ANSWER),
        "response_head_complete": 1,
    }
    assert {name: row[name] for name in expected} == expected
    assert 0 <= row["added"] <= row["first_answer"] <= row["duration"]


async def test_an_event_over_http_has_a_row(tmp_path: Path) -> None:
    body = orjson.dumps(MODEL)
    async with (
        running(config_of(ON, tmp_path), ScriptedProvider(answers(ANSWER))) as server,
        connect_http(server) as client,
    ):
        response = await client("POST", f"{GATEWAY}/openai/chat/completions", body, {"cf-aig-metadata": '{"a":1}'})
    (row,) = rows(tmp_path)
    assert (row["request_type"], row["path"], row["metadata"]) == ("http", "chat/completions", '{"a":1}')
    assert (row["request_head"], row["response_head"]) == (body.decode(), ANSWER.decode())
    assert response.headers["cf-aig-log-id"] == row["id"]


async def test_the_row_of_a_stream_has_its_chunks_its_tokens_and_its_body(tmp_path: Path) -> None:
    parts = (ROLE, content("Hel"), content("lo"), FINISH, USAGE, DONE)
    row = await one(tmp_path, streams(*parts))
    assert (row["tokens_in"], row["tokens_out"]) == (3, 2)
    assert row["chunks"] >= 4
    assert row["response_head"] == b"".join(parts).decode()
    assert row["response_content_type"] == "text/event-stream"


async def test_the_row_of_a_failure_has_its_code_its_reason_and_its_attempts(tmp_path: Path) -> None:
    async with logging_client(tmp_path, answers(b'{"error":{"message":"busy"}}', 503), answers(b"{}", 400)) as client:
        request = [{**step("openai"), "eventId": "e"}, step("anthropic")]
        await client.create(request)
        await client.until_last("e")
    (row,) = rows(tmp_path)
    attempts = orjson.loads(row["attempts"])
    assert (row["success"], row["status_code"], row["provider"], row["step"]) == (0, 400, "anthropic", 1)
    assert row["code"]
    assert row["reason"]
    assert row["cost"] is row["tokens_in"] is None
    assert [(each["provider"], each["status"]) for each in attempts] == [("openai", 503), ("anthropic", 400)]


async def test_a_refused_event_has_a_row(tmp_path: Path) -> None:
    row = await one(tmp_path, answers(), provider="nobody")
    assert (row["success"], row["provider"], row["code"]) == (0, None, 2008)


async def test_the_row_of_a_cached_answer_has_no_cost(tmp_path: Path) -> None:
    sent_request = {**step("openai", cacheTtl=60), "query": MODEL}
    async with logging_client(tmp_path, answers(ANSWER)) as client:
        await client.call({**sent_request, "eventId": "a"})
        await client.call({**sent_request, "eventId": "b"})
    miss, hit = rows(tmp_path)
    assert (miss["cached"], miss["tokens_in"], miss["cost_source"]) == (0, 1000, "prices")
    assert (hit["cached"], hit["tokens_in"], hit["cost"], hit["cost_source"]) == (1, 0, 0.0, "cache")
    assert hit["response_head"] == miss["response_head"]


# cf-aig-collect-log


@pytest.mark.parametrize(
    ("gateway", "handshake", "header", "kept"),
    [
        ("", None, None, True),
        ("", None, "false", False),
        ("", "false", None, False),
        ("", "false", "true", True),
        ("[gateways.gateway]\ncollect_log = false", None, None, False),
        ("[gateways.gateway]\ncollect_log = false", None, "true", True),
    ],
)
async def test_collect_log_switches_rows_on_and_off(
    tmp_path: Path, gateway: str, handshake: str | None, header: str | None, kept: bool
) -> None:
    opening = {"cf-aig-collect-log": handshake} if handshake else {}
    request = with_header(collect_log=header) if header else {}
    async with logging_client(tmp_path, answers(ANSWER), config=ON + gateway, headers=opening) as client:
        await client.call({"eventId": "e", **step("openai"), **request})
    assert len(rows(tmp_path)) == kept


LOCKED = "[gateways.gateway]\ncollect_log_locked = true\n"


@pytest.mark.parametrize(
    ("own", "sent_request", "expected"),
    [
        ("", {"collectLog": False}, (1, 1)),
        ("", {"collectLogPayload": False}, (1, 1)),
        ("collect_log_payload = false", {"collectLogPayload": True}, (1, 0)),
        ("collect_log = false", {"collectLog": True}, (0, 0)),
    ],
)
@pytest.mark.parametrize("way", ["config", "header", "handshake"])
async def test_clients_of_a_locked_gateway_cannot_change_what_is_logged(
    own: str, sent_request: dict[str, bool], expected: tuple[int, int], way: str, tmp_path: Path
) -> None:
    [(name, value)] = sent_request.items()
    header = {"collectLog": "cf-aig-collect-log", "collectLogPayload": "cf-aig-collect-log-payload"}[name]
    named = {header: str(value).lower()}
    handshake = named if way == "handshake" else {}
    request = {**step("openai", **(sent_request if way == "config" else {})), "query": MODEL}
    if way == "header":
        request["headers"] |= named
    async with logging_client(tmp_path, answers(ANSWER), config=ON + LOCKED + own, headers=handshake) as client:
        [frame] = await client.call({"eventId": "e", **request})
    kept = rows(tmp_path)
    assert (len(kept), sum(row["request_head"] is not None for row in kept)) == expected
    assert any("collectLog" in warning for warning in frame["metadata"]["warnings"])


async def test_an_event_for_which_no_provider_was_called_is_marked_as_refused(tmp_path: Path) -> None:
    async with logging_client(tmp_path, answers(ANSWER), answers(status=500)) as client:
        for number, provider in enumerate(["openai", "openai", "nobody-knows"]):
            await client.call({"eventId": number, **step(provider), "query": MODEL})
    assert [row["refused"] for row in rows(tmp_path)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("gateway", "header", "kept"),
    [
        ("", "true", True),
        ("", "false", False),
        ("[gateways.gateway]\ncollect_log_payload = false", None, False),
        ("[gateways.gateway]\ncollect_log_payload = false", "true", True),
    ],
)
async def test_collect_log_payload_switches_bodies_on_and_off(
    tmp_path: Path, gateway: str, header: str | None, kept: bool
) -> None:
    request = with_header(collect_log_payload=header) if header else {}
    row = await one(tmp_path, answers(ANSWER), config=ON + gateway, **request)
    assert (row["request_head"] is not None, row["response_head"] is not None) == (kept, kept)
    assert (row["request_head_complete"], row["response_size"]) == (int(kept), len(ANSWER))


# cf-aig-metadata


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ('{"team":"search","seat":7,"paid":true,"rate":0.5}', '{"team":"search","seat":7,"paid":true,"rate":0.5}'),
        ('{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}', '{"a":1,"b":2,"c":3,"d":4,"e":5}'),
        ('{"a":{"b":1},"c":null,"cf.user_id":"x","d":2}', '{"d":2}'),
        ("{}", None),
    ],
)
async def test_metadata_is_limited_to_five_entries(tmp_path: Path, headers: str, kept: str | None) -> None:
    assert (await one(tmp_path, answers(ANSWER), **with_header(metadata=headers)))["metadata"] == kept


async def test_the_metadata_of_the_gateway_applies_to_requests_without_metadata(tmp_path: Path) -> None:
    config = ON + '[gateways.gateway.metadata]\nteam = "all"'
    async with logging_client(tmp_path, answers(ANSWER), answers(ANSWER), config=config) as client:
        await client.call({"eventId": "a", **step("openai")})
        await client.call({"eventId": "b", **step("openai"), **with_header(metadata='{"team":"mine"}')})
    assert [row["metadata"] for row in rows(tmp_path)] == ['{"team":"all"}', '{"team":"mine"}']


async def test_long_metadata_is_cut_with_a_warning(tmp_path: Path) -> None:
    async with logging_client(tmp_path, answers(ANSWER)) as client:
        headers = with_header(metadata=orjson.dumps({"team": "x" * 5000}).decode())
        (frame,) = await client.call({"eventId": "e", **step("openai"), **headers})
    (row,) = rows(tmp_path)
    assert orjson.loads(row["metadata"]) == {"team": "x" * 1024}
    assert frame["metadata"]["warnings"] == orjson.loads(row["warnings"])


# Cost


@pytest.mark.parametrize(
    ("custom", "answer", "cost", "source"),
    [
        (None, ANSWER, 0.00021, "prices"),
        ('{"per_token_in":0.001,"per_token_out":0.002}', ANSWER, 1.2, "custom"),
        ('{"per_token_in":0.001,"per_token_out":0.002}', b"{}", None, None),
        ('{"total_cost":0.5}', b"{}", 0.5, "custom"),
        (None, ANSWER.replace(b"100}", b'100,"cost":0.25}'), 0.00021, "prices"),
        ('{"total_cost":0.5}', ANSWER.replace(b"100}", b'100,"cost":0.25}'), 0.5, "custom"),
        (None, b"{}", None, None),
    ],
)
async def test_the_cost_comes_from_the_client_or_the_price_list(
    tmp_path: Path, custom: str | None, answer: bytes, cost: float | None, source: str | None
) -> None:
    request = with_header(custom_cost=custom) if custom else {}
    async with logging_client(tmp_path, answers(answer)) as client:
        (frame,) = await client.call({"eventId": "e", **step("openai"), "query": MODEL, **request})
    (row,) = rows(tmp_path)
    assert (row["cost"], row["cost_source"], row["custom_cost"]) == (cost, source, int(source == "custom"))
    assert frame["metadata"].get("cost") == cost


async def test_the_cost_that_a_trusted_provider_reports_is_used(tmp_path: Path) -> None:
    answer = answers(ANSWER.replace(b"100}", b'100,"cost":0.001}'))
    async with logging_client(tmp_path, answer) as client:
        await client.call({"eventId": "e", **step("openrouter"), "query": MODEL})
    (row,) = rows(tmp_path)
    assert (row["cost"], row["cost_source"]) == (0.001, "provider")


async def test_a_custom_cost_of_the_gateway_applies_to_all_events(tmp_path: Path) -> None:
    config = ON + "[gateways.gateway.custom_cost]\nper_token_in = 0.0\nper_token_out = 0.0"
    row = await one(tmp_path, answers(ANSWER), config=config)
    assert (row["cost"], row["custom_cost"]) == (0.0, 1)


async def test_a_failed_event_has_no_cost_even_with_a_custom_cost(tmp_path: Path) -> None:
    row = await one(tmp_path, answers(b"{}", 500), **with_header(custom_cost='{"total_cost":0.5}'))
    assert (row["cost"], row["custom_cost"]) == (None, 0)


# Settings of the server


async def test_without_log_path_no_log_is_written(tmp_path: Path) -> None:
    async with logging_client(tmp_path, answers(ANSWER), config="") as client:
        await client.call({"eventId": "e", **step("openai")})
    assert not (tmp_path / "log.db").exists()


@pytest.mark.parametrize("limit", [0, 10, 100_000])
async def test_log_payload_bytes_bound_each_body(tmp_path: Path, limit: int) -> None:
    body = b'{"text":"%s"}' % (b"x" * 80_000)
    row = await one(tmp_path, answers(body), config=f"{ON}log_payload_bytes = {limit}")
    assert row["response_head"] == (body[:limit].decode() if limit else None)
    assert row["request_head"] == ('{"model":"gpt-4o-mini"}'[:limit] if limit else None)
    assert (row["response_size"], row["response_head_complete"]) == (len(body), int(limit > len(body)))


def damage(path: Path, data: bytes, *, after: int = 0) -> None:
    path.write_bytes((path.read_bytes()[:after] if after else b"") + data)


def set_aside(folder: Path) -> int:
    return len(list(folder.glob("log.db.damaged-*Z")))


async def test_the_bridge_starts_with_a_damaged_log(tmp_path: Path) -> None:
    damage(tmp_path / "log.db", bytes(range(256)) * 64)
    row = await one(tmp_path, answers(ANSWER), config=ON + LIMIT)
    assert row["status_code"] == 200
    assert set_aside(tmp_path) == 1


async def test_the_bridge_starts_with_a_log_that_is_damaged_where_budgets_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await one(tmp_path, answers(ANSWER))
    damage(tmp_path / "log.db", b"\xa5" * 200_000, after=16_384)
    async with logging_client(tmp_path, answers(ANSWER), config=ON + LIMIT) as client:
        (frame,) = await client.call({"eventId": "e", **step("openai"), "query": MODEL})
    assert frame["metadata"]["success"]
    assert [row["event_id"] for row in rows(tmp_path)] == ["e"]


async def test_the_bridge_starts_with_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bridge.services.request_log.writer.RETRY_S", 0.001)
    with monkeypatch.context() as disk:
        disk.setattr("bridge.services.sqlite.os.open", full)
        opening = logging_client(tmp_path, *[answers(ANSWER)] * 2, config=ON + LIMIT)
        client = await opening.__aenter__()
        (frame,) = await client.call({"eventId": "e", **step("openai"), "query": MODEL})
        assert frame["metadata"]["success"]
    await until(lambda: bytes_of_log(tmp_path).count(b"openai"))
    await opening.__aexit__(None, None, None)
    assert [row["event_id"] for row in rows(tmp_path)] == ["e"]
    assert [record.levelname for record in caplog.records if record.name == "bridge.requests"] == ["ERROR", "WARNING"]


async def test_rows_older_than_log_days_are_deleted(tmp_path: Path) -> None:
    await one(tmp_path, answers(ANSWER))
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("UPDATE requests SET id = '0180' || substr(id, 5)")  # it began in 2022
    async with logging_client(tmp_path, answers(ANSWER), config=f"{ON}log_days = 30") as client:
        await client.call({"eventId": "new", **step("openai")})
    assert [row["event_id"] for row in rows(tmp_path)] == ["new"]


@pytest.mark.parametrize(("strategy", "kept"), [("DELETE_OLDEST", {"a", "b"}), ("STOP_INSERTING", {"a"})])
async def test_log_management_limits_the_rows_of_a_gateway(tmp_path: Path, strategy: str, kept: set[str]) -> None:
    """The limit is the lowest that the setting allows; all rows but one exist before the bridge starts."""
    with closing(RequestTable(tmp_path / "log.db")) as log:
        log.append([stored(number) for number in range(9_999)], {})
    bound = f'log_days = 0\n[gateways.gateway]\nlog_management = 10_000\nlog_management_strategy = "{strategy}"'
    async with logging_client(tmp_path, *[answers(ANSWER)] * 2, config=ON + bound) as client:
        await client.call({"eventId": "a", **step("openai")})
        await client.call({"eventId": "b", **step("openai")})
    found = rows(tmp_path)
    assert len(found) == 10_000
    assert {row["event_id"] for row in found} - {stored().event_id} == kept


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_text("text, " * 100), "file is not a database"),
    ],
)
async def test_an_unusable_log_path_is_a_configuration_error(tmp_path: Path, make: Any, why: str) -> None:
    make(tmp_path / "log.db")
    with pytest.raises(ConfigError, match=f"log_path: .*{why}"):
        async with running(config_of(ON, tmp_path)):
            raise AssertionError("not reached")


# Secrets


async def test_the_log_holds_no_secret_of_an_event(tmp_path: Path) -> None:
    key = "wunderbar-7391-geheim"
    refusal = orjson.dumps({"error": {"message": f"there is no account for {key}"}})
    request = {
        "headers": {"authorization": f"Bearer {key}", "x-api-key": "zweiter-schluessel-42"},
        "endpoint": "v1/chat/completions?key=dritter-schluessel-43",
        "query": {**MODEL, "api_key": "vierter-schluessel-44"},
    }
    row = await one(tmp_path, answers(refusal, 401), **request)
    assert "there is no account for" in row["reason"]
    everything = bytes_of_log(tmp_path)
    for secret in (key, "zweiter-schluessel-42", "dritter-schluessel-43", "vierter-schluessel-44"):
        assert secret.encode() not in everything


async def test_the_log_keeps_the_first_bytes_of_a_stream(tmp_path: Path) -> None:
    row = await one(tmp_path, streams(*COMPLETE), config=f"{ON}log_payload_bytes = 40")
    assert row["response_head"] == b"".join(COMPLETE)[:40].decode()
    assert row["response_head_complete"] == 0
