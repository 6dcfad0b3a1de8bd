"""The gateway's vocabulary over real sockets: each setting at each place where it may be written, and each header.

A row of `ROWS` names a setting, two values of it, and what shows which of them was in force. Of each place a test
writes the one value everywhere below it and the other value there: what is nearer to the request must win.
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
from tests.support.event_harness import ROLE, WHOLE, said
from tests.support.full_stack import GATEWAY, ClientEnd, FullStack, Row, by_answer, by_frames, witnessing
from tests.support.harness import config_of, connected, running
from tests.support.otlp_receiver import Seen
from tests.support.provider_script import RESET, SILENCE, Played, Plays, answers, streams
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
class Shown:
    """All that there is to see of one event."""

    told: ClientEnd
    calls: list[Played]
    """Those of a provider that were made for it."""
    row: Row | None
    span: Seen


@dataclass(frozen=True)
class Level:
    """A setting's row: two values, of which `other` is not the default."""

    setting: str
    one: Any
    other: Any
    shows: Callable[[Shown], object]
    """The value that was in force, as far as that can be seen: of these two, `other` if and only if it was."""
    plays: tuple[Plays, ...] = (answers(),)
    """Of the provider, where `other` is in force."""
    gateway: str = ""
    """More of the gateway's table."""
    steps: int = 1
    """With more than one there has to be a list of them."""
    asks: int = 1
    """How often, where the last time shows it."""
    apart_s: float = 0.0
    """How much time lies between them."""
    primed: bool = False
    """Before it another question is asked, with `other`."""
    pace_s: float = 0.0
    """So much time passes whenever nothing else happens."""
    only: tuple[str, ...] = (SOCKET, STEPS, PROVIDER)
    """The doors at which it can be written, and means anything."""

    def __str__(self) -> str:
        return self.setting

    def value(self, which: str) -> Any:
        return self.one if which == "one" else self.other


COUNTED: Final = (
    b'{"usage":{"prompt_tokens":1000,"completion_tokens":100,"prompt_tokens_details":{"cached_tokens":400}}}'
)
REFUSAL: Final = b'{"error":{"message":"no","code":"content_policy_violation"}}'


def limit_ms(shown: Shown) -> int | None:
    """The time that was over, as the reason tells it."""
    assert shown.row is not None
    found = re.search(r"(\d+) ms", shown.row["reason"] or "")
    return int(found[1]) if found else None


def pause_ms(shown: Shown, number: int = 1) -> float:
    """Between two calls of a provider."""
    before, after = shown.calls[number - 1 : number + 1]
    return (after.at - before.at) * 1000


def row_of(shown: Shown) -> Row:
    assert shown.row is not None
    return shown.row


ROWS: Final = (
    Level("connect_timeout", 40, 30, limit_ms, (Plays(connecting=[SILENCE]),)),
    Level("request_timeout", 40, 30, limit_ms, (Plays(waiting=[SILENCE]),)),
    Level("idle_timeout", 40, 30, limit_ms, (streams(ROLE, said("a"), SILENCE),)),
    Level(
        "total_timeout",
        60_000,
        30,
        lambda shown: 30 if row_of(shown)["code"] == 9015 else 60_000,
        (Plays(waiting=[SILENCE]),),
        gateway="request_timeout = 1000",
    ),
    Level("max_attempts", 2, 3, lambda shown: len(shown.calls), (answers(status=500),) * 3, gateway="retry_delay = 0"),
    Level(
        "retry_delay",
        1000,
        4000,
        lambda shown: 4000 if pause_ms(shown) > 3000 else 1000,
        (answers(status=500), answers()),
        gateway="max_attempts = 2",
        pace_s=0.1,
    ),
    Level(
        "backoff",
        "linear",
        "constant",
        lambda shown: "constant" if pause_ms(shown, 3) < 2000 else "linear",
        (answers(status=500),) * 4,
        gateway="max_attempts = 4\nretry_delay = 1000",
        pace_s=0.1,
    ),
    Level(
        "max_retry_after",
        6000,
        4000,
        lambda shown: 4000 if len(shown.calls) == 1 else 6000,
        (answers(status=429, retry_after="5"),),
        gateway="max_attempts = 2",
    ),
    Level(
        "on_break",
        "error",
        "restart",
        lambda shown: "restart" if shown.told.metadata.get("restarted") else "error",
        (streams(ROLE, said("a"), RESET), streams(*WHOLE)),
        steps=2,
        only=(SOCKET,),
    ),
    Level(
        "on_policy",
        "answer",
        "next",
        lambda shown: "next" if shown.told.step == 1 else "answer",
        (answers(REFUSAL, status=400), answers()),
        steps=2,
        only=(SOCKET, STEPS),
    ),
    Level(
        "frames",
        "items",
        "raw",
        lambda shown: shown.told.frames[1].get("encoding") == "text" and "raw",
        (streams(*WHOLE),),
        only=(SOCKET,),
    ),
    Level("cache_ttl", 60, 120, lambda shown: 120 if shown.told.is_cached else 60, asks=2, apart_s=90),
    Level(
        "skip_cache", False, True, lambda shown: not shown.told.is_cached, (answers(),) * 2, "cache_ttl = 60", asks=2
    ),
    Level("cache_key", "one", "other", lambda shown: shown.told.is_cached and "other", primed=True),
    Level(
        "byok_alias",
        "one",
        "other",
        lambda shown: shown.calls[0].headers["authorization"].removeprefix("Bearer stored-key-"),
    ),
    Level("collect_log", True, False, lambda shown: shown.row is not None),
    Level("collect_log_payload", True, False, lambda shown: row_of(shown)["request_head"] is not None),
    Level("metadata", {"team": "one"}, {"team": "other"}, lambda shown: orjson.loads(row_of(shown)["metadata"])),
    Level("custom_cost", {"total_cost": 1.0}, {"total_cost": 2.0}, lambda shown: {"total_cost": row_of(shown)["cost"]}),
    Level("otel_trace_id", TRACE, OTHER_TRACE, lambda shown: shown.span.trace_id),
    Level("otel_parent_span_id", SPAN, OTHER_SPAN, lambda shown: shown.span.parent_id),
)


def test_every_setting_has_its_row() -> None:
    assert [row.setting for row in ROWS] == [setting.name for setting in SETTINGS]


# The places, from the weakest to the strongest.


IN_GATEWAY, OUTER = "the gateway", "the outer headers"
CHAIN_HEADERS, CHAIN_CONFIG = "the chain's headers", "the chain's config"
STEP_HEADERS, STEP_CONFIG = "the step's headers", "the step's config"
DOORS: Final = {
    SOCKET: (IN_GATEWAY, OUTER, CHAIN_HEADERS, CHAIN_CONFIG, STEP_HEADERS, STEP_CONFIG),
    STEPS: (IN_GATEWAY, OUTER, CHAIN_HEADERS, CHAIN_CONFIG, STEP_HEADERS, STEP_CONFIG),
    PROVIDER: (IN_GATEWAY, OUTER),
}
"""The outer headers are those of the handshake, or of the HTTP request."""

Written = Mapping[str, str]
"""Which value stands at which place: `one` or `other`."""


def places_of(setting: Setting, door: str) -> list[str]:
    """Where it may be written."""
    without = {OUTER, CHAIN_HEADERS, STEP_HEADERS} if setting.header is None else set[str]()
    without |= set() if setting.of_gateway else {IN_GATEWAY}
    return [place for place in DOORS[door] if place not in without]


def rungs(places: list[str]) -> list[dict[str, str]]:
    """Of each place: `other` there, and `one` wherever is weaker."""
    return [{**dict.fromkeys(places[:at], "one"), place: "other"} for at, place in enumerate(places)]


def as_header(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def as_toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {as_toml(each)}' for name, each in value.items())} }}"
    return orjson.dumps(value).decode()


@dataclass(frozen=True)
class Asker:
    """Asks at one door with a row's setting written here and there."""

    witness: FullStack
    row: Level
    door: str
    header: str | None
    """What the setting is called where it is one."""

    async def ask(self, model: str, written: Written) -> ClientEnd:
        """One event, whose calls are known by their model."""
        path = f"/v1/account/{written.get(IN_GATEWAY, 'bare')}"
        outer = {
            "cf-aig-authorization": f"Bearer {TOKEN}",
            "traceparent": f"00-{TRACE}-{SPAN}-01",
            **self._headers(OUTER, written),
        }
        if self.door == SOCKET:
            async with connected(self.witness.server, path, headers=outer) as client:
                await client.create(self._chain(model, written), eventId=model)
                return by_frames(await client.until_last(model))
        async with connect_http(self.witness.server) as client:
            if self.door == STEPS:
                return by_answer(await client("POST", path, orjson.dumps(self._chain(model, written)), outer))
            return by_answer(await client("POST", f"{path}/openai/x", orjson.dumps({"model": model}), outer))

    def _chain(self, model: str, written: Written) -> dict[str, object]:
        steps = [{"provider": slug, "endpoint": "x", "query": {"model": model}} for slug in ("openai", "groq")]
        steps[0] |= self._level(STEP_HEADERS, STEP_CONFIG, written)
        return {**self._level(CHAIN_HEADERS, CHAIN_CONFIG, written), "steps": steps[: self.row.steps]}

    def _level(self, headers: str, config: str, written: Written) -> dict[str, Any]:
        values = {BY_NAME[self.row.setting].wire: self.row.value(written[config])} if config in written else {}
        return {"headers": self._headers(headers, written), "config": values}

    def _headers(self, place: str, written: Written) -> dict[str, str]:
        return {self.header: as_header(self.row.value(written[place]))} if place in written and self.header else {}


@asynccontextmanager
async def asking(folder: Path, row: Level, door: str, times: int, key: str = "") -> AsyncIterator[Asker]:
    """At a bridge whose gateways are `bare` of the setting, or have it as `one` or `other`.

    `key` is what the configuration calls it, if not by its name.
    """
    for alias in ("default", "one", "other"):
        (folder / alias).write_text(f"stored-key-{alias}")
    setting = BY_NAME[row.setting]
    gateways = {"bare": CLOSED + row.gateway}
    if setting.of_gateway:
        lines = {name: f"{key or setting.name} = {as_toml(row.value(name))}\n" for name in ("one", "other")}
        gateways |= {name: line + gateways["bare"] for name, line in lines.items()}
    async with witnessing(folder, gateways, *row.plays * times) as listener:
        yield Asker(listener, row, door, setting.header)


async def asked(asker: Asker, model: str, written: Written) -> ClientEnd:
    """As often as the row wants."""
    row = asker.row
    if row.primed:
        await asker.ask(f"before {model}", {OUTER: "other"})
    flying = asyncio.create_task(fly(row.pace_s))
    try:
        told = await asker.ask(model, written)
        for _ in range(1, row.asks):
            advance(row.apart_s)
            told = await asker.ask(model, written)
        return told
    finally:
        flying.cancel()


async def fly(pace_s: float) -> None:
    while pace_s:
        advance(pace_s)
        await turns(20)


def shown(witness: FullStack, told: ClientEnd, model: str) -> Shown:
    calls = [played for played in witness.provider.played if orjson.loads(played.content)["model"] == model]
    return Shown(told, calls, witness.rows.get(told.log_id), witness.spans[told.log_id])


def check_nothing_of_ours_went_out(witness: FullStack) -> None:
    for played in witness.provider.played:
        assert not [name for name in played.headers if name.startswith("cf-")]
        assert TOKEN not in str(played.headers.raw)


@pytest.mark.parametrize(("row", "door"), [(row, door) for row in ROWS for door in DOORS if door in row.only], ids=str)
async def test_a_setting_is_taken_at_each_place_and_the_nearest_one_wins(row: Level, door: str, tmp_path: Path) -> None:
    ladder = rungs(places_of(BY_NAME[row.setting], door))
    async with asking(tmp_path, row, door, len(ladder)) as asker:
        tolds = [await asked(asker, f"model {number}", written) for number, written in enumerate(ladder)]
    for number, (told, written) in enumerate(zip(tolds, ladder, strict=True)):
        assert row.shows(shown(asker.witness, told, f"model {number}")) == row.other, written
    check_nothing_of_ours_went_out(asker.witness)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting.old_header], ids=lambda it: it.name)
async def test_an_old_name_of_a_header_is_taken_where_the_new_one_is(
    setting: Setting, door: str, tmp_path: Path
) -> None:
    [row] = [row for row in ROWS if row.setting == setting.name]
    places = [place for place in places_of(setting, door) if "headers" in place]
    async with asking(tmp_path, row, door, len(places)) as asker:
        old = replace(asker, header=setting.old_header)
        tolds = [await asked(old, f"model {number}", {place: "other"}) for number, place in enumerate(places)]
    for number, told in enumerate(tolds):
        assert row.shows(shown(asker.witness, told, f"model {number}")) == row.other, places[number]
    check_nothing_of_ours_went_out(asker.witness)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("theirs", "setting"),
    [("retry_max_attempts", "max_attempts"), ("retry_backoff", "backoff"), ("collect_logs", "collect_log")],
)
async def test_a_gateways_settings_carry_over_by_cloudflares_names(
    theirs: str, setting: str, door: str, tmp_path: Path
) -> None:
    [row] = [row for row in ROWS if row.setting == setting]
    async with asking(tmp_path, row, door, 1, theirs) as asker:
        told = await asked(asker, "model", {IN_GATEWAY: "other"})
    assert row.shows(shown(asker.witness, told, "model")) == row.other


# What headers say that is no setting's value.


WITHOUT_EFFECT: Final = {
    "cf-aig-dlp": "{}",
    "cf-aig-gateway-id": "another",
    "cf-aig-no-wholesale": "true",
    "cf-aig-run-id": "1",
    "cf-aig-zdr": "true",
}
"""Of Cloudflare's service, and of it alone."""

OUTER_AT: Final = {
    "handshake": (SOCKET, OUTER),
    "step of a socket": (SOCKET, STEP_HEADERS),
    "request with steps": (STEPS, OUTER),
    "step of a request": (STEPS, STEP_HEADERS),
    "request of a provider's API": (PROVIDER, OUTER),
}
everywhere = pytest.mark.parametrize("at", OUTER_AT)


async def asked_with(witness: FullStack, at: str, headers: Mapping[str, str]) -> ClientEnd:
    """One event, with these headers at that place."""
    door, place = OUTER_AT[at]
    own, step_s = (headers, {}) if place == OUTER else ({}, headers)
    query = {"model": "gpt-4o-mini"}
    steps = [{"provider": "openai", "endpoint": "chat/completions", "headers": dict(step_s), "query": query}]
    if door == SOCKET:
        return await witness.on_socket(steps, **own)
    if door == STEPS:
        return await witness.over_http(steps, **own)
    return await witness.over_http(query, f"{GATEWAY}/openai/chat/completions", **own)


@everywhere
async def test_what_has_no_meaning_here_is_taken_and_changes_nothing(at: str, tmp_path: Path) -> None:
    async with witnessing(tmp_path, {"gateway": "cache_ttl = 60"}, answers(COUNTED)) as listener:
        tolds = [await asked_with(listener, at, headers) for headers in ({}, WITHOUT_EFFECT)]
    assert [(told.status, told.is_cached) for told in tolds] == [(200, False), (200, True)]
    assert [row["warnings"] for row in listener.rows.values()] == [None, None]
    async with witnessing(tmp_path, {"gateway": ""}, answers(COUNTED)) as listener:
        await asked_with(listener, at, WITHOUT_EFFECT)
    check_nothing_of_ours_went_out(listener)


@everywhere
async def test_a_header_that_nobody_knows_changes_nothing_but_adds_a_warning(at: str, tmp_path: Path) -> None:
    async with witnessing(tmp_path, {"gateway": ""}, answers(COUNTED)) as listener:
        assert (await asked_with(listener, at, {"cf-aig-whatever-comes": "1"})).status == 200
    [row] = listener.rows.values()
    assert "cf-aig-whatever-comes: unknown, and ignored." in str(row["warnings"])
    check_nothing_of_ours_went_out(listener)


@everywhere
@pytest.mark.parametrize(
    ("header", "given", "taken"),
    [
        ("cf-aig-max-attempts", "9", 5),
        ("cf-aig-max-attempts", "0", 1),
        ("cf-aig-retry-delay", "5001", 5000),
        ("cf-aig-cache-ttl", "59", 60),
        ("cf-aig-cache-ttl", "2592001", 2_592_000),
        ("cf-aig-metadata", '{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}', {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}),
    ],
)
async def test_a_value_out_of_range_is_the_nearest_one_and_a_warning(
    at: str, header: str, given: str, taken: object, tmp_path: Path
) -> None:
    async with witnessing(tmp_path, {"gateway": ""}, answers(COUNTED)) as listener:
        told = await asked_with(listener, at, {header: given})
    [warning] = orjson.loads(listener.rows[told.log_id]["warnings"])
    assert header in warning
    assert f"{taken} is used instead" in warning
    assert told.heard or told.metadata["warnings"] == [warning]


WRONG: Final = {
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


def test_every_header_is_among_them() -> None:
    assert [setting.header for setting in SETTINGS if setting.header] == list(WRONG)


@pytest.mark.parametrize("at", [at for at in OUTER_AT if at != "handshake"])
@pytest.mark.parametrize("header", WRONG)
async def test_a_value_that_is_none_is_the_events_fault_and_named(at: str, header: str, tmp_path: Path) -> None:
    async with witnessing(tmp_path, {"gateway": ""}) as listener:
        told = await asked_with(listener, at, {header: WRONG[header]})
    assert (told.status, told.code) == (400, 9003)
    assert header in listener.rows[told.log_id]["reason"]


@pytest.mark.parametrize("header", WRONG)
async def test_in_a_handshake_it_is_refused_before_there_is_a_socket(header: str, tmp_path: Path) -> None:
    async with running(config_of("", tmp_path)) as server, connect_raw(server) as client:
        answered = await client.request(GATEWAY, {**UPGRADE, header: WRONG[header]})
    assert (answered.status, answered.code) == (400, 9003)
    assert header.encode() in answered.body


LISTED_USD = 0.00018
"""Of `COUNTED`, by the price list."""


@everywhere
@pytest.mark.parametrize(
    ("rates", "usd"),
    [
        ({"per_token_in": 0.001, "per_token_out": 0.01}, 1.0 + 1.0),
        ({"per_token_in": 0.001, "per_token_out": 0.01, "per_cache_read_token": 0.0001}, 0.6 + 0.04 + 1.0),
        ({"total_cost": 0.25}, 0.25),
    ],
)
async def test_a_custom_cost_counts_what_the_provider_read_from_its_cache_at_its_own_rate(
    at: str, rates: dict[str, float], usd: float, tmp_path: Path
) -> None:
    async with witnessing(tmp_path, {"gateway": ""}, answers(COUNTED)) as listener:
        told = await asked_with(listener, at, {"cf-aig-custom-cost": as_header(rates)})
    row = listener.rows[told.log_id]
    assert (row["cost"], row["custom_cost"]) == (pytest.approx(usd), 1)
    assert told.heard or told.metadata["cost"] == pytest.approx(usd)
    assert listener.spans[told.log_id].attributes["gen_ai.usage.cost"] == pytest.approx(LISTED_USD), "what is charged"


@pytest.mark.parametrize("door", [SOCKET, STEPS])
async def test_a_bare_authorization_of_a_step_is_that_header(door: str, tmp_path: Path) -> None:
    steps = [{"provider": "openai", "endpoint": "x", "authorization": "Bearer mine", "query": {}}]
    async with witnessing(tmp_path, {"gateway": ""}, answers()) as listener:
        await (listener.on_socket if door == SOCKET else listener.over_http)(steps)
    assert listener.provider.played[0].headers["authorization"] == "Bearer mine"


@pytest.mark.parametrize("door", DOORS)
async def test_fal_is_called_where_its_header_says(door: str, tmp_path: Path) -> None:
    headers = {"x-fal-target-url": "https://queue.fal.run/fal-ai/x"}
    async with witnessing(tmp_path, {"gateway": ""}, answers()) as listener:
        if door == PROVIDER:
            await listener.over_http({}, f"{GATEWAY}/fal", **headers)
        else:
            ask = listener.on_socket if door == SOCKET else listener.over_http
            await ask([{"provider": "fal", "endpoint": "", "headers": headers, "query": {}}])
    assert listener.provider.played[0].url == "https://queue.fal.run/fal-ai/x"


def test_the_page_cloudflare_describes_every_header_and_no_other() -> None:
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


# What comes back.


UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize("at", ["request with steps", "request of a provider's API"])
@pytest.mark.parametrize("name", [None, "mine"])
async def test_an_http_answer_tells_of_its_event(at: str, name: str | None, tmp_path: Path) -> None:
    async with witnessing(tmp_path, {"gateway": "cache_ttl = 60"}, answers(COUNTED)) as listener:
        named = {"cf-aig-event-id": name} if name else {}
        tolds = [await asked_with(listener, at, headers) for headers in (named, named, {"cf-aig-backoff": "never"})]
    for told, cached in zip(tolds, ("MISS", "HIT", "MISS"), strict=True):
        assert told.heard is not None
        own = {header: value for header, value in told.heard.headers.items() if header.startswith("cf-")}
        row = listener.rows[told.log_id]
        assert UUID7.fullmatch(told.log_id)
        assert own == {
            "cf-aig-cache-status": cached,
            "cf-aig-event-id": row["event_id"],
            "cf-aig-log-id": told.log_id,
            "cf-aig-request-id": told.log_id,
            "cf-aig-step": "0",
        }
        assert row["event_id"] == ((told.status == 200 and name) or told.log_id)


OWN_ERRORS: Final = {
    2003: ("rate_limiting_limit = 1\nrate_limiting_interval = 60", "openai", 429),
    2008: ("", "nobody", 400),
    2040: (CLOSED, "openai", 400),
    2041: ("spend_limits.rules = [{ id = 'day', limitType = 'cost', limit = 0, window = 86400 }]", "openai", 429),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("code", OWN_ERRORS)
async def test_the_bridges_own_errors_have_cloudflares_codes_and_shape(code: int, door: str, tmp_path: Path) -> None:
    """Clients look at `error[0].code`, at `name`, or at `internalCode`; SDKs at an `error` that is an object."""
    more, slug, status = OWN_ERRORS[code]
    for alias in ("default", "one", "other"):
        (tmp_path / alias).write_text(f"stored-key-{alias}")
    headers = {"cf-aig-authorization": TOKEN, "cf-aig-byok-alias": "nobody"} if code == 2040 else {}
    steps = [{"provider": slug, "endpoint": "x", "query": {}}]
    async with witnessing(tmp_path, {"gateway": more}, answers()) as listener:
        if code == 2003:
            await listener.on_socket(steps)
        if door == PROVIDER:
            told = await listener.over_http({}, f"{GATEWAY}/{slug}/x", **headers)
        else:
            told = await (listener.on_socket if door == SOCKET else listener.over_http)(steps, **headers)
    body = told.frames[-1]["response"] if told.heard is None else orjson.loads(told.heard.body)
    message = body["message"]
    assert message
    assert body == {
        "success": False,
        "result": [],
        "messages": [],
        "error": {"message": message, "type": "AiGatewayError", "code": code}
        if door == PROVIDER
        else [{"code": code, "message": message}],
        "name": "AiGatewayError",
        "httpCode": status,
        "internalCode": code,
        "message": message,
    }
    assert (told.status, listener.rows[told.log_id]["code"]) == (status, code)
