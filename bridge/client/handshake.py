"""How the client gets in: a WebSocket to a bridge, or a plain word about why there is none."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import orjson
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientWebSocketResponse

from bridge import __version__
from bridge.client.errors import CannotConnect
from bridge.net import describe_os_error
from bridge.redact.text import redact_text

_REFUSAL_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a bridge is, and what it is shown."""

    url: str
    token: str | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    ssl: ssl.SSLContext | bool
    timeout_s: float


@asynccontextmanager
async def opened(endpoint: Endpoint) -> AsyncIterator["ClientWebSocketResponse[bool]"]:
    """A socket whose messages are bytes of any length; let go of on leaving. Raises CannotConnect."""
    headers = {"User-Agent": f"universal-bridge/{__version__}", **endpoint.headers}
    if endpoint.token is not None:
        headers["cf-aig-authorization"] = f"Bearer {endpoint.token}"
    async with aiohttp.ClientSession(middlewares=(_upgraded,)) as session:
        yield await _open(session, endpoint, headers)


async def _open(
    session: aiohttp.ClientSession, endpoint: Endpoint, headers: dict[str, str]
) -> "ClientWebSocketResponse[bool]":
    try:
        async with asyncio.timeout(endpoint.timeout_s):
            return await session.ws_connect(
                endpoint.url,
                headers=headers,
                ssl=endpoint.ssl,
                autoping=False,  # a pong tells that the bridge is there, and aiohttp would not
                max_msg_size=0,
                decode_text=False,
            )
    except TimeoutError:
        raise CannotConnect(f"no answer within {endpoint.timeout_s:g} s") from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise CannotConnect(
            "that is no URL of a WebSocket; one looks like ws://127.0.0.1:8787/v1/local/default"
        ) from None
    except aiohttp.ClientConnectorError as error:
        raise CannotConnect(describe_os_error(error.os_error)) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise CannotConnect(redact_text(str(error)) or type(error).__name__) from None


async def _upgraded(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """A bridge upgrades; what answers otherwise says why. A redirect is not followed: the token is not for others."""
    response = await handler(request)
    if response.status == 101:
        return response
    try:
        said = _error_in(await response.content.read(_REFUSAL_BYTES))
    finally:
        response.close()
    message = said.get("message") or response.reason or "no upgrade to a WebSocket"
    code = said.get("internalCode")
    raise CannotConnect(
        f"HTTP {response.status}: {message}", status=response.status, code=code if isinstance(code, int) else None
    )


def _error_in(body: bytes) -> dict[str, object]:
    """The bridge's own error body; nothing when it is somebody else's."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
