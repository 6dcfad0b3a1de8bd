"""Every metric that the bridge has: the one table of them. Metrics of one group share their labels and one row."""

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
    """A histogram's, upper and inclusive, without the infinite one."""

    @property
    def width(self) -> int:
        """Numbers it takes in a row: of a histogram one for each bucket, then the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


@dataclass(frozen=True, slots=True)
class Group:
    labels: tuple[str, ...]
    metrics: tuple[Metric, ...]

    @property
    def name(self) -> str:
        """What its rows' keys begin with."""
        return self.metrics[0].name

    @property
    def width(self) -> int:
        return sum(metric.width for metric in self.metrics)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where in the row each metric begins."""
        return tuple(accumulate((metric.width for metric in self.metrics[:-1]), initial=0))


def _alone(kind: Literal["counter", "gauge"], name: str, text: str, *labels: str) -> Group:
    return Group(labels, (Metric(name, kind, text),))


EVENTS: Final = _alone(
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
    "bridge_first_answer_seconds", "histogram", "From an event's beginning to its first answer item.", _ANSWER_S
)
DURATION: Final = Metric(
    "bridge_duration_seconds", "histogram", "From an event's beginning to its last frame.", _EVENT_S
)
ADDED: Final = Metric(
    "bridge_added_seconds",
    "histogram",
    "From an event's beginning to its first provider call: what the bridge took, waiting for a turn included.",
    _BRIDGE_S,
)
CALLS: Final = Group(
    ("gateway", "provider", "outcome"),
    (
        DURATION,
        FIRST_ANSWER,
        ADDED,
        Metric("bridge_chunks_total", "counter", "Frames that carried a piece of a stream."),
        Metric("bridge_request_bytes_total", "counter", "Bytes of requests' bodies; in realtime, of messages."),
        Metric("bridge_answer_bytes_total", "counter", "Bytes of answers' bodies, inflated; in realtime, of messages."),
        Metric("bridge_input_tokens_total", "counter", "Tokens that went in, cached ones included, as providers told."),
        Metric("bridge_cached_tokens_total", "counter", "Those of them that the provider had in its own cache."),
        Metric("bridge_output_tokens_total", "counter", "Tokens that came out, thoughts included, as providers told."),
        Metric("bridge_cost_usd_total", "counter", "What was charged for events, in US dollars, where it is known."),
    ),
)

ATTEMPTS: Final = _alone(
    "counter",
    "bridge_attempts_total",
    "Tries of a step, those that a retry or fallback made good included, and steps that were skipped (code 9023).",
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

IN_FLIGHT: Final = _alone(
    "gauge",
    "bridge_events_in_flight",
    "Events and realtime sessions that run. `provider` is empty before one was asked.",
    "provider",
    "phase",
)
SOCKETS: Final = _alone("gauge", "bridge_sockets", "WebSockets that are open.")
MEMORY: Final = _alone("gauge", "bridge_memory_used_bytes", "What of `memory_budget_bytes` is used.")
BREAKERS: Final = _alone(
    "gauge",
    "bridge_breakers",
    "Breakers that are not closed, by state: failing (not yet open), open, probing.",
    "provider",
    "state",
)
CACHE_LOOKUPS: Final = _alone(
    "counter",
    "bridge_cache_lookups_total",
    "Calls for which the cache was on. `result`: hit, joined (one in flight), miss.",
    "result",
)
CACHE_BYTES: Final = _alone("gauge", "bridge_cache_bytes", "What answers that the cache holds take in memory.")
CACHE_EVICTIONS: Final = _alone("counter", "bridge_cache_evictions_total", "Answers that made room for others.")
CACHE_FAULTS: Final = _alone(
    "counter", "bridge_cache_faults_total", "How often the cache's file or Redis was of no use."
)
LOG_DROPPED: Final = _alone(
    "counter",
    "bridge_log_dropped_total",
    "Events that were to have a row in the request log and have none: its file was full, slow, locked or broken.",
)
LOG_WAITING: Final = _alone("gauge", "bridge_log_waiting", "Events whose row in the request log is not written yet.")
LOG_FAULTS: Final = _alone(
    "counter",
    "bridge_log_faults_total",
    "How often the request log could not be opened or written, or was damaged.",
)
TAPES_WAITING: Final = _alone(
    "gauge", "bridge_tapes_waiting", "Exchanges that have ended and whose tape is not written yet (`--record`)."
)
SPANS: Final = _alone(
    "counter", "bridge_spans_total", "Spans that were sent, refused by their collector, or dropped before it.", "result"
)
REDIS_LOST: Final = _alone("gauge", "bridge_redis_lost", "Processes that go without the Redis of `redis_url` now.")
REDIS_LOSSES: Final = _alone("counter", "bridge_redis_losses_total", "How often Redis was lost.")
REDIS_FAILED: Final = _alone(
    "counter", "bridge_redis_failed_calls_total", "Commands that failed, or were not tried, for Redis was lost."
)
DRAINING: Final = _alone("gauge", "bridge_draining", "Processes that are shutting down.")
PROCESSES: Final = _alone("gauge", "bridge_processes", "Processes that serve.", "version")
