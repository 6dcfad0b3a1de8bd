"""Interfaces of the optional services of a gateway. A service that is absent costs nothing."""

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from bridge.formats.stream_reader import Usage
from bridge.policy.breaker import Breakers
from bridge.policy.reported import Reported
from bridge.relay.plan import PlannedStep, RequestContext
from bridge.relay.summary import Cost, Observer
from bridge.settings.step import StepSettings
from bridge.upstream.answer import UpstreamResponse
from bridge.upstream.http import Call

Charge = tuple[PlannedStep, Cost]
"""A step and its cost. An event with a restarted stream has several charges."""


class Admission(Protocol):
    """Limits of one admitted event."""

    async def acquire(self, planned: PlannedStep) -> Callable[[], None]:
        """Wait for a concurrency slot at the provider and reserve the expected cost. Call it after the cache lookup.

        Returns a function that releases the slot. It may be called after `settle` if other events still read the
        response. Raises SpendLimit, TooManyEvents.
        """

    def settle(self, charges: Sequence[Charge]) -> None:
        """Replace the reservation by the event's cost. Called exactly once, and does not block.

        There may be a cost without `acquire`: that of a shared call which another event started and left.
        """


class Limiter(Protocol):
    """Limits on rate, concurrency and cost."""

    async def admit(self, context: RequestContext, settings: StepSettings) -> Admission | None:
        """Admit an event before its first step. Returns None if no limit applies to it.

        Raises RateLimited, TooManyEvents, and the errors of `RequestContext.current_gateway`.
        """


class ProviderCaller(Protocol):
    """The provider call of one attempt, with its concurrency slot and its stored key."""

    on_connected: Callable[[], None]
    """Callback of the event's own attempt."""

    @property
    def request(self) -> Call:
        """The request to send, without a stored key."""

    async def __call__(self) -> UpstreamResponse:
        """Acquire a slot and send. Raises the errors of `acquire_slot` and `send`."""

    async def acquire_slot(self) -> None:
        """Wait for a concurrency slot at the provider. Raises SpendLimit, TooManyEvents."""

    def waiting(self) -> AbstractContextManager[None]:
        """Suspend the connect and request deadlines while the event waits for a slot, its own or a shared one."""

    async def send(self, on_connected: Callable[[], None]) -> UpstreamResponse:
        """Send the request. Call it once, directly after `acquire_slot`.

        The slot is released when the response is closed or the call fails. Raises KeyUnusable and the errors of
        `Upstream.open`.
        """


class Cache(Protocol):
    async def open(self, context: RequestContext, planned: PlannedStep, call: ProviderCaller) -> UpstreamResponse:
        """Return a response from the cache, from a shared call in flight, or from `call`.

        Its `cached` is False if this event's provider was called; `mark_complete` makes it reusable. Raises the errors
        of `call`.
        """


class KeySigner(Protocol):
    async def authorize(self, call: Call, planned: PlannedStep) -> Call:
        """Return the call with the gateway's stored key, if the plan has one. Raises KeyUnusable."""


class Pricer(Protocol):
    """Prices of calls. Each method is called for every event and is cheap. None means unknown."""

    def known(self, planned: PlannedStep, usage: Usage | None, reported: Reported) -> Cost | None:
        """Return the cost of an answer as the gateway knows it, whatever the client claims."""

    def claimed(self, planned: PlannedStep, usage: Usage | None, known: Cost | None) -> Cost | None:
        """Return the cost at the client's price, with `known` as the charge; `known` if there is no such price."""

    def can_price(self, planned: PlannedStep) -> bool:
        """Return True if the gateway can compute the cost once the answer reports its usage."""

    def expected_usd(self, planned: PlannedStep) -> float | None:
        """Return the estimated cost of a call before it is made. The time is linear in its body."""


Sample = tuple[str, tuple[str, ...], float]
"""Name, label values and value of a metric. Counters count from the start of the process."""


class Meter(Protocol):
    """Metrics: counts events as an observer, and reports the samples of other services."""

    def set_known_gateways(self, gateways: Callable[[], Container[str]]) -> None:
        """Set the gateways that are label values of their own; any other is reported as `*`."""

    def register(self, samples: Callable[[], Iterable[Sample]]) -> None:
        """Add a source of samples, which is called for each scrape."""

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format for this Accept header, and the content type."""


@dataclass(frozen=True, slots=True)
class Services:
    limiter: Limiter | None = None
    cache: Cache | None = None
    keys: KeySigner | None = None
    pricer: Pricer | None = None
    observers: tuple[Observer, ...] = ()
    meter: Meter | None = None
    """Also one of the observers."""
    breakers: Breakers = field(default_factory=Breakers)
    payload_bytes: int = 0
    """Largest number of bytes of a request or response body that observers use."""
