"""A bridge that is killed under load: its log is consistent, and lacks at most the last second."""

import asyncio
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.event_harness import step
from tests.support.harness import Client
from tests.support.serving import Bridge, serving
from tests.support.socket_provider import Line, Provider

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SOCKETS = 8
LAST_S = 1.0
"""Duration before the kill whose events may be missing, in seconds."""


async def provider(line: Line) -> None:
    while True:
        await line.request()
        await line.send(ANSWER)


async def send_events(client: Client, number: int, ended: dict[str, float]) -> None:
    """Send one event after the other until the socket closes; note when each ended, by its logId."""
    try:
        for each in range(1_000_000):
            (frame,) = await client.call({"eventId": f"{number}-{each}", **step("openai")})
            ended[frame["metadata"]["logId"]] = asyncio.get_running_loop().time()
            client.frames.clear()
    except AssertionError:
        return  # the test client raises it when its socket closes


async def kill_after(bridge: Bridge, seconds: float) -> float:
    await asyncio.sleep(seconds)  # the other tasks send events meanwhile
    bridge.process.send_signal(signal.SIGKILL)
    return asyncio.get_running_loop().time()


def config_in(folder: Path, port: int) -> str:
    path = folder / "bridge.toml"
    path.write_text(f'[server]\nlog_path = "log.db"\n[providers.openai]\nbase_url = "http://127.0.0.1:{port}"')
    return str(path)


def logged(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (counted,) = connection.execute("SELECT coalesce(sum(rows), 0) FROM kept").fetchone()
        found = {row_id for (row_id,) in connection.execute("SELECT id FROM requests")}
    assert counted == len(found)
    return found


@pytest.mark.parametrize("seed", range(5))
async def test_a_killed_bridge_has_logged_all_events_but_those_of_the_last_second(tmp_path: Path, seed: int) -> None:
    """The bridge is killed at a random moment; the next bridge continues with the same log."""
    ended: dict[str, float] = {}
    async with Provider(provider) as played:
        config = config_in(tmp_path, played.port)
        async with serving("--config", config) as bridge, bridge.clients(SOCKETS) as clients:
            sending = [asyncio.create_task(send_events(client, n, ended)) for n, client in enumerate(clients)]
            killed_at = await kill_after(bridge, random.Random(seed).uniform(LAST_S + 0.2, LAST_S + 0.7))
            await asyncio.gather(*sending)
        due = {log_id for log_id, at in ended.items() if at < killed_at - LAST_S}
        found = logged(tmp_path / "log.db")
        assert due
        assert due <= found
        async with serving("--config", config) as bridge, bridge.clients(1) as (client,):
            await client.call({"eventId": "after", **step("openai")})
            bridge.process.send_signal(signal.SIGTERM)
            assert await bridge.exit_code() == 0
    assert found < logged(tmp_path / "log.db")
    shown = run("logs", "--path", str(tmp_path / "log.db"), "--limit", "1")
    assert (shown.returncode, shown.stderr) == (0, "")
