"""What goes wrong before an event or a socket is one: HTTP errors, each with the bridge's own body."""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from bridge.errors import BadMessage, BridgeError, Draining, InternalError
from bridge.protocol.frames import error_body, sdk_error_body

log = logging.getLogger("bridge.server")

WEBSOCKET_REQUIRED: Final = "POST steps to this address, or connect to it with ws:// or wss://"

_NO_SUCH_PATH: Final = (
    "no such path: a gateway's is /v1/{account_id}/{gateway_id}, and a provider's API is below it, as PROVIDER/ENDPOINT"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ErrorBody = Callable[[BridgeError], bytes]


class NotFound(BadMessage):
    """No such path; the message says which there are."""

    status = 404


class BodyTooSlow(BadMessage):
    """A request's body that does not come on."""

    status = 408


class UpgradeRequired(BadMessage):
    """A gateway's address, asked for as a page."""

    status = 426


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error has the bridge's own body."""
    body_of = error_body_for(request)
    try:
        return await handler(request)
    except BridgeError as error:
        return error_response(error, body_of)
    except web.HTTPNotFound:
        return error_response(NotFound(_NO_SUCH_PATH))
    except web.HTTPMethodNotAllowed:
        return error_response(UpgradeRequired(WEBSOCKET_REQUIRED))
    except web.HTTPException as error:
        return error_response(BadMessage(error.text or error.reason), body_of)
    except Exception:
        log.exception("a request failed for a reason that nobody expected")
        return error_response(InternalError("internal error; the bridge's log tells more"), body_of)


def error_body_for(request: web.Request) -> ErrorBody:
    """The shape of errors at a request's path: below a provider's name (and `compat`) SDKs read them."""
    return sdk_error_body if "provider" in request.match_info else error_body


def retry_after(ms: int) -> str:
    """The header's value, in whole seconds (RFC 9110, section 10.2.3): none too few."""
    return str(math.ceil(ms / 1000))


NOSNIFF: Final = ("x-content-type-options", "nosniff")
"""For each of the bridge's own answers: a browser must not take a text in it for a page (fetch.spec.whatwg.org)."""


async def set_own_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Call this before an answer's head is sent: remove the version that aiohttp adds, and forbid sniffing."""
    response.headers.popall("Server", None)
    response.headers.update([NOSNIFF])


class _OwnResponse(web.Response):
    """For requests that no application has seen, `mark_as_own` is not called."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Server", None)


def error_response(error: BridgeError, body_of: ErrorBody = error_body) -> web.Response:
    body, headers = body_of(error), dict([NOSNIFF])
    response = _OwnResponse(body=body, status=error.status, headers=headers, content_type="application/json")
    if isinstance(error, UpgradeRequired):  # RFC 9110, section 15.5.22: it has to name to what
        response.headers.update({"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
    if error.retry_after_ms is not None:
        response.headers["Retry-After"] = retry_after(error.retry_after_ms)
    if isinstance(error, Draining):
        response.force_close()
    return response
