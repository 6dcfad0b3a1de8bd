"""A soak over real sockets: a provider with random faults, and clients that cancel, leave or stop reading.

Every response has an id and every item a number, so each frame is checked against what the provider has sent. To run
it longer or with other numbers: BRIDGE_SOAK_EVENTS=100000 BRIDGE_SOAK_SEED=7 BRIDGE_CI=1 pytest -s on this file.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tests.support.soak.soak import Report, soaking

EVENTS = int(os.environ.get("BRIDGE_SOAK_EVENTS", "8000"))
SEED = int(os.environ.get("BRIDGE_SOAK_SEED", "1"))
GROWTH_MB = 16.0
"""Growth of the resident memory after the warm-up that is no leak: fragments, and caches that are not full yet."""
GROWTH_OBJECTS = 20_000
"""The same for blocks of Python objects."""

Loop = Callable[[], asyncio.AbstractEventLoop]

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")


def soak(folder: Path, new_loop: Loop, *, events: int, warm_up: int, seed: int) -> Report:
    async def run() -> Report:
        async with soaking(folder, seed) as running:
            await running.run(events, warm_up)
        return running.report

    with asyncio.Runner(loop_factory=new_loop) as runner:
        report = runner.run(run())
    print(report)
    return report


def check(report: Report, events: int, warm_up: int) -> None:
    assert not report.violations, "\n".join(report.violations)
    assert report.errors == []
    assert report.events >= 0.9 * (events + warm_up)  # a client that leaves sends no more
    assert report.count("done") > report.events / 3
    assert report.before is not None
    assert report.after is not None
    assert not report.after.has_more_than(report.before), report
    assert report.gauges == {}


@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_each_event_of_a_short_soak_has_one_last_frame_and_no_foreign_item(tmp_path: Path, new_loop: Loop) -> None:
    check(soak(tmp_path, new_loop, events=120, warm_up=30, seed=SEED), 120, 30)


@pytest.mark.quiet
def test_thousands_of_events_with_faults_leave_nothing_behind(tmp_path: Path) -> None:
    warm_up = min(EVENTS // 4, 4000)
    report = soak(tmp_path, uvloop.new_event_loop, events=EVENTS - warm_up, warm_up=warm_up, seed=SEED)
    check(report, EVENTS - warm_up, warm_up)
    assert report.before is not None
    assert report.after is not None
    assert report.after.resident_mb - report.before.resident_mb < GROWTH_MB, report
    assert report.after.objects - report.before.objects < GROWTH_OBJECTS, report
