"""Random plans of events and of the clients that send them, each determined by the seed and its number."""

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

import orjson

from tests.support.soak.bodies import FORMATS, pad

QUICK_MS: Final = 400
"""The timeouts of events whose provider may stall."""

SLUGS: Final = {"custom-plain": 80, "custom-tls": 14, "custom-dead": 6}
LEAVES: Final = ("reset", "fin", "close frame", "half a frame", "broken protocol")


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of an event's chain."""

    slug: str
    kind: str


@dataclass(frozen=True, slots=True)
class EventPlan:
    """One event."""

    number: int
    family: int
    """The number of the first event with the same cache key; its own if it has none."""
    steps: tuple[StepPlan, ...]
    config: dict[str, Any]
    model: str
    upload: str
    is_quick: bool = False
    is_big: bool = False
    cancel_after: int | None = None
    """The number of frames after which the client cancels."""
    cancel_delay_s: float | None = None

    @property
    def is_raw(self) -> bool:
        return bool(self.config.get("frames") == "raw")

    @property
    def is_cached(self) -> bool:
        return "cacheKey" in self.config

    @property
    def is_cancelled(self) -> bool:
        return self.cancel_after is not None or self.cancel_delay_s is not None

    @property
    def may_be_skipped(self) -> bool:
        """True if a breaker may skip steps: others use its key, too."""
        return self.model == "shared"

    def request(self) -> list[dict[str, Any]]:
        return [
            {
                "provider": step.slug,
                "endpoint": FORMATS[step.kind][1],
                "headers": self.headers(index),
                "query": self.query(),
                "config": self.config,
            }
            for index, step in enumerate(self.steps)
        ]

    def headers(self, step: int) -> dict[str, str]:
        return {"content-type": "application/json", "x-soak": f"{self.family}.{step}"}

    def query(self) -> dict[str, Any]:
        return {"model": self.model, "stream": True, "prompt": self.upload}

    def native_request(self) -> bytes:
        return orjson.dumps(self.query())


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """One client connection, or a few for one after the other, and its events."""

    events: tuple[EventPlan, ...]
    over_http: bool
    window: int
    """Number of events that are in flight at the same time."""
    leave: str | None = None
    leave_after: int = 0
    """Frames until the client leaves; over HTTP, requests."""
    pause_after: int | None = None
    pause_s: float = 0.0
    receive_bytes: int = 65_536
    native: frozenset[int] = field(default_factory=frozenset)
    """Numbers of the events that are sent to a provider's own path."""


def session_of(seed: int, first: int, size: int) -> SessionPlan:
    """Return the plan of a session whose events are numbered from `first`."""
    rng = Random(f"{seed}/session/{first}")
    over_http = rng.random() < 0.25
    stops_reading = rng.random() < 0.12
    events = list[EventPlan]()
    for number in range(first, first + size):
        last = events[-1] if events else None
        if last is not None and last.is_cached and rng.random() < 0.7:
            events.append(replace(last, number=number))
        else:
            events.append(_event(rng, number, is_big=stops_reading and rng.random() < 0.5))
    native = frozenset(each.number for each in events if over_http and _can_be_native(each))
    leaves = rng.random() < 0.12
    return SessionPlan(
        tuple(events),
        over_http,
        window=rng.choice((1, 2, 4, 8, size)),
        leave=rng.choice(LEAVES) if leaves else None,
        leave_after=rng.randrange(size if over_http else 8 * size),
        pause_after=rng.randrange(8) if stops_reading else None,
        pause_s=rng.uniform(0.1, 0.5),
        receive_bytes=16_384 if stops_reading else 65_536,
        native=native,
    )


def _can_be_native(event: EventPlan) -> bool:
    return len(event.steps) == 1 and not event.is_quick and not event.is_cached


def _event(rng: Random, number: int, *, is_big: bool) -> EventPlan:
    is_quick = rng.random() < 0.2
    slugs = rng.choices(list(SLUGS), list(SLUGS.values()), k=rng.choice((1, 1, 2, 3)))
    weights = [weight for _, _, weight in FORMATS.values()]
    steps = tuple(StepPlan(slug, rng.choices(list(FORMATS), weights)[0]) for slug in slugs)
    config: dict[str, Any] = {"retryDelay": rng.choice((0, 5)), "maxAttempts": rng.choice((1, 1, 2, 3))}
    if is_quick:
        config |= {"requestTimeout": QUICK_MS, "idleTimeout": QUICK_MS, "totalTimeout": 8 * QUICK_MS}
    if rng.random() < 0.4:
        config["onBreak"] = "restart"
    if rng.random() < 0.2:
        config["frames"] = "raw"
    if rng.random() < 0.06 and not is_big:
        config |= {"cacheTtl": 60, "cacheKey": f"family {number}"}
    cancel = rng.choices(("never", "frames", "delay"), (90, 6, 4))[0]
    return EventPlan(
        number,
        number,
        steps,
        config,
        model="shared" if rng.random() < 0.03 else f"model-{number}",
        upload=pad(rng, 60_000) * 4 if rng.random() < 0.02 else pad(rng, rng.randrange(300)),
        is_quick=is_quick,
        is_big=is_big,
        cancel_after=rng.randrange(6) if cancel == "frames" else None,
        cancel_delay_s=rng.uniform(0, 0.03) if cancel == "delay" else None,
    )
