"""Counts and times of events, kept in rows of doubles (`storage.tallies`) that `exposition` makes text of.

Prometheus' own client counts behind locks, in one registry or one folder for the whole process, and leaves a file
behind for each worker that ever lived; here an event costs a lookup and some additions, each server has its own, and
what many workers counted is one sum.
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
"""How old at most is what siblings tell of a worker's gauges."""
MAX_CACHED_ROWS: Final = 4096
"""Of which the rows are kept at hand."""
_MOST_STEPS: Final = 8
_STATUSES: Final = frozenset(HTTPStatus)
_FIRST_OWN_CODE: Final = 1000

(_DURATION, _FIRST, _ADDED, _CHUNKS, _REQUEST, _ANSWER, _INPUT, _CACHED, _OUTPUT, _COST) = CALLS.offsets


K = TypeVar("K")
V = TypeVar("V")


class _MetricKey(NamedTuple):
    """All that labels are made of, as an entry has it."""

    gateway: str
    provider: str | None
    transport: str
    code: int | None
    cached: bool
    step: int


class Metrics:
    """An observer of events, and a reader of everybody's gauges. One server's, in its loop's thread."""

    def __init__(self, counters: SharedCounters) -> None:
        """The tally is closed with it."""
        self._counters = counters
        self._gateways: Callable[[], Container[str]] = frozenset
        self._kinds: dict[_MetricKey, tuple[Row, Row]] = {}
        self._tries: dict[tuple[object, object], Row] = {}
        self._samples: list[Sampler] = []
        self._polled: dict[tuple[str, ...], float] = {}
        self._others = {
            name: counters.row((name, *(OTHER for _ in group.labels)), group.width) for name, group in GROUPS.items()
        }
        self._timer: asyncio.TimerHandle | None = None

    def set_known_gateways(self, gateways: Callable[[], Container[str]]) -> None:
        """The names of gateways that are told apart; any other is `*`."""
        self._gateways = gateways

    def register(self, samples: Sampler) -> None:
        """Ask it at every scrape."""
        self._samples.append(samples)

    def on_event_end(self, summary: EventSummary) -> None:
        kind = _MetricKey(
            summary.gateway, summary.provider, summary.transport, summary.code, summary.cached, summary.step
        )
        event, calls = self._kinds.get(kind) or self._rows_of(kind)
        event[0] += 1
        _observe(calls, _DURATION, DURATION, summary.duration_ms)
        if summary.first_answer_ms is not None:
            _observe(calls, _FIRST, FIRST_ANSWER, summary.first_answer_ms)
        if summary.added_ms is not None:
            _observe(calls, _ADDED, ADDED, summary.added_ms)
        calls[_CHUNKS] += summary.chunks
        calls[_REQUEST] += summary.request_bytes
        calls[_ANSWER] += summary.answer_bytes
        usage = (
            summary.usage if summary.code is None else summary.used
        )  # what was saved has a label of its own: `cached`
        if usage is not None:
            calls[_INPUT] += usage.input_tokens or 0
            calls[_CACHED] += usage.cached_tokens or 0
            calls[_OUTPUT] += usage.output_tokens or 0
        if summary.cost is not None:
            calls[_COST] += summary.cost.charged_usd
        for attempt in summary.attempts:
            tried = (attempt["provider"], attempt.get("code"))
            row = self._tries.get(tried) or self._tried(*tried)
            row[0] += 1
        if (talk := summary.realtime) is not None:
            self._talked(kind, "client", talk.messages_from_client, talk.bytes_from_client)
            self._talked(kind, "provider", talk.messages_from_provider, talk.bytes_from_provider)

    async def text(self, accept: str) -> tuple[bytes, str]:
        """What a scrape gets, and its content type; `accept` is the header. The work is a thread's."""
        self.publish()
        return await asyncio.to_thread(render, self._counters, accept)

    def publish(self) -> None:
        """Write down what the readings tell, where siblings find it."""
        told = {(name, *labels): value for samples in self._samples for name, labels, value in samples()}
        for key, value in told.items():
            row = self._row(GROUPS[key[0]], key[1:])
            if key[0] not in GAUGES:
                row[0] += value - self._polled.get(key, 0.0)
                self._polled[key] = value
        for key, row in self._counters.rows():
            if key[0] in GAUGES:
                row[0] = told.get(key, 0.0)

    def publish_often(self) -> None:
        """Now and from now on, until `close`: for siblings, who cannot ask."""
        self.publish()
        self._timer = asyncio.get_running_loop().call_later(PUBLISH_S, self.publish_often)

    def close(self) -> None:
        """The last word: the counters stay, the gauges go."""
        if self._timer is not None:
            self._timer.cancel()
        self.publish()
        self._counters.close()

    def _rows_of(self, kind: _MetricKey) -> tuple[Row, Row]:
        gateway, provider, outcome = self._gateway(kind), kind.provider or "", _outcome(kind)
        code, step = _code(kind.code), str(kind.step) if kind.step < _MOST_STEPS else f"{_MOST_STEPS}+"
        rows = (
            self._row(EVENTS, (gateway, provider, kind.transport, outcome, code, step)),
            self._row(CALLS, (gateway, provider, outcome)),
        )
        _put(self._kinds, kind, rows)
        return rows

    def _gateway(self, kind: _MetricKey) -> str:
        return kind.gateway if kind.gateway in self._gateways() else ANY

    def _talked(self, kind: _MetricKey, sender: str, messages: int, size: int) -> None:
        row = self._row(REALTIME, (self._gateway(kind), kind.provider or "", sender))
        row[0] += messages
        row[1] += size

    def _tried(self, provider: object, code: object) -> Row:
        row = self._row(ATTEMPTS, (str(provider), _code(code)))
        _put(self._tries, (provider, code), row)
        return row

    def _row(self, group: Group, labels: tuple[str, ...]) -> Row:
        try:
            return self._counters.row((group.name, *labels), group.width)
        except CountersFull:
            return self._others[group.name]


def _put(known: dict[K, V], key: K, rows: V) -> None:
    """Kept at hand, until there are too many: a gateway for any name has any number of names."""
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
    """An error's code: one of the bridge's own, or a provider's HTTP status, of which the unknown count together."""
    if not isinstance(code, int):
        return ""
    return str(code) if code >= _FIRST_OWN_CODE or code in _STATUSES else f"{code // 100}xx"
