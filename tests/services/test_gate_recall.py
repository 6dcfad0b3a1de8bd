"""Without Redis a budget is kept in memory; what the request log holds of it is known again after a restart."""

from pathlib import Path

import pytest

from bridge.assembly import services_of
from tests.harness import config_of
from tests.services.test_gate import OPEN, bearer, budget, code, costing, house, tokens
from tests.stage import step
from tests.wall import Wall

LOG = '[server]\nlog_path = "log.db"\n'


@pytest.fixture(autouse=True)
def dated(wall: Wall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are dated by the same clock."""
    monkeypatch.setattr("time.time_ns", lambda: int(wall.now_s * 1e9))


async def test_what_was_spent_before_a_restart_is_spent(tmp_path: Path):
    text = LOG + OPEN + budget()
    async with house(text, tmp_path, costing(0.6), costing(0.6)) as place:
        assert [code(await place.call()) for _ in range(2)] == [None, None]
    async with house(text, tmp_path) as place:
        frame = await place.call()
        assert (code(frame), frame["error"]["retryAfterMs"]) == (2041, 43_200_001)


async def test_in_windows_that_are_over_it_is_not(tmp_path: Path, wall: Wall):
    text = LOG + OPEN + budget()
    async with house(text, tmp_path, costing(2.0)) as place:
        await place.call()
    wall.advance(43_200)
    async with house(text, tmp_path, costing(2.0)) as place:
        assert code(await place.call()) is None


async def test_a_sliding_window_knows_the_one_before(tmp_path: Path, wall: Wall):
    text = LOG + OPEN + budget(window="3600", technique='"sliding"')
    async with house(text, tmp_path, costing(2.0)) as place:
        await place.call()
    wall.advance(3600 + 1200)
    async with house(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_each_rule_knows_its_own(tmp_path: Path):
    """By token, by metadata and by provider."""
    text = LOG + OPEN + budget(limit=3.0, metadata='{ team = { mode = "partition" } }')
    text += tokens(budget(provider='{ mode = "filter", values = ["openai"] }'))
    red, blue = (step(metadata={"team": team}) for team in ("red", "blue"))
    async with house(text, tmp_path, costing(1.0), costing(2.0), **bearer("ci")) as place:
        assert code(await place.call(red)) is None
        assert code(await place.call(step("groq", metadata={"team": "red"}))) is None
    async with house(text, tmp_path, costing(1.0), **bearer("ci")) as place:
        assert code(await place.call(blue)) == 2041, "the token has spent its own at openai"
        assert code(await place.call(step("groq", metadata={"team": "red"}))) == 2041, "the red ones theirs"
        assert code(await place.call(step("groq", metadata={"team": "blue"}))) is None


async def test_a_gateway_for_any_name_knows_what_was_spent_under_each(tmp_path: Path):
    text = LOG + OPEN.replace("gateways.gateway", 'gateways."*"') + budget()
    async with house(text, tmp_path, costing(1.0)) as place:
        await place.call()
    async with house(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_a_gateway_that_is_gone_is_forgotten(tmp_path: Path):
    async with house(LOG + OPEN, tmp_path, costing(1.0)) as place:
        await place.call()
    async with services_of(config_of(LOG + OPEN.replace("gateways.gateway", "gateways.other") + budget(), tmp_path)):
        pass
