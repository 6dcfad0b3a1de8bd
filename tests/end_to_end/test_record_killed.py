"""A recording bridge that is killed under load: its tapes are complete, and lack at most the last two seconds."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from bridge.tapes.file import read_tape
from tests.end_to_end.test_request_log_killed import provider
from tests.support.event_harness import step
from tests.support.harness import Client
from tests.support.serving import serving
from tests.support.socket_provider import Provider

SOCKETS = 10
PER_SECOND = 300
LASTS_S = 4.0
LAST_S = 2.0
"""Duration before the kill whose events may be missing, in seconds."""


async def send_events(client: Client, number: int, ended: dict[str, float]) -> None:
    """Send events at a constant rate until the socket closes; note when each ended, by its name."""
    loop = asyncio.get_running_loop()
    due_at = loop.time() + number / PER_SECOND
    try:
        for each in range(round(LASTS_S * PER_SECOND)):
            await asyncio.sleep(max(due_at - loop.time(), 0))  # the rate is part of the test
            due_at += SOCKETS / PER_SECOND
            name = f"{number}-{each}"
            await client.call({"eventId": name, **step("openai"), "query": {"name": name}})
            ended[name] = loop.time()
            client.frames.clear()
    except (AssertionError, ConnectionError):
        return  # the socket closed while the client waited for a frame, or before it sent


def taped(folder: Path) -> set[str]:
    return {json.loads(read_tape(path).request.body)["name"] for path in folder.rglob("*.jsonl")}


@pytest.mark.quiet
async def test_a_killed_bridge_has_tapes_of_all_events_but_those_of_the_last_two_seconds(tmp_path: Path) -> None:
    ended: dict[str, float] = {}
    config, tapes = tmp_path / "bridge.toml", tmp_path / "tapes"
    async with Provider(provider) as played:
        config.write_text(f'[providers.openai]\nbase_url = "http://127.0.0.1:{played.port}"')
        async with (
            serving("--config", str(config), "--record", str(tapes)) as bridge,
            bridge.clients(SOCKETS) as clients,
        ):
            sending = [asyncio.create_task(send_events(client, n, ended)) for n, client in enumerate(clients)]
            await asyncio.sleep(LASTS_S)
            bridge.process.send_signal(signal.SIGKILL)
            killed_at = asyncio.get_running_loop().time()
            await asyncio.gather(*sending)
    due = {name for name, at in ended.items() if at < killed_at - LAST_S}
    assert due
    assert due <= taped(tapes)
