"""What goes wrong before a socket is one: HTTP errors, each with the bridge's own body."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from bridge.errors import BadMessage, BridgeError, InternalError
from bridge.wire.frames import error_body

log = logging.getLogger("bridge.server")

WEBSOCKET_WANTED: Final = "this is a WebSocket's address: connect to it with ws:// or wss://"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NotFound(BadMessage):
    """No such path; the message says which there are."""

    status = 404


class UpgradeRequired(BadMessage):
    """A path of a WebSocket, asked for as a page."""

    status = 426


class Connection(RequestHandler):
    """aiohttp's, but what is no HTTP is answered with the bridge's own body, and not logged with all it held."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size:
            raise ConnectionError("an answer has begun, so no other can be given")
        log.debug("a request failed in aiohttp: %s", type(exc).__name__)
        known = BadMessage("the request cannot be read as HTTP") if status == 400 else InternalError("internal error")
        response = _error_response(known)
        response.force_close()
        return response


@web.middleware
async def own_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error before the upgrade has the bridge's own body."""
    try:
        return await handler(request)
    except BridgeError as error:
        return _error_response(error)
    except web.HTTPNotFound:
        return _error_response(NotFound("no such path: a gateway's is /v1/{account_id}/{gateway_id}"))
    except web.HTTPMethodNotAllowed:
        return _error_response(UpgradeRequired(WEBSOCKET_WANTED))
    except web.HTTPException as error:
        return _error_response(BadMessage(error.text or error.reason))
    except Exception:
        log.exception("a handshake failed for a reason that nobody expected")
        return _error_response(InternalError("internal error; the bridge's log tells more"))


def _error_response(error: BridgeError) -> web.Response:
    response = web.Response(body=error_body(error), status=error.status, content_type="application/json")
    if isinstance(error, UpgradeRequired):  # RFC 9110, section 15.5.22: it has to name to what
        response.headers.update({"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
    return response
