"""Transports for httpx2: `httpx2.AsyncClient(transport=AsyncHttpx2BridgeTransport("wss://…"))`."""

from typing import ClassVar

import httpx2

from bridge.transports.base import AsyncBody, AsyncTransport, SyncBody, SyncTransport
from bridge.transports.requests import read_request

__all__ = ["AsyncHttpx2BridgeTransport", "Httpx2BridgeTransport"]


class AsyncHttpx2BridgeTransport(AsyncTransport, httpx2.AsyncBaseTransport):
    library: ClassVar = httpx2

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await self._send(read_request(request, await request.aread()))
        return httpx2.Response(answer.status, headers=answer.headers, stream=_AsyncHttpx2Body(answer))


class Httpx2BridgeTransport(SyncTransport, httpx2.BaseTransport):
    library: ClassVar = httpx2

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer, portal = self._send(read_request(request, request.read()))
        return httpx2.Response(answer.status, headers=answer.headers, stream=_Httpx2Body(answer, portal))


class _AsyncHttpx2Body(AsyncBody, httpx2.AsyncByteStream):
    library: ClassVar = httpx2


class _Httpx2Body(SyncBody, httpx2.SyncByteStream):
    library: ClassVar = httpx2
