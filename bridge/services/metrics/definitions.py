"""The table of all metrics. The metrics of a group share their labels and one row of numbers."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal

_BRIDGE_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0)
_ANSWER_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_EVENT_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    bounds: tuple[float, ...] = ()
    """The inclusive upper bounds of a histogram's buckets, without the infinite one."""

    @property
    def width(self) -> int:
        """Return the count of numbers in a row: for a histogram one for each bucket, then the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


@dataclass(frozen=True, slots=True)
class Group:
    labels: tuple[str, ...]
    metrics: tuple[Metric, ...]

    @property
    def name(self) -> str:
        """Return the first part of the keys of its rows."""
        return self.metrics[0].name

    @property
    def width(self) -> int:
        return sum(metric.width for metric in self.metrics)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Return the position of each metric in a row."""
        return tuple(accumulate((metric.width for metric in self.metrics[:-1]), initial=0))


def _single(kind: Literal["counter", "gauge"], name: str, text: str, *labels: str) -> Group:
    return Group(labels, (Metric(name, kind, text),))


EVENTS: Final = _single(
    "counter",
    "bridge_events_total",
    "Events that have ended. `outcome`: answered, cached, failed or cancelled; `code`: the error's, empty without one.",
    "gateway",
    "provider",
    "transport",
    "outcome",
    "code",
    "step",
)

FIRST_ANSWER: Final = Metric(
    "bridge_first_answer_seconds", "histogram", "Time from an event's start to its first answer item.", _ANSWER_S
)
DURATION: Final = Metric(
    "bridge_duration_seconds", "histogram", "Time from an event's start to its last frame.", _EVENT_S
)
ADDED: Final = Metric(
    "bridge_added_seconds",
    "histogram",
    "Time from an event's start to its first provider call: the bridge's share, waiting for a slot included.",
    _BRIDGE_S,
)
CALLS: Final = Group(
    ("gateway", "provider", "outcome"),
    (
        DURATION,
        FIRST_ANSWER,
        ADDED,
        Metric("bridge_chunks_total", "counter", "Frames that carried a part of a stream."),
        Metric("bridge_request_bytes_total", "counter", "Bytes of request bodies; in realtime, of messages."),
        Metric(
            "bridge_answer_bytes_total", "counter", "Bytes of answer bodies, decompressed; in realtime, of messages."
        ),
        Metric("bridge_input_tokens_total", "counter", "Input tokens as reported by providers, cached ones included."),
        Metric("bridge_cached_tokens_total", "counter", "Input tokens that the provider read from its own cache."),
        Metric("bridge_output_tokens_total", "counter", "Output tokens as reported by providers, reasoning included."),
        Metric("bridge_cost_usd_total", "counter", "Charged cost of events in US dollars, where it is known."),
    ),
)

ATTEMPTS: Final = _single(
    "counter",
    "bridge_attempts_total",
    "Attempts, those that a retry or fallback followed included, and skipped steps (code 9023).",
    "provider",
    "code",
)

REALTIME: Final = Group(
    ("gateway", "provider", "sender"),
    (
        Metric(
            "bridge_realtime_messages_total",
            "counter",
            "Messages of realtime sessions that have ended. `sender`: client or provider.",
        ),
        Metric("bridge_realtime_bytes_total", "counter", "Bytes of these messages."),
    ),
)

ACTIVE_EVENTS: Final = _single(
    "gauge",
    "bridge_events_in_flight",
    "Events and realtime sessions in flight. `provider` is empty before the first provider call.",
    "provider",
    "phase",
)
SOCKETS: Final = _single("gauge", "bridge_sockets", "Open WebSockets.")
MEMORY: Final = _single("gauge", "bridge_memory_used_bytes", "Used part of `memory_budget_bytes`.")
BREAKERS: Final = _single(
    "gauge",
    "bridge_breakers",
    "Breakers that are not closed, by state: failing (not yet open), open, probing.",
    "provider",
    "state",
)
CACHE_LOOKUPS: Final = _single(
    "counter",
    "bridge_cache_lookups_total",
    "Calls for which the cache was on. `result`: hit, joined (one in flight), miss.",
    "result",
)
CACHE_BYTES: Final = _single("gauge", "bridge_cache_bytes", "Memory of cached answers.")
CACHE_EVICTIONS: Final = _single(
    "counter", "bridge_cache_evictions_total", "Cached answers that were removed to make room."
)
CACHE_FAULTS: Final = _single("counter", "bridge_cache_faults_total", "Failures of the cache's file or of Redis.")
LOG_DROPPED: Final = _single(
    "counter",
    "bridge_log_dropped_total",
    "Events without a row in the request log because its file was full, slow, locked or damaged.",
)
LOG_WAITING: Final = _single("gauge", "bridge_log_waiting", "Events whose row of the request log is not written yet.")
LOG_FAULTS: Final = _single(
    "counter",
    "bridge_log_faults_total",
    "Failures to open or write the request log, and damaged files.",
)
TAPES_WAITING: Final = _single(
    "gauge", "bridge_tapes_waiting", "Ended exchanges whose tape is not written yet (`--record`)."
)
SPANS: Final = _single(
    "counter", "bridge_spans_total", "Spans that were sent, refused by the collector, or dropped before.", "result"
)
REDIS_LOST: Final = _single("gauge", "bridge_redis_lost", "Processes that work without the Redis of `redis_url` now.")
REDIS_LOSSES: Final = _single("counter", "bridge_redis_losses_total", "Losses of Redis.")
REDIS_FAILED: Final = _single(
    "counter",
    "bridge_redis_failed_calls_total",
    "Redis commands that failed, or were not tried because Redis was lost.",
)
DRAINING: Final = _single("gauge", "bridge_draining", "Processes that are shutting down.")
PROCESSES: Final = _single("gauge", "bridge_processes", "Processes that serve.", "version")
