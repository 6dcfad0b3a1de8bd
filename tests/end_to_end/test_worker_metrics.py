"""What a scrape tells that reached any one of several processes."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.end_to_end.test_workers import JSON, SOCKETS, config_in
from tests.support.event_harness import step
from tests.support.serving import Bridge, serving
from tests.support.socket_provider import Line, Provider

SCRAPES = 2000
"""So many are more than enough for what takes no longer than a second."""

Sums = dict[str, float]
"""By name, over all labels."""


async def answers(line: Line) -> None:
    while True:
        await line.request()
        await line.send(JSON)


async def scraped(bridge: Bridge) -> Sums:
    """On a connection of its own, which any worker may get."""
    address = urlsplit(bridge.url)
    async with aiohttp.ClientSession() as http, http.get(f"http://{address.netloc}/metrics") as answer:
        sums: Sums = {}
        for sample in (sample for family in parse(await answer.text()) for sample in family.samples):
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
        return sums


async def until(bridge: Bridge, holds: Callable[[Sums], bool]) -> list[Sums]:
    """All scrapes, up to one of which it holds; fails when it does not come about."""
    seen: list[Sums] = []
    for _ in range(SCRAPES):
        seen.append(await scraped(bridge))
        if holds(seen[-1]):
            return seen
    raise AssertionError(f"it never came about, but {seen[-1]}")


async def test_any_worker_tells_of_all_and_no_counter_goes_down_when_one_is_killed(tmp_path: Path) -> None:
    async with Provider(answers) as provider, serving(*config_in(tmp_path, provider)) as bridge:
        pids = await bridge.workers(2)
        async with bridge.clients(SOCKETS) as clients:
            for client in clients:
                await client.call({"eventId": "a", **step()})
            told = [await scraped(bridge) for _ in range(10)]
            assert {sums["bridge_events_total"] for sums in told} == {SOCKETS}
            await until(bridge, lambda sums: (sums["bridge_sockets"], sums["bridge_processes"]) == (SOCKETS, 2))
            os.kill(pids[1], signal.SIGKILL)
            await bridge.next_log_line("a worker ended")
            after = await until(bridge, lambda sums: sums["bridge_sockets"] < SOCKETS)
            assert after[-1]["bridge_sockets"] > 0
            await bridge.next_log_line("started")
            again = await until(bridge, lambda sums: sums["bridge_processes"] == 2)
            assert {sums["bridge_events_total"] for sums in (*after, *again)} == {SOCKETS}
        async with bridge.clients(SOCKETS) as clients:
            for client in clients:
                await client.call({"eventId": "a", **step()})
        assert (await scraped(bridge))["bridge_events_total"] == 2 * SOCKETS
