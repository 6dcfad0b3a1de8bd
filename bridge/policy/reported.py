"""Decides how much of what an answer's body says about tokens and costs is believed. Pure.

A body may be anything: a file that a client downloads, or the words of a server that somebody runs. So a cost counts
only from a provider that is known to report costs, in the answer of a model endpoint, and within bounds.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from bridge.formats.usage import Usage, at
from bridge.providers import Provider
from bridge.providers.model_endpoints import is_model_endpoint

MAX_TOKENS: Final = 10_000_000
"""Of each kind, in one event."""
MAX_TIMES_ESTIMATE: Final = 10
"""A reported cost counts up to so many times the estimate."""
UNPRICED_USD: Final = 1.0
"""The estimate for a call whose price is not known, and whose provider will report the cost."""

Reported: TypeAlias = Mapping[str, Any]
"""The members of an answer's usage that tell a cost, as the provider wrote them."""


def bounded_usage(usage: Usage) -> Usage:
    """The same counts, each at most `MAX_TOKENS`; the total is then the sum of those of input and output."""
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
    """True if the answer to such a call may say what it cost."""
    return provider.cost_report is not None and is_model_endpoint(method, endpoint, provider.slug)


def reported_usd(provider: Provider, method: str, endpoint: str, reported: Reported) -> float | None:
    """US dollars; None where the body tells no cost, or is not believed."""
    report = provider.cost_report
    if report is None or not reported or not reports_costs(provider, method, endpoint):
        return None
    amount = at(reported, report.member)
    is_amount = type(amount) in (int, float) and 0 <= amount < float("inf")
    return amount / report.per_usd if is_amount else None
