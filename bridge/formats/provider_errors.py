"""Read status, type and message of a provider's error, from an error body or an item of a stream."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from bridge.formats.usage import Value, at

MAX_MESSAGE_CHARS = 500

_UNKNOWN_STATUS = 500
_MAX_MESSAGE_DEPTH = 6

_MAX_WORD_CHARS = 100

_MESSAGE_NAMES = ("message", "Message", "detail", "msg", "status_msg", "error", "errors", "last_error", "base_resp")
_CODE_NAMES = ("code", "status", "type", "error_type", "status_code", "__type")
"""Most specific first: a `code` such as `rate_limit_exceeded` may come with the type `invalid_request_error`."""
_TYPE_NAMES = ("type", "error_type", "status", "code", "__type")
_GENERIC = frozenset(("", "error", "failed"))
_INNER_NAMES = ("error", "errors", "last_error", "base_resp")

_EXHAUSTED = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_REFUSALS = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_AZURE_REFUSAL = "ResponsibleAIPolicyViolation"

_TYPES_OF_STATUS = {
    400: (
        "invalid_request_error INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE validationException BadRequestError "
        "invalid_prompt context_length_exceeded content_filter content_policy_violation moderation_blocked"
    ),
    401: "authentication_error UNAUTHENTICATED invalid_api_key AuthenticationError",
    402: "billing_error insufficient_credits",
    403: "permission_error PERMISSION_DENIED accessDeniedException PermissionDeniedError",
    404: "not_found_error NOT_FOUND resourceNotFoundException model_not_found NotFoundError",
    408: "modelTimeoutException",
    409: "ABORTED ALREADY_EXISTS conflictException",
    413: "request_too_large",
    422: "validation",
    424: "modelStreamErrorException modelErrorException generation",
    429: (
        "rate_limit_error rate_limit_exceeded RateLimitError throttlingException serviceQuotaExceededException "
        "modelNotReadyException RESOURCE_EXHAUSTED too_many_requests tokens requests insufficient_quota "
        "billing_hard_limit_reached"
    ),
    499: "CANCELLED",
    500: "api_error server_error internal_error internalServerException InternalServerError INTERNAL UNKNOWN DATA_LOSS",
    501: "UNIMPLEMENTED",
    503: "overloaded_error overloaded UNAVAILABLE serviceUnavailableException service_unavailable engine_overloaded",
    504: "DEADLINE_EXCEEDED timeout_error",
}
_STATUS_OF_TYPE = {name.lower(): status for status, names in _TYPES_OF_STATUS.items() for name in names.split()}
"""HTTP status of each error type: OpenAI, Anthropic, google.rpc.Code, AWS ResponseStream, TGI."""

_STATUS_OF_SUBSTRING = {
    "ratelimit": 429,
    "throttl": 429,
    "toomanyrequests": 429,
    "quota": 429,
    "overload": 503,
    "notfound": 404,
    "apikey": 401,
    "authentication": 401,
    "unauthorized": 401,
    "unauthenticated": 401,
    "permission": 403,
    "accessdenied": 403,
    "forbidden": 403,
    "invalidrequest": 400,
    "invalidparameter": 400,
    "invalidargument": 400,
    "badrequest": 400,
    "contextsize": 400,
    "contextlength": 400,
    "contentfilter": 400,
    "contentpolicy": 400,
    "datainspection": 400,
}
"""HTTP status of words that contain this text, in lower case and without separators: spellings differ between APIs."""
_SEPARATORS = str.maketrans("", "", "_-. :/")

_STATUS_NUMBER = re.compile(r"[45][0-9][0-9]")


class ProviderFault(msgspec.Struct, frozen=True):
    """An error that a provider reported. In a stream `status` is the HTTP status of its type."""

    status: int
    message: str
    """At most 500 characters, encodable as UTF-8; never empty."""
    type: str | None = None
    exhausted_quota: bool = False
    """True if the account has no money left, so that a retry with the same provider cannot help."""
    policy_refusal: bool = False
    """True if the provider refused the content of the input, so that a retry is unlikely to help."""
    is_unknown: bool = False
    """True if no number and no known word describes the error: `status` is a guess, and breakers ignore it."""


def fault_of(reported: object, *, status: int | None = None, name: str | None = None) -> ProviderFault:
    """Return the fault in a parsed error body, a stream's error item, an error object or plain text.

    `status` is the HTTP status if there is one, `name` the error's type if the framing has one. Never raises.
    """
    message = f"HTTP {status}" if status else "the provider reported an error without a message"
    error, outer = _error_object(reported), reported if isinstance(reported, dict) else {}
    codes = [*([name] if name else []), *_words(error, _CODE_NAMES)]
    known = status or _status_of([*codes, *_words(outer, _CODE_NAMES)])
    status = known or _UNKNOWN_STATUS
    kind = name or next((word for word in _words(error, _TYPE_NAMES) if not word.isdigit()), None)
    return ProviderFault(
        status,
        _clipped(_message_in(reported, _MAX_MESSAGE_DEPTH) or kind or message),
        None if kind is None else _clipped(kind),
        exhausted_quota=status == 429 and not _EXHAUSTED.isdisjoint(codes),
        policy_refusal=status == 400 and _is_refusal(error),
        is_unknown=known is None,
    )


def _error_object(reported: Any) -> Value:
    """Return the object that describes the error: Google wraps its body in an array, Cloudflare its `error`."""
    if isinstance(reported, list):
        reported = reported[0] if reported else None
    if not isinstance(reported, dict):
        return {}
    inner = next((reported[name] for name in _INNER_NAMES if reported.get(name)), None)
    if isinstance(inner, list):
        inner = inner[0] if inner else None
    return inner if isinstance(inner, dict) else reported


def _words(error: Value, names: tuple[str, ...]) -> Iterator[str]:
    """Yield the words under `names`, in order; generic words such as `"type": "error"` are skipped."""
    for name in names:
        word = error.get(name)
        if isinstance(word, int) and not isinstance(word, bool):
            word = str(word) if abs(word) < 1 << 63 else None
        if isinstance(word, str) and word not in _GENERIC:
            yield word.rpartition("#")[2]


def _status_of(codes: list[str]) -> int | None:
    """Return the first HTTP error number, else the status of the first known word; None if there is neither."""
    for code in codes:
        if _STATUS_NUMBER.fullmatch(code):
            return int(code)
    return next((status for code in codes if (status := _status_of_word(code)) is not None), None)


def _status_of_word(word: str) -> int | None:
    word = word[:_MAX_WORD_CHARS].lower()
    if word in _STATUS_OF_TYPE:
        return _STATUS_OF_TYPE[word]
    word = word.translate(_SEPARATORS)
    return next((status for part, status in _STATUS_OF_SUBSTRING.items() if part in word), None)


def _is_refusal(error: Value) -> bool:
    return not _REFUSALS.isdisjoint(_words(error, ("code",))) or at(error, ("innererror", "code")) == _AZURE_REFUSAL


def _message_in(reported: Any, depth: int) -> str | None:
    """Return the first human-readable text in `reported`; an inner error object comes before the outer one."""
    if isinstance(reported, str):
        return reported.strip() or None
    if depth == 0:
        return None
    if isinstance(reported, list):
        return _message_in(reported[0], depth - 1) if reported else None
    if not isinstance(reported, dict):
        return None
    inner = reported.get("error")
    members: list[Any] = [inner] if isinstance(inner, dict | list) else []
    members += [reported.get(name) for name in _MESSAGE_NAMES]
    texts = (_message_in(member, depth - 1) for member in members)
    return next((text for text in texts if text), None)


def _clipped(text: str) -> str:
    """Return the beginning of a text, without lone surrogates, which would make frames invalid."""
    return text[:MAX_MESSAGE_CHARS].encode(errors="replace").decode()
