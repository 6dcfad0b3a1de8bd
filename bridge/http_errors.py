"""What goes wrong before an event or a socket is one: HTTP errors, each with the bridge's own body."""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from bridge.errors import BadMessage, BridgeError, Draining, InternalError
from bridge.wire.frames import error_body

log = logging.getLogger("bridge.server")

WEBSOCKET_WANTED: Final = "POST steps to this address, or connect to it with ws:// or wss://"

_NO_SUCH_PATH: Final = (
    "no such path: a gateway's is /v1/{account_id}/{gateway_id}, and a provider's API is below it, as PROVIDER/ENDPOINT"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
async def own_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error has the bridge's own body."""
    try:
        return await handler(request)
    except BridgeError as error:
        return error_response(error)
    except web.HTTPNotFound:
        return error_response(NotFound(_NO_SUCH_PATH))
    except web.HTTPMethodNotAllowed:
        return error_response(UpgradeRequired(WEBSOCKET_WANTED))
    except web.HTTPException as error:
        return error_response(BadMessage(error.text or error.reason))
    except Exception:
        log.exception("a request failed for a reason that nobody expected")
        return error_response(InternalError("internal error; the bridge's log tells more"))


def retry_after(ms: int) -> str:
    """The header's value, in whole seconds (RFC 9110, section 10.2.3): none too few."""
    return str(math.ceil(ms / 1000))


def error_response(error: BridgeError) -> web.Response:
    response = web.Response(body=error_body(error), status=error.status, content_type="application/json")
    if isinstance(error, UpgradeRequired):  # RFC 9110, section 15.5.22: it has to name to what
        response.headers.update({"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
    if error.retry_after_ms is not None:
        response.headers["Retry-After"] = retry_after(error.retry_after_ms)
    if isinstance(error, Draining):
        response.force_close()
    return response
