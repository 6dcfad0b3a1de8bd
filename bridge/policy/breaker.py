"""Decide which providers are skipped for a while, and when each may be tried again.

A key is closed until `FAILURES` failures in a row occur within `WINDOW_S`. Then it is open: calls skip it. Once it is
due, one call is permitted, its probe: an answer closes the key, a failure opens it for twice as long, at most for
`MAX_INTERVAL_S`. A call may also be forced before the key is due; its failure reopens the key for the same interval.

    (nothing known) ──failed──▶ Failing ──failed──▶ Open ─acquire─▶ Probing ──failed──▶ Open, doubled if it was due
           ▲                       │                  │  ◀─release──   │
           └──────succeeded────────┴────answered──────┴────────────────┘

Each key belongs to one token, so that the failures of one token do not affect another. If the keys of two tokens are
open, the gateway's other tokens skip the provider as well, until at most one of the two is not yet due.

States of other processes are merged by `merge`; `Report` receives the changes made here.

Instants and intervals are seconds of one clock that never runs backwards.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, assert_never

from bridge.policy.backoff import next_delay_s

FAILURES: Final = 5
WINDOW_S: Final = 30.0
FIRST_INTERVAL_S: Final = 5.0
MAX_INTERVAL_S: Final = 20.0
MAX_KEYS: Final = 4096
MAX_KEYS_PER_TOKEN: Final = 128
"""Clients choose the models: without this bound one token's keys would evict those of all others."""


@dataclass(frozen=True, slots=True)
class BreakerKey:
    gateway: str
    token: str
    """Name of the token; empty for an open gateway."""
    base_url: str
    model: str | None
    provider: str = field(default="", compare=False)
    """The slug, for metrics: two providers of one base URL share their keys."""

    @property
    def target(self) -> "_Name":
        """The gateway, base URL and model: equal for the keys of different tokens that mean the same."""
        return self.gateway, self.base_url, self.model

    @property
    def owner(self) -> "_Name":
        return self.gateway, self.token


@dataclass(frozen=True, slots=True)
class Failing:
    """Closed, with a row of failures; oldest first, fewer than `FAILURES`."""

    failed_at: tuple[float, ...]
    due_at: ClassVar[float] = -math.inf


@dataclass(frozen=True, slots=True)
class Open:
    interval_s: float
    due_at: float


@dataclass(frozen=True, slots=True)
class Probing:
    """Open, with one call in flight that tests the provider.

    `Breakers.acquire` returns the object, and `failed` and `release` compare it by identity: a probe that was replaced
    has no effect, also if a later one is equal, and each is valid once.
    """

    opened: Open
    due_at: float
    """Instant from which another call may replace the running probe."""
    was_due: bool
    """True if the interval had passed. A forced probe does not show how long the outage lasts."""


State = Failing | Open | Probing

_Name = tuple[str | None, ...]
_Index = dict[_Name, dict[BreakerKey, None]]
"""Keys by a common property, in the order of their changes."""

Report = Callable[[BreakerKey, float | None], None]
"""Called with each key that was opened here and its interval in seconds, or None if it was closed. Must not block."""


def _ignore(key: BreakerKey, open_s: float | None) -> None:
    """Report to no other process."""


class Breakers:
    """The keys that have failed recently: at most `max_keys`, and `max_keys_per_token` of one token.

    Above these limits the least recently changed key is evicted first.
    """

    __slots__ = ("_max_keys", "_max_keys_per_token", "_of_token", "_open_for", "_report", "_states")

    def __init__(
        self, max_keys: int = MAX_KEYS, max_keys_per_token: int = MAX_KEYS_PER_TOKEN, report: Report = _ignore
    ) -> None:
        self._max_keys = max_keys
        self._max_keys_per_token = max_keys_per_token
        self._report = report
        self._states: dict[BreakerKey, State] = {}
        self._of_token: _Index = {}
        """All keys, by gateway and token."""
        self._open_for: _Index = {}
        """The keys that are open or being probed, by gateway, base URL and model."""

    def __len__(self) -> int:
        return len(self._states)

    def items(self) -> Iterable[tuple[BreakerKey, State]]:
        return self._states.items()

    def due_at(self, key: BreakerKey) -> float:
        """Return the instant from which a call may pass; minus infinity for a closed key."""
        if not self._states:
            return -math.inf
        state = self._states.get(key)
        return state.due_at if isinstance(state, Open | Probing) else self._gateway_due_at(key)

    def due_first(self, keys: Sequence[BreakerKey]) -> int:
        """Return the index of the key that is due first; one with a probe in flight only if all have one."""
        return min(range(len(keys)), key=lambda index: (self._is_probed(keys[index]), self.due_at(keys[index]), index))

    def acquire(self, key: BreakerKey, now: float) -> Probing | None:
        """Start a call, due or not. Return the probe if the call is the key's probe, else None.

        Pass the probe to `failed` or `release`; otherwise it blocks other calls for its interval. A call that is
        forced beside a running probe is not a probe: one at a time measures how long the outage lasts.
        """
        if not self._states:
            return None
        state = self._states.get(key)
        match state:
            case None | Failing():
                return None
            case Open():
                return self._probe(key, state, now)
            case Probing():
                return self._probe(key, state.opened, now) if now >= state.due_at else None
            case _:
                assert_never(state)

    def answered(self, key: BreakerKey) -> None:
        """Close the key after an answer of its probe or of another call has started.

        A row of failures is kept, because the answer may still break and count as a failure.
        """
        if self._states and not isinstance(self._states.get(key), Failing):
            self.succeeded(key)

    def succeeded(self, key: BreakerKey) -> None:
        """Close and remove the key after a complete answer."""
        if not self._states:
            return
        if isinstance(self._drop(key), Open | Probing):
            self._report(key, None)

    def failed(self, key: BreakerKey, now: float, probe: Probing | None) -> None:
        """Count a failure caused by the provider; `probe` is the result of `acquire`."""
        state = self._states.get(key)
        match state:
            case None:
                self._fail(key, _after_failure((), now))
            case Failing():
                self._fail(key, _after_failure(state.failed_at, now))
            case Probing() if state is probe:
                self._fail(key, _opened(_next_interval_s(state), now))
            case Open() | Probing():
                pass  # a call from before the key opened, or a retry: only probes tell how long an outage is
            case _:
                assert_never(state)

    def release(self, key: BreakerKey, probe: Probing | None) -> None:
        """End a probe that showed nothing about the provider; the key is as before."""
        if probe is not None and self._states.get(key) is probe:
            self._put(key, probe.opened)

    def merge(self, key: BreakerKey, open_s: float | None, now: float) -> None:
        """Merge the state of another process: the key is open for `open_s` from now, or closed (None).

        A probe of this process continues, because its outcome is newer. Merged states are not reported.
        """
        state = self._states.get(key)
        if open_s is None:
            self._drop(key)
        elif not isinstance(state, Probing) and not (isinstance(state, Open) and state.due_at >= now + open_s):
            self._put(key, Open(max(open_s, FIRST_INTERVAL_S), now + open_s))

    def _gateway_due_at(self, key: BreakerKey) -> float:
        """Return the instant until which the keys of two tokens are open, which applies to all tokens."""
        known = self._open_for.get(key.target, ())
        if len(known) < 2:
            return -math.inf
        latest = heapq.nlargest(2, (self._states[one].due_at for one in known))
        return latest[1]

    def _is_probed(self, key: BreakerKey) -> bool:
        return isinstance(self._states.get(key), Probing)

    def _fail(self, key: BreakerKey, state: Failing | Open) -> None:
        self._put(key, state)
        if isinstance(state, Open):
            self._report(key, state.interval_s)

    def _probe(self, key: BreakerKey, opened: Open, now: float) -> Probing:
        probe = Probing(opened, due_at=now + opened.interval_s, was_due=now >= opened.due_at)
        self._put(key, probe)
        return probe

    def _put(self, key: BreakerKey, state: State) -> None:
        self._drop(key)
        self._states[key] = state
        of_token = self._of_token.setdefault(key.owner, {})
        of_token[key] = None
        if isinstance(state, Open | Probing):
            self._open_for.setdefault(key.target, {})[key] = None
        if len(of_token) > self._max_keys_per_token:
            self._evict(next(iter(of_token)))
        elif len(self._states) > self._max_keys:
            self._evict(next(iter(self._states)))

    def _evict(self, key: BreakerKey) -> None:
        """Remove a key because a limit is reached, here and in other processes."""
        if isinstance(self._drop(key), Open | Probing):
            self._report(key, None)

    def _drop(self, key: BreakerKey) -> State | None:
        state = self._states.pop(key, None)
        if state is not None:
            _discard(self._of_token, key.owner, key)
        if isinstance(state, Open | Probing):
            _discard(self._open_for, key.target, key)
        return state


def _discard(index: _Index, name: _Name, key: BreakerKey) -> None:
    del index[name][key]
    if not index[name]:
        del index[name]


def _after_failure(failed_at: tuple[float, ...], now: float) -> Failing | Open:
    row = (*(at for at in failed_at if now - at <= WINDOW_S), now)
    return Failing(row) if len(row) < FAILURES else _opened(FIRST_INTERVAL_S, now)


def _next_interval_s(failed: Probing) -> float:
    interval_s = failed.opened.interval_s
    return next_delay_s(interval_s, FIRST_INTERVAL_S, MAX_INTERVAL_S) if failed.was_due else interval_s


def _opened(interval_s: float, now: float) -> Open:
    return Open(interval_s, due_at=now + interval_s)
