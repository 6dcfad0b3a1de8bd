"""Settings over real sockets: each setting at each place where it can be written, and each header.

A case of `CASES` names a setting, two values of it, and a function that observes which value was in force. For each
place a test writes the value `one` at all weaker places and `other` at this place: the stronger place must win.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from bridge.docs import pages
from bridge.settings.step import SETTINGS, Setting
from tests.support.clock import advance, turns
from tests.support.event_harness import COMPLETE, ROLE, content
from tests.support.full_stack import GATEWAY, ClientEnd, FullStack, Row, by_frames, by_http_result, run_full_stack
from tests.support.harness import config_of, connected, running
from tests.support.otlp_receiver import ReceivedSpan
from tests.support.provider_script import RESET, SILENCE, ReceivedRequest, ScriptedResponse, answers, streams
from tests.support.raw_client import UPGRADE, connect_raw
from tests.support.raw_http import connect_http

TOKEN: Final = "a-token-of-tests"
TRACE, OTHER_TRACE, SPAN, OTHER_SPAN = "a" * 32, "b" * 32, "c" * 16, "d" * 16
CLOSED: Final = f"""
stored_key_access = "full"
tokens = {{ ci = "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}" }}
keys.openai = {{ default = "file:default", one = "file:one", other = "file:other" }}
"""
SOCKET, STEPS, PROVIDER = "socket", "steps over HTTP", "a provider's API over HTTP"
BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Observed:
    """Everything that can be observed of one event."""

    outcome: ClientEnd
    calls: list[ReceivedRequest]
    """Requests to providers that were made for the event."""
    row: Row | None
    span: ReceivedSpan


@dataclass(frozen=True)
class SettingCase:
    """The case of a setting: two values, of which `other` is not the default."""

    setting: str
    one: Any
    other: Any
    in_force: Callable[[Observed], object]
    """Return the value that was in force as far as it can be observed: `other` if and only if it was in force."""
    plays: tuple[ScriptedResponse, ...] = (answers(),)
    """Answers of the provider if `other` is in force."""
    gateway: str = ""
    """Other lines of the gateway's table."""
    steps: int = 1
    """Number of steps; with more than one the entry must accept a list."""
    events: int = 1
    """Number of equal events; the last one is observed."""
    interval_s: float = 0.0
    """Time between the events, in seconds."""
    after_another: bool = False
    """True if a different event with `other` is sent first."""
    pace_s: float = 0.0
    """Time that passes whenever the loop is idle, in seconds."""
    entries: tuple[str, ...] = (SOCKET, STEPS, PROVIDER)
    """Entries at which the setting can be written and has an effect."""

    def __str__(self) -> str:
        return self.setting

    def value(self, which: str) -> Any:
        return self.one if which == "one" else self.other


COUNTED: Final = (
    b'{"usage":{"prompt_tokens":1000,"completion_tokens":100,"prompt_tokens_details":{"cached_tokens":400}}}'
)
REFUSAL: Final = b'{"error":{"message":"no","code":"content_policy_violation"}}'


def limit_ms(observed: Observed) -> int | None:
    """Return the limit that the reason of the timeout names."""
    assert observed.row is not None
    found = re.search(r"(\d+) ms", observed.row["reason"] or "")
    return int(found[1]) if found else None


def pause_ms(observed: Observed, number: int = 1) -> float:
    """Return the pause between two requests to a provider."""
    before, after = observed.calls[number - 1 : number + 1]
    return (after.at - before.at) * 1000


def row_of(observed: Observed) -> Row:
    assert observed.row is not None
    return observed.row


CASES: Final = (
    SettingCase("connect_timeout", 40, 30, limit_ms, (ScriptedResponse(before_connect=[SILENCE]),)),
    SettingCase("request_timeout", 40, 30, limit_ms, (ScriptedResponse(before_head=[SILENCE]),)),
    SettingCase("idle_timeout", 40, 30, limit_ms, (streams(ROLE, content("a"), SILENCE),)),
    SettingCase(
        "total_timeout",
        60_000,
        30,
        lambda observed: 30 if row_of(observed)["code"] == 9015 else 60_000,
        (ScriptedResponse(before_head=[SILENCE]),),
        gateway="request_timeout = 1000",
    ),
    SettingCase(
        "max_attempts",
        2,
        3,
        lambda observed: len(observed.calls),
        (answers(status=500),) * 3,
        gateway="retry_delay = 0",
    ),
    SettingCase(
        "retry_delay",
        1000,
        4000,
        lambda observed: 4000 if pause_ms(observed) > 3000 else 1000,
        (answers(status=500), answers()),
        gateway="max_attempts = 2",
        pace_s=0.1,
    ),
    SettingCase(
        "backoff",
        "linear",
        "constant",
        lambda observed: "constant" if pause_ms(observed, 3) < 2000 else "linear",
        (answers(status=500),) * 4,
        gateway="max_attempts = 4\nretry_delay = 1000",
        pace_s=0.1,
    ),
    SettingCase(
        "max_retry_after",
        6000,
        4000,
        lambda observed: 4000 if len(observed.calls) == 1 else 6000,
        (answers(status=429, retry_after="5"),),
        gateway="max_attempts = 2",
    ),
    SettingCase(
        "on_break",
        "error",
        "restart",
        lambda observed: "restart" if observed.outcome.metadata.get("restarted") else "error",
        (streams(ROLE, content("a"), RESET), streams(*COMPLETE)),
        steps=2,
        entries=(SOCKET,),
    ),
    SettingCase(
        "on_policy",
        "answer",
        "next",
        lambda observed: "next" if observed.outcome.step == 1 else "answer",
        (answers(REFUSAL, status=400), answers()),
        steps=2,
        entries=(SOCKET, STEPS),
    ),
    SettingCase(
        "frames",
        "items",
        "raw",
        lambda observed: observed.outcome.frames[1].get("encoding") == "text" and "raw",
        (streams(*COMPLETE),),
        entries=(SOCKET,),
    ),
    SettingCase(
        "cache_ttl", 60, 120, lambda observed: 120 if observed.outcome.is_cached else 60, events=2, interval_s=90
    ),
    SettingCase(
        "skip_cache",
        False,
        True,
        lambda observed: not observed.outcome.is_cached,
        (answers(),) * 2,
        "cache_ttl = 60",
        events=2,
    ),
    SettingCase(
        "cache_key", "one", "other", lambda observed: observed.outcome.is_cached and "other", after_another=True
    ),
    SettingCase(
        "byok_alias",
        "one",
        "other",
        lambda observed: observed.calls[0].headers["authorization"].removeprefix("Bearer stored-key-"),
    ),
    SettingCase("collect_log", True, False, lambda observed: observed.row is not None),
    SettingCase("collect_log_payload", True, False, lambda observed: row_of(observed)["request_head"] is not None),
    SettingCase(
        "metadata", {"team": "one"}, {"team": "other"}, lambda observed: orjson.loads(row_of(observed)["metadata"])
    ),
    SettingCase(
        "custom_cost",
        {"total_cost": 1.0},
        {"total_cost": 2.0},
        lambda observed: {"total_cost": row_of(observed)["cost"]},
    ),
    SettingCase("otel_trace_id", TRACE, OTHER_TRACE, lambda observed: observed.span.trace_id),
    SettingCase("otel_parent_span_id", SPAN, OTHER_SPAN, lambda observed: observed.span.parent_id),
)


def test_every_setting_has_a_case() -> None:
    assert [case.setting for case in CASES] == [setting.name for setting in SETTINGS]


# Places, from the weakest to the strongest


IN_GATEWAY, OUTER = "the gateway", "the outer headers"
CHAIN_HEADERS, CHAIN_CONFIG = "the chain's headers", "the chain's config"
STEP_HEADERS, STEP_CONFIG = "the step's headers", "the step's config"
ENTRIES: Final = {
    SOCKET: (IN_GATEWAY, OUTER, CHAIN_HEADERS, CHAIN_CONFIG, STEP_HEADERS, STEP_CONFIG),
    STEPS: (IN_GATEWAY, OUTER, CHAIN_HEADERS, CHAIN_CONFIG, STEP_HEADERS, STEP_CONFIG),
    PROVIDER: (IN_GATEWAY, OUTER),
}
"""Places of each entry. The outer headers are those of the handshake or of the HTTP request."""

Placement = Mapping[str, str]
"""The value that is written at each place: `one` or `other`."""


def places_of(setting: Setting, entry: str) -> list[str]:
    """Return the places where the setting can be written."""
    without = {OUTER, CHAIN_HEADERS, STEP_HEADERS} if setting.header is None else set[str]()
    without |= set() if setting.of_gateway else {IN_GATEWAY}
    return [place for place in ENTRIES[entry] if place not in without]


def placements_at(places: list[str]) -> list[dict[str, str]]:
    """Return for each place: `other` at this place, and `one` at all weaker ones."""
    return [{**dict.fromkeys(places[:at], "one"), place: "other"} for at, place in enumerate(places)]


def as_header(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def as_toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {as_toml(each)}' for name, each in value.items())} }}"
    return orjson.dumps(value).decode()


@dataclass(frozen=True)
class SettingSender:
    """Sends events at one entry, with the setting of a case written at chosen places."""

    stack: FullStack
    case: SettingCase
    entry: str
    header: str | None
    """Name of the setting as a header."""

    async def send(self, model: str, placement: Placement) -> ClientEnd:
        """Send one event, whose requests to providers are recognised by their model."""
        path = f"/v1/account/{placement.get(IN_GATEWAY, 'bare')}"
        outer = {
            "cf-aig-authorization": f"Bearer {TOKEN}",
            "traceparent": f"00-{TRACE}-{SPAN}-01",
            **self._headers(OUTER, placement),
        }
        if self.entry == SOCKET:
            async with connected(self.stack.server, path, headers=outer) as client:
                await client.create(self._chain(model, placement), eventId=model)
                return by_frames(await client.until_last(model))
        async with connect_http(self.stack.server) as client:
            if self.entry == STEPS:
                return by_http_result(await client("POST", path, orjson.dumps(self._chain(model, placement)), outer))
            return by_http_result(await client("POST", f"{path}/openai/x", orjson.dumps({"model": model}), outer))

    def _chain(self, model: str, placement: Placement) -> dict[str, object]:
        steps = [{"provider": slug, "endpoint": "x", "query": {"model": model}} for slug in ("openai", "groq")]
        steps[0] |= self._level(STEP_HEADERS, STEP_CONFIG, placement)
        return {**self._level(CHAIN_HEADERS, CHAIN_CONFIG, placement), "steps": steps[: self.case.steps]}

    def _level(self, headers: str, config: str, placement: Placement) -> dict[str, Any]:
        values = {BY_NAME[self.case.setting].wire: self.case.value(placement[config])} if config in placement else {}
        return {"headers": self._headers(headers, placement), "config": values}

    def _headers(self, place: str, placement: Placement) -> dict[str, str]:
        return {self.header: as_header(self.case.value(placement[place]))} if place in placement and self.header else {}


@asynccontextmanager
async def running_with(
    folder: Path, case: SettingCase, entry: str, times: int, key: str = ""
) -> AsyncIterator[SettingSender]:
    """Run a bridge with a gateway `bare` of the setting, and gateways that set it to `one` or `other`.

    `key` is the name in the configuration, if it differs from the setting's.
    """
    for alias in ("default", "one", "other"):
        (folder / alias).write_text(f"stored-key-{alias}")
    setting = BY_NAME[case.setting]
    gateways = {"bare": CLOSED + case.gateway}
    if setting.of_gateway:
        lines = {name: f"{key or setting.name} = {as_toml(case.value(name))}\n" for name in ("one", "other")}
        gateways |= {name: line + gateways["bare"] for name, line in lines.items()}
    async with run_full_stack(folder, gateways, *case.plays * times) as stack:
        yield SettingSender(stack, case, entry, setting.header)


async def send_events(sender: SettingSender, model: str, placement: Placement) -> ClientEnd:
    """Send the event as often as the case requires, and return the last outcome."""
    case = sender.case
    if case.after_another:
        await sender.send(f"before {model}", {OUTER: "other"})
    passing = asyncio.create_task(pass_time(case.pace_s))
    try:
        outcome = await sender.send(model, placement)
        for _ in range(1, case.events):
            advance(case.interval_s)
            outcome = await sender.send(model, placement)
        return outcome
    finally:
        passing.cancel()


async def pass_time(pace_s: float) -> None:
    while pace_s:
        advance(pace_s)
        await turns(20)


def observed(stack: FullStack, outcome: ClientEnd, model: str) -> Observed:
    calls = [received for received in stack.provider.requests if orjson.loads(received.content)["model"] == model]
    return Observed(outcome, calls, stack.rows.get(outcome.log_id), stack.spans[outcome.log_id])


def check_no_gateway_header_was_sent(stack: FullStack) -> None:
    for received in stack.provider.requests:
        assert not [name for name in received.headers if name.startswith("cf-")]
        assert TOKEN not in str(received.headers.raw)


@pytest.mark.parametrize(
    ("case", "entry"), [(case, entry) for case in CASES for entry in ENTRIES if entry in case.entries], ids=str
)
async def test_a_setting_is_read_at_each_place_and_the_one_nearest_to_the_step_wins(
    case: SettingCase, entry: str, tmp_path: Path
) -> None:
    placements = placements_at(places_of(BY_NAME[case.setting], entry))
    async with running_with(tmp_path, case, entry, len(placements)) as sender:
        outcomes = [
            await send_events(sender, f"model {number}", placement) for number, placement in enumerate(placements)
        ]
    for number, (outcome, placement) in enumerate(zip(outcomes, placements, strict=True)):
        assert case.in_force(observed(sender.stack, outcome, f"model {number}")) == case.other, placement
    check_no_gateway_header_was_sent(sender.stack)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting.old_header], ids=lambda it: it.name)
async def test_the_old_name_of_a_header_is_read_at_the_same_places(
    setting: Setting, entry: str, tmp_path: Path
) -> None:
    [case] = [case for case in CASES if case.setting == setting.name]
    places = [place for place in places_of(setting, entry) if "headers" in place]
    async with running_with(tmp_path, case, entry, len(places)) as sender:
        old = replace(sender, header=setting.old_header)
        outcomes = [await send_events(old, f"model {number}", {place: "other"}) for number, place in enumerate(places)]
    for number, outcome in enumerate(outcomes):
        assert case.in_force(observed(sender.stack, outcome, f"model {number}")) == case.other, places[number]
    check_no_gateway_header_was_sent(sender.stack)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("alias", "setting"),
    [("retry_max_attempts", "max_attempts"), ("retry_backoff", "backoff"), ("collect_logs", "collect_log")],
)
async def test_a_gateway_accepts_settings_by_cloudflares_names(
    alias: str, setting: str, entry: str, tmp_path: Path
) -> None:
    [case] = [case for case in CASES if case.setting == setting]
    async with running_with(tmp_path, case, entry, 1, alias) as sender:
        outcome = await send_events(sender, "model", {IN_GATEWAY: "other"})
    assert case.in_force(observed(sender.stack, outcome, "model")) == case.other


# Headers that set nothing, and invalid values


WITHOUT_EFFECT: Final = {
    "cf-aig-dlp": "{}",
    "cf-aig-gateway-id": "another",
    "cf-aig-no-wholesale": "true",
    "cf-aig-run-id": "1",
    "cf-aig-zdr": "true",
}
"""Headers that have a meaning only for Cloudflare's service."""

HEADER_PLACES: Final = {
    "handshake": (SOCKET, OUTER),
    "step of a socket": (SOCKET, STEP_HEADERS),
    "request with steps": (STEPS, OUTER),
    "step of a request": (STEPS, STEP_HEADERS),
    "request of a provider's API": (PROVIDER, OUTER),
}
at_every_place = pytest.mark.parametrize("at", HEADER_PLACES)


async def send_with(stack: FullStack, at: str, headers: Mapping[str, str]) -> ClientEnd:
    """Send one event with these headers at this place."""
    entry, place = HEADER_PLACES[at]
    own, step_s = (headers, {}) if place == OUTER else ({}, headers)
    query = {"model": "gpt-4o-mini"}
    steps = [{"provider": "openai", "endpoint": "chat/completions", "headers": dict(step_s), "query": query}]
    if entry == SOCKET:
        return await stack.on_socket(steps, **own)
    if entry == STEPS:
        return await stack.over_http(steps, **own)
    return await stack.over_http(query, f"{GATEWAY}/openai/chat/completions", **own)


@at_every_place
async def test_headers_without_effect_are_accepted_and_change_nothing(at: str, tmp_path: Path) -> None:
    async with run_full_stack(tmp_path, {"gateway": "cache_ttl = 60"}, answers(COUNTED)) as stack:
        outcomes = [await send_with(stack, at, headers) for headers in ({}, WITHOUT_EFFECT)]
    assert [(outcome.status, outcome.is_cached) for outcome in outcomes] == [(200, False), (200, True)]
    assert [row["warnings"] for row in stack.rows.values()] == [None, None]
    async with run_full_stack(tmp_path, {"gateway": ""}, answers(COUNTED)) as stack:
        await send_with(stack, at, WITHOUT_EFFECT)
    check_no_gateway_header_was_sent(stack)


@at_every_place
async def test_an_unknown_header_only_adds_a_warning(at: str, tmp_path: Path) -> None:
    async with run_full_stack(tmp_path, {"gateway": ""}, answers(COUNTED)) as stack:
        assert (await send_with(stack, at, {"cf-aig-whatever-comes": "1"})).status == 200
    [row] = stack.rows.values()
    assert "cf-aig-whatever-comes" in str(row["warnings"])
    check_no_gateway_header_was_sent(stack)


@at_every_place
@pytest.mark.parametrize(
    ("header", "value", "nearest"),
    [
        ("cf-aig-max-attempts", "9", 5),
        ("cf-aig-max-attempts", "0", 1),
        ("cf-aig-retry-delay", "5001", 5000),
        ("cf-aig-cache-ttl", "59", 60),
        ("cf-aig-cache-ttl", "2592001", 2_592_000),
        ("cf-aig-metadata", '{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}', {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}),
    ],
)
async def test_a_value_out_of_range_is_replaced_by_the_nearest_one_with_a_warning(
    at: str, header: str, value: str, nearest: object, tmp_path: Path
) -> None:
    async with run_full_stack(tmp_path, {"gateway": ""}, answers(COUNTED)) as stack:
        outcome = await send_with(stack, at, {header: value})
    [warning] = orjson.loads(stack.rows[outcome.log_id]["warnings"])
    assert header in warning
    assert str(nearest) in warning
    assert outcome.http_result or outcome.metadata["warnings"] == [warning]


INVALID: Final = {
    "cf-aig-request-timeout": "soon",
    "cf-aig-max-attempts": "many",
    "cf-aig-retry-delay": "1.5",
    "cf-aig-backoff": "never",
    "cf-aig-cache-ttl": "long",
    "cf-aig-skip-cache": "perhaps",
    "cf-aig-cache-key": "",
    "cf-aig-byok-alias": "not one",
    "cf-aig-collect-log": "perhaps",
    "cf-aig-collect-log-payload": "perhaps",
    "cf-aig-metadata": "[]",
    "cf-aig-custom-cost": '{"per_token_in":1}',
    "cf-aig-otel-trace-id": "0" * 32,
    "cf-aig-otel-parent-span-id": "x" * 16,
}


def test_every_header_has_an_invalid_value_to_test() -> None:
    assert [setting.header for setting in SETTINGS if setting.header] == list(INVALID)


@pytest.mark.parametrize("at", [at for at in HEADER_PLACES if at != "handshake"])
@pytest.mark.parametrize("header", INVALID)
async def test_an_invalid_value_fails_the_event_with_9003_and_is_named(at: str, header: str, tmp_path: Path) -> None:
    async with run_full_stack(tmp_path, {"gateway": ""}) as stack:
        outcome = await send_with(stack, at, {header: INVALID[header]})
    assert (outcome.status, outcome.code) == (400, 9003)
    assert header in stack.rows[outcome.log_id]["reason"]


@pytest.mark.parametrize("header", INVALID)
async def test_an_invalid_value_in_a_handshake_refuses_the_handshake_with_9003(header: str, tmp_path: Path) -> None:
    async with running(config_of("", tmp_path)) as server, connect_raw(server) as client:
        answered = await client.request(GATEWAY, {**UPGRADE, header: INVALID[header]})
    assert (answered.status, answered.code) == (400, 9003)
    assert header.encode() in answered.body


LISTED_USD = 0.00018
"""Cost of `COUNTED` by the price list."""


@at_every_place
@pytest.mark.parametrize(
    ("rates", "usd"),
    [
        ({"per_token_in": 0.001, "per_token_out": 0.01}, 1.0 + 1.0),
        ({"per_token_in": 0.001, "per_token_out": 0.01, "per_cache_read_token": 0.0001}, 0.6 + 0.04 + 1.0),
        ({"total_cost": 0.25}, 0.25),
    ],
)
async def test_a_custom_cost_has_a_rate_of_its_own_for_tokens_from_the_providers_cache(
    at: str, rates: dict[str, float], usd: float, tmp_path: Path
) -> None:
    async with run_full_stack(tmp_path, {"gateway": ""}, answers(COUNTED)) as stack:
        outcome = await send_with(stack, at, {"cf-aig-custom-cost": as_header(rates)})
    row = stack.rows[outcome.log_id]
    assert (row["cost"], row["custom_cost"]) == (pytest.approx(usd), 1)
    assert outcome.http_result or outcome.metadata["cost"] == pytest.approx(usd)
    assert stack.spans[outcome.log_id].attributes["gen_ai.usage.cost"] == pytest.approx(LISTED_USD)


@pytest.mark.parametrize("entry", [SOCKET, STEPS])
async def test_the_authorization_member_of_a_step_is_sent_as_that_header(entry: str, tmp_path: Path) -> None:
    steps = [{"provider": "openai", "endpoint": "x", "authorization": "Bearer mine", "query": {}}]
    async with run_full_stack(tmp_path, {"gateway": ""}, answers()) as stack:
        await (stack.on_socket if entry == SOCKET else stack.over_http)(steps)
    assert stack.provider.requests[0].headers["authorization"] == "Bearer mine"


@pytest.mark.parametrize("entry", ENTRIES)
async def test_fal_is_called_at_the_url_in_its_header(entry: str, tmp_path: Path) -> None:
    headers = {"x-fal-target-url": "https://queue.fal.run/fal-ai/x"}
    async with run_full_stack(tmp_path, {"gateway": ""}, answers()) as stack:
        if entry == PROVIDER:
            await stack.over_http({}, f"{GATEWAY}/fal", **headers)
        else:
            ask = stack.on_socket if entry == SOCKET else stack.over_http
            await ask([{"provider": "fal", "endpoint": "", "headers": headers, "query": {}}])
    assert stack.provider.requests[0].url == "https://queue.fal.run/fal-ai/x"


def test_the_cloudflare_page_describes_every_header_and_no_other() -> None:
    table = pages.read("cloudflare").markdown.partition("| header | here |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    described = {name: meaning for names, meaning in rows for name in headers_in(names)}
    ignored = {name for name, meaning in described.items() if meaning.startswith("no effect")}
    unknown = {name for name, meaning in described.items() if meaning.startswith("ignored")}
    names = {name for setting in SETTINGS for name in (setting.header, setting.old_header) if name}
    assert described.keys() - ignored - unknown == {
        *names,
        "cf-aig-authorization",
        "cf-aig-event-id",
        "x-fal-target-url",
    }
    assert ignored <= {*WITHOUT_EFFECT}
    assert unknown == {"cf-aig-"}


def headers_in(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# Answers


UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize("at", ["request with steps", "request of a provider's API"])
@pytest.mark.parametrize("name", [None, "mine"])
async def test_the_headers_of_an_http_answer_describe_its_event(at: str, name: str | None, tmp_path: Path) -> None:
    async with run_full_stack(tmp_path, {"gateway": "cache_ttl = 60"}, answers(COUNTED)) as stack:
        named = {"cf-aig-event-id": name} if name else {}
        outcomes = [await send_with(stack, at, headers) for headers in (named, named, {"cf-aig-backoff": "never"})]
    for outcome, cached in zip(outcomes, ("MISS", "HIT", "MISS"), strict=True):
        assert outcome.http_result is not None
        own = {header: value for header, value in outcome.http_result.headers.items() if header.startswith("cf-")}
        row = stack.rows[outcome.log_id]
        assert UUID7.fullmatch(outcome.log_id)
        assert own == {
            "cf-aig-cache-status": cached,
            "cf-aig-event-id": row["event_id"],
            "cf-aig-log-id": outcome.log_id,
            "cf-aig-request-id": outcome.log_id,
            "cf-aig-step": "0",
        }
        assert row["event_id"] == ((outcome.status == 200 and name) or outcome.log_id)


OWN_ERRORS: Final = {
    2003: ("rate_limiting_limit = 1\nrate_limiting_interval = 60", "openai", 429),
    2008: ("", "nobody", 400),
    2040: (CLOSED, "openai", 400),
    2041: ("spend_limits.rules = [{ id = 'day', limitType = 'cost', limit = 0, window = 86400 }]", "openai", 429),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("code", OWN_ERRORS)
async def test_errors_of_the_bridge_have_cloudflares_codes_and_shape(code: int, entry: str, tmp_path: Path) -> None:
    """Clients read `error[0].code`, `name` or `internalCode`; SDKs read an `error` that is an object."""
    more, slug, status = OWN_ERRORS[code]
    for alias in ("default", "one", "other"):
        (tmp_path / alias).write_text(f"stored-key-{alias}")
    headers = {"cf-aig-authorization": TOKEN, "cf-aig-byok-alias": "nobody"} if code == 2040 else {}
    steps = [{"provider": slug, "endpoint": "x", "query": {}}]
    async with run_full_stack(tmp_path, {"gateway": more}, answers()) as stack:
        if code == 2003:
            await stack.on_socket(steps)
        if entry == PROVIDER:
            outcome = await stack.over_http({}, f"{GATEWAY}/{slug}/x", **headers)
        else:
            outcome = await (stack.on_socket if entry == SOCKET else stack.over_http)(steps, **headers)
    body = outcome.frames[-1]["response"] if outcome.http_result is None else orjson.loads(outcome.http_result.body)
    message = body["message"]
    assert message
    assert body == {
        "success": False,
        "result": [],
        "messages": [],
        "error": {"message": message, "type": "AiGatewayError", "code": code}
        if entry == PROVIDER
        else [{"code": code, "message": message}],
        "name": "AiGatewayError",
        "httpCode": status,
        "internalCode": code,
        "message": message,
    }
    assert (outcome.status, stack.rows[outcome.log_id]["code"]) == (status, code)
