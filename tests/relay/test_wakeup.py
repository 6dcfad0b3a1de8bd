"""A wakeup: one task waits, and none is lost."""

import asyncio

from bridge.relay.wakeup import Wakeup
from tests.support.clock import run_until_idle


async def test_a_wakeup_before_the_wait_is_not_lost() -> None:
    wakeup = Wakeup()
    wakeup.set()
    await wakeup.wait()
    waiting = asyncio.ensure_future(wakeup.wait())
    await run_until_idle()
    assert not waiting.done()
    wakeup.set()
    wakeup.set()
    await waiting


async def test_a_wakeup_may_follow_a_cancelled_wait() -> None:
    wakeup = Wakeup()
    waiting = asyncio.ensure_future(wakeup.wait())
    await run_until_idle()
    waiting.cancel()
    await run_until_idle()
    wakeup.set()
    await wakeup.wait()
