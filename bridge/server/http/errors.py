"""HTTP errors that occur before an event or a session begins, each with the bridge's own body."""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from bridge.errors import BadMessage, BridgeError, Draining, InternalError
from bridge.protocol.frames import error_body, sdk_error_body
from bridge.server.access import is_below_gateway

log = logging.getLogger("bridge.server")

WEBSOCKET_REQUIRED: Final = "POST steps to this address, or connect to it with ws:// or wss://"

_NO_SUCH_PATH: Final = (
    "unknown path: use /v1/{account_id}/{gateway_id}, or /v1/{account_id}/{gateway_id}/PROVIDER/ENDPOINT"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ErrorBody = Callable[[BridgeError], bytes]


class NotFound(BadMessage):
    """The path is unknown; the message names the known ones."""

    status = 404


class BodyTooSlow(BadMessage):
    """The body of a request arrives too slowly."""

    status = 408


class UpgradeRequired(BadMessage):
    """A request to a gateway's address that is neither a POST nor an upgrade."""

    status = 426


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with the bridge's own body."""
    format_body = error_body_for(request)
    try:
        return await handler(request)
    except BridgeError as error:
        return error_response(error, format_body)
    except web.HTTPNotFound:
        return error_response(NotFound(_NO_SUCH_PATH))
    except web.HTTPMethodNotAllowed:
        return error_response(UpgradeRequired(WEBSOCKET_REQUIRED))
    except web.HTTPException as error:
        return error_response(BadMessage(error.text or error.reason), format_body)
    except Exception:
        log.exception("unhandled exception in request handler")
        return error_response(InternalError("internal error; see the bridge's log"), format_body)


def error_body_for(request: web.Request) -> ErrorBody:
    """Return the formatter of error bodies for the request's path: SDKs read those below a provider's name."""
    return sdk_error_body if is_below_gateway(request) else error_body


def retry_after(ms: int) -> str:
    """Return the value of the header in whole seconds, rounded up (RFC 9110, section 10.2.3)."""
    return str(math.ceil(ms / 1000))


NOSNIFF: Final = ("x-content-type-options", "nosniff")
"""A header of the bridge's own responses: browsers must not sniff a page in their text (fetch.spec.whatwg.org)."""


async def set_own_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Remove the version that aiohttp adds, and forbid sniffing. Call this before the head of a response is sent."""
    response.headers.popall("Server", None)
    response.headers.update([NOSNIFF])


class _OwnResponse(web.Response):
    """A response without aiohttp's version, also where no application handles the request and adds its headers."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Server", None)


def error_response(error: BridgeError, format_body: ErrorBody = error_body) -> web.Response:
    body, headers = format_body(error), dict([NOSNIFF])
    response = _OwnResponse(body=body, status=error.status, headers=headers, content_type="application/json")
    if isinstance(error, UpgradeRequired):  # RFC 9110, section 15.5.22 requires the name of the protocol
        response.headers.update({"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
    if error.retry_after_ms is not None:
        response.headers["Retry-After"] = retry_after(error.retry_after_ms)
    if isinstance(error, Draining):
        response.force_close()
    return response
