"""Detects forks: the child inherits objects whose threads do not run in it and whose sockets the parent still uses."""

import os
import threading
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from bridge.client.connection import CLOSED_BY_CLIENT
from bridge.client.errors import ConnectionLost

FORKED: Final = "it was started in the parent process before a fork; start it again in this process"


class _Forks:
    count = 0


def forks() -> int:
    """Return the number of forks since this module was imported. It differs between a process and its descendants."""
    return _Forks.count


def _forked() -> None:
    _Forks.count += 1


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_forked)


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class PerProcess(Generic[C]):
    """Creates one value per process on first use. It is thread-safe.

    The child of a fork never uses the parent's value but keeps it: collecting it would close resources that both share.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._made: dict[int, C] = {}
        self._locks: dict[int, threading.Lock] = {}
        """One lock per process: another thread may have held the parent's during the fork."""
        self._is_closed = False

    def get(self) -> C:
        """Return the value of this process. Raises ConnectionLost once closed, and the exceptions of `make`."""
        here = forks()
        with self._locks.setdefault(here, threading.Lock()):
            if (made := self._made.get(here)) is not None:
                return made
            if self._is_closed:
                raise ConnectionLost(CLOSED_BY_CLIENT)
            made = self._made[here] = self._make()
        if self._is_closed:  # during `make`
            made.close()
        return made

    @property
    def made(self) -> C | None:
        """Return the value of this process; None before `get`."""
        return self._made.get(forks())

    def close(self) -> None:
        """Close the value of this process and create no more. It is idempotent."""
        self._is_closed = True
        if (made := self.made) is not None:
            made.close()
