"""Opens the WebSocket to a bridge, or reports why it cannot be opened."""

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
    """URL, credentials and connection options of a bridge."""

    url: str
    token: str | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    ssl: ssl.SSLContext | bool
    timeout_s: float


@asynccontextmanager
async def open_socket(endpoint: Endpoint) -> AsyncIterator["ClientWebSocketResponse[bool]"]:
    """Open a socket whose messages are bytes of any length, and release it on exit. Raises CannotConnect."""
    headers = {"User-Agent": f"universal-bridge/{__version__}", **endpoint.headers}
    if endpoint.token is not None:
        headers["cf-aig-authorization"] = f"Bearer {endpoint.token}"
    async with aiohttp.ClientSession(middlewares=(_require_upgrade,)) as session:
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
                autoping=False,  # pongs prove that the bridge lives; with autoping aiohttp hides them
                max_msg_size=0,
                decode_text=False,
            )
    except TimeoutError:
        raise CannotConnect(f"no answer within {endpoint.timeout_s:g} s") from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise CannotConnect(
            "invalid WebSocket URL; expected a form like ws://127.0.0.1:8787/v1/local/default"
        ) from None
    except aiohttp.ClientConnectorError as error:
        raise CannotConnect(describe_os_error(error.os_error)) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise CannotConnect(redact_text(str(error)) or type(error).__name__) from None


async def _require_upgrade(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Raise CannotConnect unless the response is an upgrade. Redirects are not followed: the token is for this host."""
    response = await handler(request)
    if response.status == 101:
        return response
    try:
        error = _error_in(await response.content.read(_REFUSAL_BYTES))
    finally:
        response.close()
    message = error.get("message") or response.reason or "no upgrade to a WebSocket"
    code = error.get("internalCode")
    raise CannotConnect(
        f"HTTP {response.status}: {message}", status=response.status, code=code if isinstance(code, int) else None
    )


def _error_in(body: bytes) -> dict[str, object]:
    """Return the bridge's error body; an empty object for any other body."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
