"""Which providers keep failing, and when each may be tried again.

A key is closed until `FAILURES` failures in a row came within `WINDOW_S`. Then it is open: calls skip it. Once it is
due one call is let through, its probe; an answer closes the key, a failure opens it for twice as long.
A probe may also be forced before it is due; that one's failure opens the key anew, but for no longer.

    (nothing known) ──failed──▶ Failing ──failed──▶ Open ──enter──▶ Probing ──failed──▶ Open, doubled if it was due
           ▲                       │                  │  ◀─release──   │
           └──────succeeded────────┴────answered──────┴────────────────┘

What other processes see can be laid over what this one does: `learned`, and `Told` for the way back.

Instants and intervals are seconds of one clock that never runs backwards.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, assert_never

FAILURES: Final = 5
WINDOW_S: Final = 30.0
FIRST_INTERVAL_S: Final = 10.0
MAX_INTERVAL_S: Final = 120.0
MAX_KEYS: Final = 4096


@dataclass(frozen=True, slots=True)
class Failing:
    """Closed, with a row of failures that may yet open it; oldest first, fewer than `FAILURES`."""

    failed_at: tuple[float, ...]
    due_at: ClassVar[float] = -math.inf


@dataclass(frozen=True, slots=True)
class Open:
    interval_s: float
    due_at: float


@dataclass(frozen=True, slots=True)
class Probing:
    """Open, with one call in flight to learn whether it still has to be.

    The value that `Breakers.enter` returned is itself the pass of that call, compared by identity: a later probe is
    another one, however equal. So a probe that was overtaken decides nothing, and a pass is good once.
    """

    opened: Open
    due_at: float
    """When the probe has been in flight for too long to keep others out."""
    was_due: bool
    """The outage had lasted its interval. A forced probe tells nothing of how long it lasts: nobody had waited."""


State = Failing | Open | Probing

Told = Callable[[Hashable, float | None], None]
"""Hears of each key that was opened here, with its interval in seconds, or closed: None. Does not block, nor raise."""


def _nobody(key: Hashable, open_s: float | None) -> None:
    """Nobody else is to know."""


class Breakers:
    """The keys that have failed of late, at most `max_keys`: the one that changed longest ago is forgotten first."""

    __slots__ = ("_max_keys", "_states", "_told")

    def __init__(self, max_keys: int = MAX_KEYS, told: Told = _nobody) -> None:
        self._max_keys = max_keys
        self._told = told
        self._states: dict[Hashable, State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def items(self) -> Iterable[tuple[Hashable, State]]:
        return self._states.items()

    def due_at(self, key: Hashable) -> float:
        """From when on a call may pass; minus infinity for a closed key."""
        state = self._states.get(key)
        return -math.inf if state is None else state.due_at

    def due_first(self, keys: Sequence[Hashable]) -> int | None:
        """The index of the open key that is due first, due by now or not, among those with no probe in flight."""
        states = (self._states.get(key) for key in keys)
        idle = [(state.due_at, index) for index, state in enumerate(states) if isinstance(state, Open)]
        return min(idle)[1] if idle else None

    def enter(self, key: Hashable, now: float) -> Probing | None:
        """Tells that a call begins, due or not; if it is the key's probe, returns its pass.

        The pass goes back with `failed` or `release`, else the probe keeps others out until its interval has run.
        """
        state = self._states.get(key)
        match state:
            case None | Failing():
                return None
            case Open():
                return self._probe(key, state, now)
            case Probing():
                return self._probe(key, state.opened, now)
            case _:
                assert_never(state)

    def answered(self, key: Hashable) -> None:
        """Whoever it was, probe or not: the provider answers, so the key is closed. A row of failures is kept: an
        answer that has begun may yet break, and be one of them."""
        if not isinstance(self._states.get(key), Failing):
            self.succeeded(key)

    def succeeded(self, key: Hashable) -> None:
        """An answer was whole: the key is closed and forgotten."""
        if isinstance(self._states.pop(key, None), Open | Probing):
            self._told(key, None)

    def failed(self, key: Hashable, now: float, probe: Probing | None) -> None:
        """Counts a failure that is the provider's own; `probe` is the pass that the call was given."""
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

    def release(self, key: Hashable, probe: Probing | None) -> None:
        """Takes back the pass of a call that told nothing about the provider; the key is as it was before."""
        if probe is not None and self._states.get(key) is probe:
            self._put(key, probe.opened)

    def learned(self, key: Hashable, open_s: float | None, now: float) -> None:
        """Another process has seen the key open, for `open_s` from now on, or close (None).

        A probe of our own is let run, for it will tell; and nobody is told again what was learned.
        """
        state = self._states.get(key)
        if open_s is None:
            self._states.pop(key, None)
        elif not isinstance(state, Probing) and now + open_s > self.due_at(key):
            self._put(key, Open(max(open_s, FIRST_INTERVAL_S), now + open_s))

    def _fail(self, key: Hashable, state: Failing | Open) -> None:
        self._put(key, state)
        if isinstance(state, Open):
            self._told(key, state.interval_s)

    def _probe(self, key: Hashable, opened: Open, now: float) -> Probing:
        probe = Probing(opened, due_at=now + opened.interval_s, was_due=now >= opened.due_at)
        self._put(key, probe)
        return probe

    def _put(self, key: Hashable, state: State) -> None:
        self._states.pop(key, None)
        self._states[key] = state
        if len(self._states) > self._max_keys:
            del self._states[next(iter(self._states))]


def _after_failure(failed_at: tuple[float, ...], now: float) -> Failing | Open:
    row = (*(at for at in failed_at if now - at <= WINDOW_S), now)
    return Failing(row) if len(row) < FAILURES else _opened(FIRST_INTERVAL_S, now)


def _next_interval_s(failed: Probing) -> float:
    interval_s = failed.opened.interval_s
    return min(2 * interval_s, MAX_INTERVAL_S) if failed.was_due else interval_s


def _opened(interval_s: float, now: float) -> Open:
    return Open(interval_s, due_at=now + interval_s)
