"""Decide which tokens and costs reported in a response are accepted. Pure.

A body may be anything: a downloaded file, or the response of an arbitrary server. So a cost counts only from a provider
that is known to report costs, in the response of a model endpoint, and within bounds.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from bridge.formats.usage import Usage, at
from bridge.providers import Provider
from bridge.providers.model_endpoints import is_model_endpoint

MAX_TOKENS: Final = 10_000_000
"""Upper bound for each kind of tokens of one event."""
MAX_TIMES_ESTIMATE: Final = 10
"""A reported cost counts up to this multiple of the estimate."""
UNPRICED_USD: Final = 1.0
"""Estimate for a call without a known price whose provider reports the cost."""

Reported: TypeAlias = Mapping[str, Any]
"""Members of the usage that report a cost, as the provider wrote them."""


def bounded_usage(usage: Usage) -> Usage:
    """Return the counts, each at most `MAX_TOKENS`. A changed total is the sum of input and output."""
    counts = msgspec.structs.asdict(usage)
    over = {name: MAX_TOKENS for name, count in counts.items() if count is not None and count > MAX_TOKENS}
    if not over:
        return usage
    bounded = msgspec.structs.replace(usage, **over)
    inputs, outputs = bounded.input_tokens, bounded.output_tokens
    if bounded.total_tokens is None or inputs is None or outputs is None:
        return bounded
    return msgspec.structs.replace(bounded, total_tokens=inputs + outputs)


def reports_costs(provider: Provider, method: str, endpoint: str) -> bool:
    """Return True if the response to such a call may report its cost."""
    return provider.cost_report is not None and is_model_endpoint(method, endpoint, provider.slug)


def reported_usd(provider: Provider, method: str, endpoint: str, reported: Reported) -> float | None:
    """Return the reported cost in US dollars; None if there is none, or if it is not accepted."""
    report = provider.cost_report
    if report is None or not reported or not reports_costs(provider, method, endpoint):
        return None
    amount = at(reported, report.member)
    is_amount = type(amount) in (int, float) and 0 <= amount < float("inf")
    return amount / report.per_usd if is_amount else None
