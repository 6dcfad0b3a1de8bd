"""Without Redis a budget is kept in memory, and in a file that is read after a restart."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bridge.config import ConfigError
from bridge.services.build import build_services
from bridge.services.limits.spend_file import SpendFile
from bridge.services.limits.stored_budgets import LINGER_S
from tests.services.limits.test_limiter import OPEN, bearer, budget, code, costing, serving, tokens
from tests.support.clock import advance, until
from tests.support.event_harness import step
from tests.support.harness import config_of
from tests.support.wall_clock import Wall

LOG = '[server]\nlog_path = "log.db"\n'


pytestmark = pytest.mark.usefixtures("wall")


async def test_spending_survives_a_restart(tmp_path: Path):
    text = LOG + OPEN + budget()
    async with serving(text, tmp_path, costing(0.6), costing(0.6)) as place:
        assert [code(await place.call()) for _ in range(2)] == [None, None]
    async with serving(text, tmp_path) as place:
        frame = await place.call()
        assert (code(frame), frame["error"]["retryAfterMs"]) == (2041, 43_200_001)


async def test_spending_of_past_windows_does_not_count_after_a_restart(tmp_path: Path, wall: Wall):
    text = LOG + OPEN + budget()
    async with serving(text, tmp_path, costing(2.0)) as place:
        await place.call()
    wall.advance(43_200)
    async with serving(text, tmp_path, costing(2.0)) as place:
        assert code(await place.call()) is None


async def test_a_sliding_window_includes_the_previous_one_after_a_restart(tmp_path: Path, wall: Wall):
    text = LOG + OPEN + budget(window="3600", technique='"sliding"')
    async with serving(text, tmp_path, costing(2.0)) as place:
        await place.call()
    wall.advance(3600 + 1200)
    async with serving(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_each_rule_keeps_its_spending(tmp_path: Path):
    """By token, by metadata and by provider."""
    text = LOG + OPEN + budget(limit=3.0, metadata='{ team = { mode = "partition" } }')
    text += tokens(budget(provider='{ mode = "filter", values = ["openai"] }'))
    red, blue = (step(metadata={"team": team}) for team in ("red", "blue"))
    async with serving(text, tmp_path, costing(1.0), costing(2.0), **bearer("ci")) as place:
        assert code(await place.call(red)) is None
        assert code(await place.call(step("groq", metadata={"team": "red"}))) is None
    async with serving(text, tmp_path, costing(1.0), **bearer("ci")) as place:
        assert code(await place.call(blue)) == 2041, "the token has spent its own at openai"
        assert code(await place.call(step("groq", metadata={"team": "red"}))) == 2041, "the red ones theirs"
        assert code(await place.call(step("groq", metadata={"team": "blue"}))) is None


async def test_a_gateway_for_any_name_keeps_spending_under_all_names(tmp_path: Path):
    text = LOG + OPEN.replace("gateways.gateway", 'gateways."*"') + budget()
    async with serving(text, tmp_path, costing(1.0)) as place:
        await place.call()
    async with serving(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_spending_of_a_removed_gateway_expires(tmp_path: Path):
    async with serving(LOG + OPEN, tmp_path, costing(1.0)) as place:
        await place.call()
    async with build_services(config_of(LOG + OPEN.replace("gateways.gateway", "gateways.other") + budget(), tmp_path)):
        pass


async def test_spending_survives_a_restart_without_a_log_row(tmp_path: Path):
    text = LOG + OPEN + budget()
    async with serving(text, tmp_path, costing(2.0)) as place:
        assert code(await place.call(step(collectLog=False))) is None
    async with serving(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_spending_survives_the_removal_of_the_log(tmp_path: Path):
    text = LOG + OPEN + budget()
    async with serving(text, tmp_path, costing(2.0)) as place:
        await place.call()
    (tmp_path / "log.db").unlink()
    async with serving(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_a_clients_custom_price_is_not_stored(tmp_path: Path):
    text = LOG + OPEN + budget()
    async with serving(text, tmp_path, costing(0.1)) as place:
        await place.call(step(customCost={"total_cost": 1_000_000}))
    async with serving(text, tmp_path, costing(0.1)) as place:
        assert code(await place.call()) is None


async def test_the_budget_file_may_be_anywhere_and_needs_no_log(tmp_path: Path):
    text = '[server]\nbudgets_path = "spent.db"\n' + OPEN + budget()
    async with serving(text, tmp_path, costing(2.0)) as place:
        await place.call()
    assert (tmp_path / "spent.db").stat().st_mode & 0o777 == 0o600
    async with serving(text, tmp_path) as place:
        assert code(await place.call()) == 2041


def loaded(path: Path) -> object:
    with closing(SpendFile(path)) as file:
        return file.load(0.0)


async def test_spending_is_written_shortly_after_the_event(tmp_path: Path):
    async with serving(LOG + OPEN + budget(), tmp_path, costing(2.0)) as place:
        await place.call()
        advance(LINGER_S)
        await until(lambda: loaded(tmp_path / "budgets-log.db"))


async def test_many_processes_add_to_one_file(tmp_path: Path):
    text = LOG + OPEN + budget()
    async with serving(text, tmp_path, costing(0.6)) as one, serving(text, tmp_path, costing(0.6)) as other:
        assert [code(await one.call()), code(await other.call())] == [None, None]
    async with serving(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "budgets-log.db"
    path.write_bytes(b"no database" * 1000)
    text = LOG + OPEN + budget()
    async with serving(text, tmp_path, costing(2.0)) as place:
        assert code(await place.call()) is None
    assert [name for name in os.listdir(tmp_path) if name.startswith("budgets-log.db.damaged-")]
    assert any(message.startswith("budget file damaged") for message in caplog.messages)
    async with serving(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_an_unwritable_file_fails_no_event_and_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    text = LOG + OPEN + budget()
    with monkeypatch.context() as patched:
        patched.setattr(SpendFile, "_add", full)
        async with serving(text, tmp_path, costing(0.6), costing(0.6)) as place:
            assert code(await place.call()) is None
            advance(LINGER_S)
            await until(lambda: caplog.messages)
            patched.undo()
            assert [code(await place.call()) for _ in range(2)] == [None, 2041]
    assert sum(message.startswith("budget file cannot be written") for message in caplog.messages) == 1
    async with serving(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_an_impossible_path_is_a_configuration_error(tmp_path: Path):
    text = '[server]\nbudgets_path = "no/such/folder/spent.db"\n' + OPEN
    with pytest.raises(ConfigError, match="budgets_path"):
        async with build_services(config_of(text + budget(), tmp_path)):
            pass
    async with build_services(config_of(text, tmp_path)):
        pass  # nobody needs it


async def test_a_bridge_starts_without_the_file_beside_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "budgets-log.db").mkdir()
    async with serving(LOG + OPEN + budget(), tmp_path, costing(2.0)) as place:
        assert [code(await place.call()) for _ in range(2)] == [None, 2041]
    assert any("a restart loses the recorded spending" in message for message in caplog.messages)
