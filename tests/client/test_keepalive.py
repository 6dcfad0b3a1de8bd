"""Whether the bridge is still there."""

import pytest

from bridge.client.keepalive import ClientKeepAlive
from tests.support.clock import advance, turns


class Seen:
    def __init__(self) -> None:
        self.pings = 0
        self.is_dead = False

    def ping(self) -> None:
        self.pings += 1

    def die(self, silent_s: float) -> None:
        assert silent_s == pytest.approx(60, abs=1)
        self.is_dead = True


async def pass_s(seconds: float) -> None:
    advance(seconds)
    await turns()


async def test_silence_is_pinged_into_and_three_in_a_row_are_the_end() -> None:
    seen = Seen()
    watch = ClientKeepAlive(20.0, seen.ping, seen.die)
    watch.start()
    for pings in (1, 2):
        await pass_s(20)
        assert (seen.pings, seen.is_dead) == (pings, False)
    await pass_s(20)
    assert (seen.pings, seen.is_dead) == (2, True)
    await pass_s(100)
    assert seen.pings == 2


async def test_a_word_is_enough() -> None:
    seen = Seen()
    watch = ClientKeepAlive(20.0, seen.ping, seen.die)
    watch.start()
    for _ in range(10):
        await pass_s(15)
        watch.received()
    assert (seen.pings, seen.is_dead) == (0, False)
    watch.stop()


async def test_paused_reading_does_not_count_as_silence() -> None:
    seen = Seen()
    watch = ClientKeepAlive(20.0, seen.ping, seen.die)
    watch.start()
    watch.is_paused = True
    for _ in range(10):
        await pass_s(20)
    assert (seen.pings, seen.is_dead) == (0, False)
    watch.stop()


async def test_it_can_be_left_out_and_stopped() -> None:
    seen = Seen()
    left_out, stopped = ClientKeepAlive(None, seen.ping, seen.die), ClientKeepAlive(20.0, seen.ping, seen.die)
    left_out.start()
    stopped.start()
    stopped.stop()
    left_out.stop()
    await pass_s(100)
    assert (seen.pings, seen.is_dead) == (0, False)
