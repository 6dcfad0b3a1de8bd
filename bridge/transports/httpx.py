"""Transports for httpx: `httpx.AsyncClient(transport=AsyncBridgeTransport("wss://…"))`."""

from typing import ClassVar

import httpx

from bridge.transports.base import AsyncBody, AsyncTransport, SyncBody, SyncTransport
from bridge.transports.requests import read_request

__all__ = ["AsyncBridgeTransport", "BridgeTransport"]


class AsyncBridgeTransport(AsyncTransport, httpx.AsyncBaseTransport):
    library: ClassVar = httpx

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._send(read_request(request, await request.aread()))
        return httpx.Response(answer.status, headers=answer.headers, stream=_AsyncHttpxBody(answer))


class BridgeTransport(SyncTransport, httpx.BaseTransport):
    library: ClassVar = httpx

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer, portal = self._send(read_request(request, request.read()))
        return httpx.Response(answer.status, headers=answer.headers, stream=_HttpxBody(answer, portal))


class _AsyncHttpxBody(AsyncBody, httpx.AsyncByteStream):
    library: ClassVar = httpx


class _HttpxBody(SyncBody, httpx.SyncByteStream):
    library: ClassVar = httpx
