"""The client for scripts, notebooks and threads: the same names, without `await`.

    from bridge.client.sync import connect

    with connect("wss://host/v1/account/gateway", token="…") as bridge:
        answer = bridge.request("openai", "chat/completions", {"model": …, "messages": […]}, headers={…})
        with bridge.stream("anthropic", "v1/messages", {…, "stream": True}, headers={…}) as stream:
            for chunk in stream:
                print(chunk.text, end="")

It is the asynchronous client, run on a loop of its own in one background thread. So it works where a loop runs already,
and any number of threads may share a bridge; each stream is for one of them. Ctrl-C cancels the event that is waited
for.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from bridge.client import bridge as asynchronous
from bridge.client import event as events
from bridge.client import exchange as exchanges
from bridge.client import stream as streams
from bridge.client.background_loop import BlockingPortal
from bridge.client.errors import ConnectionLost
from bridge.client.forks import PerProcess
from bridge.client.frames import EventId, Failure, Frame, Metadata, Usage
from bridge.client.stream import Answer, Chunk

__all__ = ["SyncBridge", "SyncEvent", "SyncExchange", "SyncStream", "connect"]

P = ParamSpec("P")
T = TypeVar("T")


class _Openable(Protocol):
    @property
    def id(self) -> EventId: ...
    async def open(self) -> object: ...
    def close(self) -> None: ...


E = TypeVar("E", bound=_Openable)


class _Held(Generic[E]):
    """Something that lives on the portal's loop."""

    def __init__(self, portal: BlockingPortal, inner: E) -> None:
        self._portal = portal
        self._inner = inner

    @property
    def id(self) -> EventId:
        return self._inner.id

    def open(self) -> Self:
        self._portal.call(self._inner.open())
        return self

    def close(self) -> None:
        """If it is not over, it is cancelled. Waits for nothing."""
        self._portal.tell(self._inner.close)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def _next(self, items: AsyncIterator[T]) -> T:
        item = self._portal.call(_next(items))
        if item is None:
            raise StopIteration
        return item


async def _next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


class SyncEvent(_Held[events.Event]):
    def cancel(self) -> None:
        self._portal.tell(self._inner.cancel)

    def __next__(self) -> Frame:
        return self._next(self._inner)


class SyncStream(_Held[streams.Stream]):
    @property
    def metadata(self) -> Metadata:
        return self._inner.metadata

    @property
    def usage(self) -> Usage | None:
        return self._inner.usage

    @property
    def cost(self) -> float | None:
        return self._inner.cost

    @property
    def is_streamed(self) -> bool:
        return self._inner.is_streamed

    def collect(self) -> Answer:
        return self._portal.call(self._inner.collect())

    def __next__(self) -> Chunk:
        return self._next(self._inner)


class SyncExchange(_Held[exchanges.Exchange]):
    @property
    def metadata(self) -> Metadata:
        return self._inner.metadata

    @property
    def status(self) -> int:
        return self._inner.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._inner.headers

    @property
    def is_from_provider(self) -> bool:
        return self._inner.is_from_provider

    @property
    def error(self) -> Failure | None:
        return self._inner.error

    def read(self) -> bytes:
        return self._portal.call(self._inner.read())

    def __next__(self) -> bytes:
        return self._next(self._inner)


class _Dialled:
    """A bridge, and the portal that it lives behind."""

    def __init__(self, connecting: asynchronous.connect) -> None:
        """Raises CannotConnect."""
        self.portal = BlockingPortal()
        try:
            self.inner = self.portal.call(_opened(connecting))
        except BaseException:
            self.portal.close()
            raise

    def close(self) -> None:
        try:
            self.portal.call(self.inner.close())
        except ConnectionLost:
            pass  # closed before
        finally:
            self.portal.close()


def _waiting(
    method: Callable[Concatenate[asynchronous.Bridge, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SyncBridge", P], T]:
    """The method, for callers that wait for its result."""

    @wraps(method)
    def call(self: "SyncBridge", /, *args: P.args, **kwargs: P.kwargs) -> T:
        here = self._here.get()
        return here.portal.call(method(here.inner, *args, **kwargs))

    return call


def _holding(
    method: Callable[Concatenate[asynchronous.Bridge, P], E], held: Callable[[BlockingPortal, E], T]
) -> Callable[Concatenate["SyncBridge", P], T]:
    """The method, for callers that hold what it gives."""

    @wraps(method)
    def call(self: "SyncBridge", /, *args: P.args, **kwargs: P.kwargs) -> T:
        here = self._here.get()
        return held(here.portal, method(here.inner, *args, **kwargs))

    return call


class SyncBridge:
    """Made by `connect`. For any number of threads.

    The child of a fork dials a socket of its own with its first call, which may then raise CannotConnect. What was
    begun before the fork belongs to the parent, and raises ConnectionLost in the child.
    """

    def __init__(self, here: PerProcess[_Dialled]) -> None:
        self._here = here

    request = _waiting(asynchronous.Bridge.request)
    stream = _holding(asynchronous.Bridge.stream, SyncStream)
    exchange = _holding(asynchronous.Bridge.exchange, SyncExchange)
    create = _holding(asynchronous.Bridge.create, SyncEvent)

    def close(self) -> None:
        """Cancel what is in flight, say goodbye, and wait for the thread to end, but not for long."""
        self._here.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connecting(connect: Callable[P, asynchronous.connect]) -> Callable[P, SyncBridge]:
    @wraps(connect, assigned=("__module__", "__name__", "__qualname__"))
    def connected(*args: P.args, **kwargs: P.kwargs) -> SyncBridge:
        """A bridge, to be closed: `with connect(url) as bridge`. All else is as `bridge.client.connect` has it."""
        here = PerProcess(lambda: _Dialled(connect(*args, **kwargs)))
        here.get()
        return SyncBridge(here)

    return connected


async def _opened(connecting: asynchronous.connect) -> asynchronous.Bridge:
    return await connecting


connect = _connecting(asynchronous.connect)
