"""The transports for httpx: `httpx.AsyncClient(transport=AsyncBridgeTransport("wss://…"))`."""

from typing import ClassVar

import httpx

from bridge.transports.asking import asked
from bridge.transports.transport import AsyncBody, AsyncTransport, SyncBody, SyncTransport

__all__ = ["AsyncBridgeTransport", "BridgeTransport"]


class AsyncBridgeTransport(AsyncTransport, httpx.AsyncBaseTransport):
    library: ClassVar = httpx

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._ask(asked(request, await request.aread()))
        return httpx.Response(answer.status, headers=answer.headers, stream=_AsyncBody(answer))


class BridgeTransport(SyncTransport, httpx.BaseTransport):
    library: ClassVar = httpx

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer, portal = self._ask(asked(request, request.read()))
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer, portal))


class _AsyncBody(AsyncBody, httpx.AsyncByteStream):
    library: ClassVar = httpx


class _Body(SyncBody, httpx.SyncByteStream):
    library: ClassVar = httpx
