"""Metrics of several processes, read from any of them."""

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
"""Bound on the scrapes of a wait; waits take less than a second."""

Sums = dict[str, float]
"""Sums over all labels, by metric name."""


async def answers(line: Line) -> None:
    while True:
        await line.request()
        await line.send(JSON)


async def scraped(bridge: Bridge) -> Sums:
    """Scrape on a new connection, which any worker may accept."""
    address = urlsplit(bridge.url)
    async with aiohttp.ClientSession() as http, http.get(f"http://{address.netloc}/metrics") as answer:
        sums: Sums = {}
        for sample in (sample for family in parse(await answer.text()) for sample in family.samples):
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
        return sums


async def scrape_until(bridge: Bridge, holds: Callable[[Sums], bool]) -> list[Sums]:
    """Scrape scrape_until the condition holds, and return all scrapes; fail if it never holds."""
    seen: list[Sums] = []
    for _ in range(SCRAPES):
        seen.append(await scraped(bridge))
        if holds(seen[-1]):
            return seen
    raise AssertionError(f"the condition never held; the last scrape: {seen[-1]}")


async def test_any_worker_reports_the_metrics_of_all_and_no_counter_decreases_after_a_kill(tmp_path: Path) -> None:
    async with Provider(answers) as provider, serving(*config_in(tmp_path, provider)) as bridge:
        pids = await bridge.workers(2)
        async with bridge.clients(SOCKETS) as clients:
            for client in clients:
                await client.call({"eventId": "a", **step()})
            scrapes = [await scraped(bridge) for _ in range(10)]
            assert {sums["bridge_events_total"] for sums in scrapes} == {SOCKETS}
            await scrape_until(bridge, lambda sums: (sums["bridge_sockets"], sums["bridge_processes"]) == (SOCKETS, 2))
            os.kill(pids[1], signal.SIGKILL)
            await bridge.next_log_line("a worker ended")
            after = await scrape_until(bridge, lambda sums: sums["bridge_sockets"] < SOCKETS)
            assert after[-1]["bridge_sockets"] > 0
            await bridge.next_log_line("started")
            again = await scrape_until(bridge, lambda sums: sums["bridge_processes"] == 2)
            assert {sums["bridge_events_total"] for sums in (*after, *again)} == {SOCKETS}
        async with bridge.clients(SOCKETS) as clients:
            for client in clients:
                await client.call({"eventId": "a", **step()})
        assert (await scraped(bridge))["bridge_events_total"] == 2 * SOCKETS
