"""The blocking client for scripts, notebooks and threads, with the API of the asynchronous one.

    from bridge.client.sync import connect

    with connect("wss://host/v1/account/gateway", token="…") as bridge:
        answer = bridge.request("openai", "chat/completions", {"model": …, "messages": […]}, headers={…})
        with bridge.stream("anthropic", "v1/messages", {…, "stream": True}, headers={…}) as stream:
            for chunk in stream:
                print(chunk.text, end="")

It runs the asynchronous client on a loop in one background thread. It therefore works where a loop runs already. Any
number of threads may share a bridge; each stream belongs to one thread. Ctrl-C cancels the event that a call waits for.
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


class _PortalProxy(Generic[E]):
    """Blocking proxy of an object on the portal's loop."""

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
        """Cancel it unless it is over. It does not wait."""
        self._portal.call_soon(self._inner.close)

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


class SyncEvent(_PortalProxy[events.Event]):
    def cancel(self) -> None:
        self._portal.call_soon(self._inner.cancel)

    def __next__(self) -> Frame:
        return self._next(self._inner)


class SyncStream(_PortalProxy[streams.Stream]):
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


class SyncExchange(_PortalProxy[exchanges.Exchange]):
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


class _PortalConnection:
    """A bridge and the portal on which it runs."""

    def __init__(self, connecting: asynchronous.connect) -> None:
        """Start the portal and connect. Raises CannotConnect."""
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
            pass  # already closed
        finally:
            self.portal.close()


def _blocking(
    method: Callable[Concatenate[asynchronous.Bridge, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SyncBridge", P], T]:
    """Return a blocking version of the coroutine method."""

    @wraps(method)
    def call(self: "SyncBridge", /, *args: P.args, **kwargs: P.kwargs) -> T:
        connection = self._connections.get()
        return connection.portal.call(method(connection.inner, *args, **kwargs))

    return call


def _proxied(
    method: Callable[Concatenate[asynchronous.Bridge, P], E], proxy: Callable[[BlockingPortal, E], T]
) -> Callable[Concatenate["SyncBridge", P], T]:
    """Return a version of the method whose result is a blocking proxy."""

    @wraps(method)
    def call(self: "SyncBridge", /, *args: P.args, **kwargs: P.kwargs) -> T:
        connection = self._connections.get()
        return proxy(connection.portal, method(connection.inner, *args, **kwargs))

    return call


class SyncBridge:
    """Sends events. Create it with `connect`; any number of threads may share it.

    The child of a fork opens its own socket with its first call, which may raise CannotConnect. Events started before
    the fork belong to the parent and raise ConnectionLost in the child.
    """

    def __init__(self, connections: PerProcess[_PortalConnection]) -> None:
        self._connections = connections

    request = _blocking(asynchronous.Bridge.request)
    stream = _proxied(asynchronous.Bridge.stream, SyncStream)
    exchange = _proxied(asynchronous.Bridge.exchange, SyncExchange)
    create = _proxied(asynchronous.Bridge.create, SyncEvent)

    def close(self) -> None:
        """Cancel the events in flight, close the socket as `Bridge.close` does, and wait for the thread to end."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connecting(connect: Callable[P, asynchronous.connect]) -> Callable[P, SyncBridge]:
    @wraps(connect, assigned=("__module__", "__name__", "__qualname__"))
    def connected(*args: P.args, **kwargs: P.kwargs) -> SyncBridge:
        """Open a socket: `with connect(url) as bridge`. The arguments are those of `bridge.client.connect`."""
        connections = PerProcess(lambda: _PortalConnection(connect(*args, **kwargs)))
        connections.get()
        return SyncBridge(connections)

    return connected


async def _opened(connecting: asynchronous.connect) -> asynchronous.Bridge:
    return await connecting


connect = _connecting(asynchronous.connect)
