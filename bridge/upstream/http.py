"""Make a provider call over any httpx transport, and map its exceptions to the bridge's errors."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakValueDictionary

import httpx

from bridge.errors import (
    BridgeError,
    ConnectFailed,
    EndpointRefused,
    ResetBeforeAnswer,
    TlsFailed,
    UnusableAnswer,
)
from bridge.providers import Target
from bridge.tasks import Tasks
from bridge.upstream.answer import UpstreamResponse
from bridge.upstream.body import BodyReceiver, pushed
from bridge.upstream.dial import TlsError

MAX_CONNECTIONS = 1024
REST_S = 1.0
"""Time to read the rest of a complete response."""

_FAULTS: tuple[tuple[type[Exception], type[BridgeError]], ...] = (
    (TlsError, TlsFailed),
    (httpx.ConnectError, ConnectFailed),
    (httpx.RemoteProtocolError, UnusableAnswer),
    (httpx.DecodingError, UnusableAnswer),
    (httpx.LocalProtocolError, EndpointRefused),
    (httpx.InvalidURL, EndpointRefused),
    (httpx.RequestError, ResetBeforeAnswer),
)
"""Errors for exceptions before the response head; the first match applies. After the head all mean BrokenStream."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a provider. `headers` are sent in order, except Accept-Encoding."""

    method: str
    target: Target
    headers: list[tuple[str, str]]
    body: bytes
    on_connected: Callable[[], None]
    """Called once, when a connection is established and the wait for the provider begins."""
    max_connections: int = MAX_CONNECTIONS
    """Number of open calls to the target's origin; further calls wait before they connect."""


class Upstream:
    """Opens calls over a transport, which it owns. It has no deadlines: the caller cancels."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._tasks = Tasks()
        # A semaphore lives only while a call holds it, so that arbitrary hosts from clients use no memory.
        self._slots: WeakValueDictionary[tuple[str, str, int | None], asyncio.Semaphore] = WeakValueDictionary()

    async def open(self, call: Call) -> "HttpUpstreamResponse":
        """Send the request and return once the response head arrives, with any status. Cancelling leaves nothing open.

        Raises ConnectFailed, TlsFailed, ResetBeforeAnswer, UnusableAnswer, EndpointRefused.
        """
        slots = self._slots_for(call)
        await slots.acquire()
        try:
            return HttpUpstreamResponse(await self._transport.handle_async_request(_request(call)), slots.release)
        except (httpx.RequestError, httpx.InvalidURL) as exc:
            slots.release()
            raise fault(exc) from exc
        except BaseException:
            slots.release()
            raise

    def read_out(self, answer: UpstreamResponse) -> None:
        """Read the rest of an unneeded response in the background, for at most REST_S, to reuse the connection."""
        self._tasks.start(_read_out(answer), "rest of an answer")

    async def aclose(self) -> None:
        await self._tasks.cancel_all()
        await self._transport.aclose()

    def _slots_for(self, call: Call) -> asyncio.Semaphore:
        origin = (call.target.scheme, call.target.host, call.target.port)
        slots = self._slots.get(origin)
        if slots is None:
            slots = self._slots[origin] = asyncio.Semaphore(call.max_connections)
        return slots


async def _read_out(answer: UpstreamResponse) -> None:
    rest = _Rest()
    try:
        async with asyncio.timeout(REST_S):
            answer.deliver(rest)
            answer.resume()
            await rest.over.wait()
    except TimeoutError:
        pass  # then the connection is closed
    finally:
        await answer.aclose()


class _Rest:
    """Drops the rest of a body, and notes its end."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def data(self, data: bytes) -> None: ...

    def end(self) -> None:
        self.over.set()

    def failed(self, error: Exception) -> None:
        self.over.set()


class HttpUpstreamResponse(UpstreamResponse):
    """A response from the provider's connection, which it holds until it is closed."""

    def __init__(self, response: httpx.Response, release: Callable[[], None]) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        raw = response.headers.raw
        self.status = response.status_code
        self.headers = [(name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in raw]
        self._body = pushed(response.stream)
        self._release: Callable[[], None] | None = release
        self._on_close: Callable[[], None] | None = None

    def on_close(self, call: Callable[[], None]) -> None:
        """Set the callback that is called once when the response is closed."""
        self._on_close = call

    def mark_complete(self) -> None:
        """Do nothing: this response is not cached."""

    @property
    def ended(self) -> bool:
        return self._body.ended

    def deliver(self, receiver: BodyReceiver) -> None:
        self._body.deliver(receiver)

    def pause(self) -> None:
        self._body.pause()

    def resume(self) -> None:
        self._body.resume()

    async def aclose(self) -> None:
        """Close the response. The connection is kept if the whole body has arrived."""
        release, self._release = self._release, None
        if release is None:
            return
        release()
        if self._on_close is not None:
            self._on_close()
        await self._body.aclose()


@lru_cache(maxsize=512)
def url_of(target: Target) -> httpx.URL:
    return httpx.URL(scheme=target.scheme, host=target.host, port=target.port, raw_path=target.raw_path)


def _request(call: Call) -> httpx.Request:
    # A proxy that compresses a stream delays it, so only identity is accepted.
    headers = [(name.encode(), value.encode()) for name, value in call.headers if name.lower() != "accept-encoding"]
    headers.append((b"accept-encoding", b"identity"))
    return httpx.Request(
        call.method,
        url_of(call.target),
        headers=headers,
        stream=httpx.ByteStream(call.body),
        # httpx.URL spells some characters its own way; the target is what goes out.
        extensions={"target": call.target.raw_path, "on_connected": call.on_connected},
    )


def fault(exc: Exception) -> BridgeError:
    """Return the bridge's error for an httpx exception before the response head."""
    return next(ours for kind, ours in _FAULTS if isinstance(exc, kind))(str(exc))
