"""Run the examples of the page on the cache."""

from pathlib import Path

import orjson

from bridge.services.cache import redis, sqlite
from bridge.services.cache.key import DEFAULT_KEYED_TTL_S, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES
from tests.support.clock import advance
from tests.support.examples import blocks, text_of
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import ScriptedProvider, answers

CONFIG, MESSAGE = blocks("cache", "toml")[0], blocks("cache", "json")[0]


async def test_the_configuration_switches_the_cache_on_and_keeps_answers_in_the_file(tmp_path: Path) -> None:
    message = orjson.loads(MESSAGE)
    del message["request"]["headers"]["cf-aig-cache-ttl"]
    assert await statuses(CONFIG, message, tmp_path) == ["MISS", "HIT"]
    assert (tmp_path / "answers.db").exists()
    assert await statuses(CONFIG, message, tmp_path) == ["HIT", "HIT"]


async def test_the_message_switches_the_cache_on_for_itself(tmp_path: Path) -> None:
    assert await statuses("", orjson.loads(MESSAGE), tmp_path, later_s=599) == ["MISS", "HIT"]
    assert await statuses("", orjson.loads(MESSAGE), tmp_path, later_s=601) == ["MISS", "MISS"]


async def statuses(config: str, message: dict[str, object], folder: Path, *, later_s: float = 0) -> list[str]:
    """Return the cache status of two events with this message, the second `later_s` seconds after the first."""
    provider = ScriptedProvider(answers(), answers())
    found = []
    async with (
        running(config_of(config, folder), provider) as server,
        connected(server, "/v1/account/prod") as client,
    ):
        for _ in range(2):
            await client.send(message)
            found.append((await client.receive())["metadata"]["cacheStatus"])
            advance(later_s)
    return found


def test_the_numbers_are_those_of_the_code() -> None:
    text = text_of("cache")
    assert f"stored for {DEFAULT_KEYED_TTL_S} seconds" in text
    assert f"none longer than {MAX_ANSWER_BYTES >> 20} MiB. Requests longer than {MAX_REQUEST_BYTES >> 20} MiB" in text
    assert f"answers longer than {redis.MAX_ANSWER_BYTES >> 20} MiB stay in memory" in text
    assert f"no event waits for them longer than {sqlite.READ_TIMEOUT_S * 1000:.0f} ms" in text
