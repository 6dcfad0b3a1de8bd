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
from tests.services.limits.test_limiter import OPEN, bearer, budget, code, costing, house, tokens
from tests.support.clock import advance, until
from tests.support.event_harness import step
from tests.support.harness import config_of
from tests.support.wall_clock import Wall

LOG = '[server]\nlog_path = "log.db"\n'


pytestmark = pytest.mark.usefixtures("wall")


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
    async with build_services(config_of(LOG + OPEN.replace("gateways.gateway", "gateways.other") + budget(), tmp_path)):
        pass


async def test_a_client_that_wants_no_row_in_the_log_does_not_make_a_restart_forget(tmp_path: Path):
    text = LOG + OPEN + budget()
    async with house(text, tmp_path, costing(2.0)) as place:
        assert code(await place.call(step(collectLog=False))) is None
    async with house(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_a_log_that_is_removed_does_not_make_a_restart_forget(tmp_path: Path):
    text = LOG + OPEN + budget()
    async with house(text, tmp_path, costing(2.0)) as place:
        await place.call()
    (tmp_path / "log.db").unlink()
    async with house(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_a_clients_own_price_is_not_what_a_restart_remembers(tmp_path: Path):
    text = LOG + OPEN + budget()
    async with house(text, tmp_path, costing(0.1)) as place:
        await place.call(step(customCost={"total_cost": 1_000_000}))
    async with house(text, tmp_path, costing(0.1)) as place:
        assert code(await place.call()) is None


async def test_the_file_may_stand_anywhere_and_needs_no_log(tmp_path: Path):
    text = '[server]\nbudgets_path = "spent.db"\n' + OPEN + budget()
    async with house(text, tmp_path, costing(2.0)) as place:
        await place.call()
    assert (tmp_path / "spent.db").stat().st_mode & 0o777 == 0o600
    async with house(text, tmp_path) as place:
        assert code(await place.call()) == 2041


def loaded(path: Path) -> object:
    with closing(SpendFile(path)) as file:
        return file.load(0.0)


async def test_what_was_spent_is_written_a_moment_later_not_at_the_end_alone(tmp_path: Path):
    async with house(LOG + OPEN + budget(), tmp_path, costing(2.0)) as place:
        await place.call()
        advance(LINGER_S)
        await until(lambda: loaded(tmp_path / "budgets-log.db"))


async def test_many_processes_add_to_one_file(tmp_path: Path):
    text = LOG + OPEN + budget()
    async with house(text, tmp_path, costing(0.6)) as one, house(text, tmp_path, costing(0.6)) as other:
        assert [code(await one.call()), code(await other.call())] == [None, None]
    async with house(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "budgets-log.db"
    path.write_bytes(b"no database" * 1000)
    text = LOG + OPEN + budget()
    async with house(text, tmp_path, costing(2.0)) as place:
        assert code(await place.call()) is None
    assert [name for name in os.listdir(tmp_path) if name.startswith("budgets-log.db.damaged-")]
    assert any(message.startswith("budget file damaged") for message in caplog.messages)
    async with house(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_a_file_that_cannot_be_written_costs_no_event_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    text = LOG + OPEN + budget()
    with monkeypatch.context() as patched:
        patched.setattr(SpendFile, "_add", full)
        async with house(text, tmp_path, costing(0.6), costing(0.6)) as place:
            assert code(await place.call()) is None
            advance(LINGER_S)
            await until(lambda: caplog.messages)
            patched.undo()
            assert [code(await place.call()) for _ in range(2)] == [None, 2041]
    assert sum(message.startswith("budget file cannot be written") for message in caplog.messages) == 1
    async with house(text, tmp_path) as place:
        assert code(await place.call()) == 2041


async def test_a_path_that_can_be_no_file_is_a_fault_of_the_configuration(tmp_path: Path):
    text = '[server]\nbudgets_path = "no/such/folder/spent.db"\n' + OPEN
    with pytest.raises(ConfigError, match="budgets_path"):
        async with build_services(config_of(text + budget(), tmp_path)):
            pass
    async with build_services(config_of(text, tmp_path)):
        pass  # nobody needs it


async def test_a_start_goes_on_without_the_file_beside_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "budgets-log.db").mkdir()
    async with house(LOG + OPEN + budget(), tmp_path, costing(2.0)) as place:
        assert [code(await place.call()) for _ in range(2)] == [None, 2041]
    assert any("a restart loses the recorded spending" in message for message in caplog.messages)
