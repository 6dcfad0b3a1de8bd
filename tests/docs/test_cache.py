"""Run the examples of the page on the cache."""

from pathlib import Path

import orjson

from tests.support.clock import advance
from tests.support.examples import blocks
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import ScriptedProvider, answers

CONFIG, MESSAGE = blocks("cache", "toml")[0], blocks("cache", "json")[0]


async def test_the_configuration_turns_the_cache_on_and_keeps_answers_in_the_file(tmp_path: Path) -> None:
    message = orjson.loads(MESSAGE)
    del message["request"]["headers"]["cf-aig-cache-ttl"]
    assert await statuses(CONFIG, message, tmp_path) == ["MISS", "HIT"]
    assert (tmp_path / "answers.db").exists()
    assert await statuses(CONFIG, message, tmp_path) == ["HIT", "HIT"]


async def test_the_message_turns_the_cache_on_for_itself(tmp_path: Path) -> None:
    assert await statuses("", orjson.loads(MESSAGE), tmp_path, later_s=599) == ["MISS", "HIT"]
    assert await statuses("", orjson.loads(MESSAGE), tmp_path, later_s=601) == ["MISS", "MISS"]


async def statuses(config: str, message: dict[str, object], folder: Path, *, later_s: float = 0) -> list[str]:
    """What two events of that message are told, the second so much later."""
    provider = ScriptedProvider(answers(), answers())
    told = []
    async with (
        running(config_of(config, folder), provider) as server,
        connected(server, "/v1/account/prod") as client,
    ):
        for _ in range(2):
            await client.send(message)
            told.append((await client.receive())["metadata"]["cacheStatus"])
            advance(later_s)
    return told
