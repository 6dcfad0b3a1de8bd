"""A bridge that is killed while it works: its log is whole at any moment, and has all but the last second of it."""

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
"""What may be lost."""


async def provider(line: Line) -> None:
    while True:
        await line.request()
        await line.send(ANSWER)


async def ask_on(client: Client, number: int, ended: dict[str, float]) -> None:
    """One event after the other, until the socket is gone: when which had ended, by logId."""
    try:
        for each in range(1_000_000):
            (frame,) = await client.call({"eventId": f"{number}-{each}", **step("openai")})
            ended[frame["metadata"]["logId"]] = asyncio.get_running_loop().time()
            client.frames.clear()
    except AssertionError:
        return  # what a client says whose socket closes


async def kill_after(bridge: Bridge, seconds: float) -> float:
    await asyncio.sleep(seconds)  # the work of this test is what others do meanwhile
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
async def test_a_killed_bridge_has_logged_all_but_the_last_second(tmp_path: Path, seed: int) -> None:
    """Killed at a moment of chance, under load; and what is left is what the next one goes on with."""
    ended: dict[str, float] = {}
    async with Provider(provider) as played:
        config = config_in(tmp_path, played.port)
        async with serving("--config", config) as bridge, bridge.clients(SOCKETS) as clients:
            asking = [asyncio.create_task(ask_on(client, n, ended)) for n, client in enumerate(clients)]
            killed_at = await kill_after(bridge, random.Random(seed).uniform(LAST_S + 0.2, LAST_S + 0.7))
            await asyncio.gather(*asking)
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
