"""The background writer: order, bounds, batches, and the end."""

import threading
from collections.abc import Iterator

import pytest

from bridge.logs.background_writer import BackgroundWriter

CLOSE_S = 10.0


class Sink:
    """Collects batches; the thread waits in `write` until `release` is set."""

    def __init__(self, *, bound: int = 100, batch: int = 3) -> None:
        self.batches: list[list[int]] = []
        self.is_ended = False
        self.entered, self.release = threading.Event(), threading.Event()
        self.writer = BackgroundWriter("sink", self._write, self._end, bound=bound, batch=batch, linger_s=0.0)

    def _write(self, items: list[int]) -> None:
        self.entered.set()
        self.release.wait()
        self.batches.append(items)

    def _end(self) -> None:
        self.is_ended = True

    def block(self) -> None:
        """Let the thread take a first item and wait."""
        self.writer.put(0)
        self.entered.wait()


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink(bound=5)
    yield sink
    sink.release.set()
    assert sink.writer.close(CLOSE_S)


def test_items_are_written_in_order_and_in_bounded_batches(sink: Sink) -> None:
    sink.block()
    assert all(sink.writer.put(number) for number in range(1, 6))
    sink.release.set()
    assert sink.writer.close(CLOSE_S)
    assert [number for batch in sink.batches for number in batch] == list(range(6))
    assert max(map(len, sink.batches)) <= 3
    assert sink.is_ended


def test_a_full_queue_refuses_the_newest_item(sink: Sink) -> None:
    sink.block()
    assert [sink.writer.put(number) for number in range(1, 8)] == [True] * 5 + [False] * 2
    assert sink.writer.waiting == 5


def test_a_full_queue_can_drop_the_oldest_item_instead(sink: Sink) -> None:
    sink.block()
    assert [sink.writer.put_latest(number) for number in range(1, 8)] == [True] * 5 + [False] * 2
    sink.release.set()
    assert sink.writer.close(CLOSE_S)
    assert [number for batch in sink.batches for number in batch] == [0, 3, 4, 5, 6, 7]


def test_a_closed_writer_refuses_items(sink: Sink) -> None:
    sink.release.set()
    assert sink.writer.close(CLOSE_S)
    assert not sink.writer.put(1)


def test_close_gives_up_on_a_write_that_hangs(sink: Sink) -> None:
    sink.block()
    assert not sink.writer.close(0.001)
    assert not sink.is_ended
