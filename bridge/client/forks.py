"""What a fork leaves of threads and sockets: the child has the objects, but no thread runs in it, and the sockets are
the parent's."""

import os
import threading
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from bridge.client.connection import LEFT
from bridge.client.errors import ConnectionLost

FORKED: Final = "it was begun in the parent process, before a fork; begin it again in this one"


class _Forks:
    count = 0


def forks() -> int:
    """The number of forks since this module was imported. Two processes of one line of descent differ in it."""
    return _Forks.count


def _forked() -> None:
    _Forks.count += 1


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_forked)


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class PerProcess(Generic[C]):
    """A value that every process makes for itself when it first asks for it. Any thread may call.

    The child of a fork never touches the parent's value, and keeps it: to collect it would close what both share.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._made: dict[int, C] = {}
        self._locks: dict[int, threading.Lock] = {}
        """One per process: another thread may have held the parent's at the moment of the fork."""
        self._is_closed = False

    def get(self) -> C:
        """Raises ConnectionLost once it is closed, and what `make` raises."""
        here = forks()
        with self._locks.setdefault(here, threading.Lock()):
            if (made := self._made.get(here)) is not None:
                return made
            if self._is_closed:
                raise ConnectionLost(LEFT)
            made = self._made[here] = self._make()
        if self._is_closed:  # while it was made
            made.close()
        return made

    @property
    def made(self) -> C | None:
        """The value of this process; None before `get`."""
        return self._made.get(forks())

    def close(self) -> None:
        """Closes the value of this process, and makes no more. May be called again."""
        self._is_closed = True
        if (made := self.made) is not None:
            made.close()
