"""Render the summed rows of all workers as text for Prometheus."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, Final

from bridge.services.metrics import definitions
from bridge.services.metrics.definitions import Group, Metric
from bridge.services.metrics.shared_counters import Key, SharedCounters

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

GROUPS: Final = {group.name: group for group in vars(definitions).values() if isinstance(group, Group)}
GAUGES: Final = frozenset(name for name, group in GROUPS.items() if group.metrics[0].kind == "gauge")
OTHER: Final = "other"
"""The label of the row that counts everything for which no row was left."""

Sums = Mapping[Key, list[float]]


def render(counters: SharedCounters, accept: str) -> tuple[bytes, str]:
    """Return the text in the format that the Accept header prefers, and its content type. Reads files."""
    # Imported on the first scrape: the import takes a large part of the bridge's start time.
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(_Collector(counters)), content_type


class _Collector:
    def __init__(self, counters: SharedCounters) -> None:
        self._counters = counters

    def collect(self) -> Iterator["Family"]:
        by_group: dict[str, dict[Key, list[float]]] = {}
        for key, values in _sums(self._counters).items():
            if any(values) or OTHER not in key:
                by_group.setdefault(key[0], {})[key[1:]] = values
        for name, group in GROUPS.items():
            for metric, at in zip(group.metrics, group.offsets, strict=True):
                yield _family(metric, at, group.labels, by_group.get(name, {}))


def _sums(counters: SharedCounters) -> Sums:
    """Return the sums over all processes. Gauges of processes that have ended are left out."""
    sums = {key: list(row) for key, row in counters.rows()}
    for key, row, is_alive in counters.others():
        if is_alive or key[0] not in GAUGES:
            sums[key] = list(map(add, sums.get(key, [0.0] * len(row)), row))
    return sums


def _family(metric: Metric, at: int, labels: tuple[str, ...], rows: Sums) -> "Family":
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        for values, row in rows.items():
            sum_at = at + metric.width - 1
            histogram.add_metric(values, _buckets(metric, row[at:sum_at]), row[sum_at])
        return histogram
    family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
        metric.name, metric.help, labels=labels
    )
    for values, row in rows.items():
        family.add_metric(values, row[at])
    return family


def _buckets(metric: Metric, counts: Iterable[float]) -> list[tuple[str, float]]:
    bounds = (*map(str, metric.bounds), "+Inf")
    return list(zip(bounds, accumulate(counts), strict=True))
