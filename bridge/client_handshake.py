"""How the client gets in: a WebSocket to a bridge, or a plain word about why there is none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import orjson
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientWebSocketResponse

from bridge import __version__, redact
from bridge.oserror import reason_of

CONNECT_S: Final = 10.0
CLOSE_S: Final = 2.0
"""How long the bridge may take to answer a close frame."""
_REFUSAL_BYTES: Final = 4096


class CannotConnect(Exception):
    """There is no bridge, or it does not let us in. The message says why, and holds no secret."""


@asynccontextmanager
async def opened(url: str, token: str | None) -> AsyncIterator["ClientWebSocketResponse[bool]"]:
    """A socket whose messages are bytes of any length; closed on leaving. Raises CannotConnect."""
    headers = {"User-Agent": f"universal-bridge/{__version__}"}
    if token is not None:
        headers["cf-aig-authorization"] = f"Bearer {token}"
    async with aiohttp.ClientSession(middlewares=(_upgraded,), headers=headers) as session:
        socket = await _open(session, url)
        try:
            yield socket
        finally:
            await socket.close()


async def _open(session: aiohttp.ClientSession, url: str) -> "ClientWebSocketResponse[bool]":
    timeout = aiohttp.ClientWSTimeout(ws_close=CLOSE_S)
    try:
        async with asyncio.timeout(CONNECT_S):
            return await session.ws_connect(url, timeout=timeout, max_msg_size=0, decode_text=False)
    except TimeoutError:
        raise CannotConnect(f"no answer within {CONNECT_S:g} s") from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise CannotConnect(
            "that is no URL of a WebSocket; one looks like ws://127.0.0.1:8787/v1/local/default"
        ) from None
    except aiohttp.ClientConnectorError as error:
        raise CannotConnect(reason_of(error.os_error)) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise CannotConnect(redact.text(str(error)) or type(error).__name__) from None


async def _upgraded(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """A bridge upgrades; what answers otherwise says why. A redirect is not followed: the token is not for others."""
    response = await handler(request)
    if response.status == 101:
        return response
    try:
        said = _message_in(await response.content.read(_REFUSAL_BYTES))
    finally:
        response.close()
    raise CannotConnect(f"HTTP {response.status}: {said or response.reason or 'no upgrade to a WebSocket'}")


def _message_in(body: bytes) -> str | None:
    """What the bridge's own error body says; None when it is somebody else's."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return None
    return str(value["message"]) if isinstance(value, dict) and "message" in value else None
