"""Count events and their durations in rows of doubles (`shared_counters`), which `exposition` renders.

Prometheus' own client counts behind locks, has one registry or folder for the whole process, and leaves a file behind
for each worker that ever ran. Here an event costs a lookup and some additions, each server has its own counters, and
the counts of many workers are one sum.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable
from http import HTTPStatus
from typing import Final, NamedTuple, TypeVar

from bridge.config.gateways import ANY
from bridge.errors import Cancelled
from bridge.relay.interfaces import Sample
from bridge.relay.summary import EventSummary
from bridge.services.metrics.definitions import (
    ADDED,
    ATTEMPTS,
    CALLS,
    DURATION,
    EVENTS,
    FIRST_ANSWER,
    REALTIME,
    Group,
    Metric,
)
from bridge.services.metrics.exposition import GAUGES, GROUPS, OTHER, render
from bridge.services.metrics.shared_counters import CountersFull, Row, SharedCounters

Sampler = Callable[[], Iterable[Sample]]

PUBLISH_S: Final = 1.0
"""Interval at which a worker publishes its gauges for scrapes of other workers."""
MAX_CACHED_ROWS: Final = 4096
"""Maximal number of label combinations whose rows are cached."""
_MAX_STEP: Final = 8
_STATUSES: Final = frozenset(HTTPStatus)
_FIRST_OWN_CODE: Final = 1000

(_DURATION, _FIRST, _ADDED, _CHUNKS, _REQUEST, _ANSWER, _INPUT, _CACHED, _OUTPUT, _COST) = CALLS.offsets


K = TypeVar("K")
V = TypeVar("V")


class _MetricKey(NamedTuple):
    """The values of an event that its labels are made of."""

    gateway: str
    provider: str | None
    transport: str
    code: int | None
    cached: bool
    step: int


class Metrics:
    """Observes events and samples gauges. Each server has its own, used in its loop's thread."""

    def __init__(self, counters: SharedCounters) -> None:
        """Take ownership of `counters`, which `close` closes."""
        self._counters = counters
        self._gateways: Callable[[], Container[str]] = frozenset
        self._event_rows: dict[_MetricKey, tuple[Row, Row]] = {}
        self._attempts: dict[tuple[object, object], Row] = {}
        self._samples: list[Sampler] = []
        self._polled: dict[tuple[str, ...], float] = {}
        self._others = {
            name: counters.row((name, *(OTHER for _ in group.labels)), group.width) for name, group in GROUPS.items()
        }
        self._timer: asyncio.TimerHandle | None = None

    def set_known_gateways(self, gateways: Callable[[], Container[str]]) -> None:
        """Set the names of the gateways with labels of their own; any other gateway is labelled `*`."""
        self._gateways = gateways

    def register(self, samples: Sampler) -> None:
        """Call the sampler at every scrape."""
        self._samples.append(samples)

    def on_event_end(self, summary: EventSummary) -> None:
        kind = _MetricKey(
            summary.gateway, summary.provider, summary.transport, summary.code, summary.cached, summary.step
        )
        event, calls = self._event_rows.get(kind) or self._rows_of(kind)
        event[0] += 1
        _observe(calls, _DURATION, DURATION, summary.duration_ms)
        if summary.first_answer_ms is not None:
            _observe(calls, _FIRST, FIRST_ANSWER, summary.first_answer_ms)
        if summary.added_ms is not None:
            _observe(calls, _ADDED, ADDED, summary.added_ms)
        calls[_CHUNKS] += summary.chunks
        calls[_REQUEST] += summary.request_bytes
        calls[_ANSWER] += summary.answer_bytes
        # Tokens saved by the cache count too: their outcome `cached` is a label.
        usage = summary.usage if summary.code is None else summary.used
        if usage is not None:
            calls[_INPUT] += usage.input_tokens or 0
            calls[_CACHED] += usage.cached_tokens or 0
            calls[_OUTPUT] += usage.output_tokens or 0
        if summary.cost is not None:
            calls[_COST] += summary.cost.charged_usd
        for attempt in summary.attempts:
            attempt_key = (attempt["provider"], attempt.get("code"))
            row = self._attempts.get(attempt_key) or self._attempt_row(*attempt_key)
            row[0] += 1
        if (realtime := summary.realtime) is not None:
            self._count_messages(kind, "client", realtime.messages_from_client, realtime.bytes_from_client)
            self._count_messages(kind, "provider", realtime.messages_from_provider, realtime.bytes_from_provider)

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return the text of a scrape and its content type, rendered in a thread; `accept` is the Accept header."""
        self.publish()
        return await asyncio.to_thread(render, self._counters, accept)

    def publish(self) -> None:
        """Write the current samples to the rows that other workers read."""
        samples_now = {(name, *labels): value for samples in self._samples for name, labels, value in samples()}
        for key, value in samples_now.items():
            row = self._row(GROUPS[key[0]], key[1:])
            if key[0] not in GAUGES:
                row[0] += value - self._polled.get(key, 0.0)
                self._polled[key] = value
        for key, row in self._counters.rows():
            if key[0] in GAUGES:
                row[0] = samples_now.get(key, 0.0)

    def publish_often(self) -> None:
        """Publish now and every `PUBLISH_S` until `close`, for workers that cannot call this one's samplers."""
        self.publish()
        self._timer = asyncio.get_running_loop().call_later(PUBLISH_S, self.publish_often)

    def close(self) -> None:
        """Publish the final counts. Counters stay readable for other workers; gauges are left out from then on."""
        if self._timer is not None:
            self._timer.cancel()
        self.publish()
        self._counters.close()

    def _rows_of(self, kind: _MetricKey) -> tuple[Row, Row]:
        gateway, provider, outcome = self._gateway(kind), kind.provider or "", _outcome(kind)
        code, step = _code(kind.code), str(kind.step) if kind.step < _MAX_STEP else f"{_MAX_STEP}+"
        rows = (
            self._row(EVENTS, (gateway, provider, kind.transport, outcome, code, step)),
            self._row(CALLS, (gateway, provider, outcome)),
        )
        _cache(self._event_rows, kind, rows)
        return rows

    def _gateway(self, kind: _MetricKey) -> str:
        return kind.gateway if kind.gateway in self._gateways() else ANY

    def _count_messages(self, kind: _MetricKey, sender: str, messages: int, size: int) -> None:
        row = self._row(REALTIME, (self._gateway(kind), kind.provider or "", sender))
        row[0] += messages
        row[1] += size

    def _attempt_row(self, provider: object, code: object) -> Row:
        row = self._row(ATTEMPTS, (str(provider), _code(code)))
        _cache(self._attempts, (provider, code), row)
        return row

    def _row(self, group: Group, labels: tuple[str, ...]) -> Row:
        try:
            return self._counters.row((group.name, *labels), group.width)
        except CountersFull:
            return self._others[group.name]


def _cache(known: dict[K, V], key: K, rows: V) -> None:
    """Cache rows, and clear the cache when it is full: a wildcard gateway can have any number of names."""
    if len(known) >= MAX_CACHED_ROWS:
        known.clear()
    known[key] = rows


def _observe(row: Row, at: int, metric: Metric, ms: float) -> None:
    seconds = ms / 1000
    row[at + bisect_left(metric.bounds, seconds)] += 1
    row[at + len(metric.bounds) + 1] += seconds


def _outcome(kind: _MetricKey) -> str:
    if kind.code is None:
        return "cached" if kind.cached else "answered"
    return "cancelled" if kind.code == Cancelled.code else "failed"


def _code(code: object) -> str:
    """Return the label of an error: the bridge's code or a provider's HTTP status. Unknown statuses share labels."""
    if not isinstance(code, int):
        return ""
    return str(code) if code >= _FIRST_OWN_CODE or code in _STATUSES else f"{code // 100}xx"
