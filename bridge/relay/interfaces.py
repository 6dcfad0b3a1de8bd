"""What a gateway does for its events beside calling providers. Each service may be absent, and then costs nothing."""

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
"""What the answer of one step cost; an event whose stream broke and began anew has several."""


class Admission(Protocol):
    """One event that was let in."""

    async def acquire(self, planned: PlannedStep) -> Callable[[], None]:
        """Before a provider is called, not before the cache is asked: wait for a turn at it, reserve what it may cost.

        Returns what gives the turn back, which may be after `leave` if other events read the same answer on. Raises
        SpendLimit, TooManyEvents.
        """

    def settle(self, charges: Sequence[Charge]) -> None:
        """The event is over, and cost so much: what was reserved is settled. Called exactly once, and cannot block.

        There may be a cost without `enter`: that of a call which another event made, and left.
        """


class Limiter(Protocol):
    """Who may pass, how often, and for how much money."""

    async def admit(self, context: RequestContext, settings: StepSettings) -> Admission | None:
        """Before the first step. None for an event that nothing limits: nobody is asked about it any more.

        Raises RateLimited, TooManyEvents, and what `Ground.live` does.
        """


class ProviderCaller(Protocol):
    """The provider call of one attempt, with all that has to be asked first."""

    on_connected: Callable[[], None]
    """Of the event's own attempt."""

    @property
    def request(self) -> Call:
        """What is going to be sent, but for a stored key."""

    async def __call__(self) -> UpstreamResponse:
        """All of it. Raises what `enter` and `call` do."""

    async def acquire_slot(self) -> None:
        """Wait for the event's own turn at the provider. Raises SpendLimit, TooManyEvents."""

    def waiting(self) -> AbstractContextManager[None]:
        """While the event waits behind another one's turn: that counts as little as waiting for its own."""

    async def send(self, on_connected: Callable[[], None]) -> UpstreamResponse:
        """Once, right after `enter`, by whoever: the turn is given back when the answer is closed, or there is none.

        Raises KeyUnusable and what `Upstream.open` does.
        """


class Cache(Protocol):
    async def open(self, context: RequestContext, planned: PlannedStep, call: ProviderCaller) -> UpstreamResponse:
        """An answer from the cache, or of a call that is in flight already, or of `dial`.

        Its `cached` tells which, and its `keep` decides whether it is given again. Raises what `dial` does.
        """


class KeySigner(Protocol):
    async def authorize(self, call: Call, planned: PlannedStep) -> Call:
        """The call with the gateway's stored key, where the plan says so. Raises KeyUnusable."""


class Pricer(Protocol):
    """Cheap, for every event asks. None is unknown."""

    def known(self, planned: PlannedStep, usage: Usage | None, reported: Reported) -> Cost | None:
        """Returns what an answer cost as far as the gateway knows, whatever the client says."""

    def claimed(self, planned: PlannedStep, usage: Usage | None, known: Cost | None) -> Cost | None:
        """Returns the cost by the client's own price, with `known` as what is charged; `known` where it gave none."""

    def can_price(self, planned: PlannedStep) -> bool:
        """Returns True if the cost of the call will be known to the gateway, if its answer tells its usage."""

    def expected_usd(self, planned: PlannedStep) -> float | None:
        """Returns the estimate of a call that is not made yet, by its price. Takes time as its body is long."""


Sample = tuple[str, tuple[str, ...], float]
"""What a metric is now: its name, its labels' values, and its value; a counter's, since the process began."""


class Meter(Protocol):
    """Counts events as an observer; what others count it tells with them."""

    def set_known_gateways(self, gateways: Callable[[], Container[str]]) -> None:
        """The names of gateways that are told apart; any other is `*`."""

    def register(self, samples: Callable[[], Iterable[Sample]]) -> None:
        """Ask `readings` whenever somebody wants to know."""

    async def text(self, accept: str) -> tuple[bytes, str]:
        """All metrics for a scraper whose Accept header that is, and the content type."""


@dataclass(frozen=True, slots=True)
class Services:
    limiter: Limiter | None = None
    cache: Cache | None = None
    keys: KeySigner | None = None
    pricer: Pricer | None = None
    observers: tuple[Observer, ...] = ()
    meter: Meter | None = None
    """One of the observers."""
    breakers: Breakers = field(default_factory=Breakers)
    payload_bytes: int = 0
    """How much of a request's and an answer's body observers want to see at most."""
