"""Reads cassettes of VCR.py and of tools with similar formats: Betamax, the VCR of Ruby, pydantic-ai.

All have a list of interactions, each with a request and a response. They differ in the place and the form of a body:
bytes, text, base64 or parsed JSON. Sources: `serialize.py` and `stubs/httpx_stubs.py` of vcrpy, `util.py` of
Betamax.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import orjson

from bridge.tapes.exchange import SentRequest
from bridge.tapes.file import Pairs
from bridge.tapes.importers.exchange import ImportedExchange, Skipped, Unusable

Headers = dict[str, Any] | None
StatusCode = Annotated[int, msgspec.Meta(ge=100, le=999)]


class _Status(msgspec.Struct):
    code: StatusCode


class _VcrRequest(msgspec.Struct):
    method: str
    uri: str
    headers: Headers = None
    body: Any = None
    parsed_body: Any = None


class _VcrResponse(msgspec.Struct):
    status: _Status | None = None
    status_code: StatusCode | None = None
    headers: Headers = None
    body: Any = None
    content: Any = None
    parsed_body: Any = None


class _Interaction(msgspec.Struct):
    request: _VcrRequest
    response: _VcrResponse


def is_cassette(document: object) -> bool:
    return isinstance(document, dict) and isinstance(_interactions(document), list)


def entries(document: dict[str, Any]) -> Iterator[ImportedExchange | Skipped]:
    """Yield the interactions of the cassette in order."""
    for number, each in enumerate(_interactions(document), start=1):
        try:
            yield _entry(msgspec.convert(each, _Interaction))
        except (msgspec.ValidationError, Unusable) as error:
            yield Skipped(f"interaction {number}", str(error))


def _interactions(document: dict[str, Any]) -> Any:
    return document.get("interactions", document.get("http_interactions"))


def _entry(interaction: _Interaction) -> ImportedExchange:
    request, response = interaction.request, interaction.response
    status = response.status.code if response.status else response.status_code
    if status is None:
        raise Unusable("its response has no status")
    sent = SentRequest(
        request.method.upper(), request.uri, _pairs(request.headers), _body(request.body, request.parsed_body)
    )
    body = response.body if response.body is not None else response.content
    return ImportedExchange(sent, status, _pairs(response.headers), _body(body, response.parsed_body))


def _pairs(headers: Headers) -> Pairs:
    return [(name.lower(), _text(value)) for name, values in (headers or {}).items() for value in _listed(values)]


def _listed(values: object) -> list[object]:
    return values if isinstance(values, list) else [values]


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _body(body: object, parsed: object) -> bytes:
    match body:
        case None:
            return b"" if parsed is None else orjson.dumps(parsed)
        case bytes():
            return body
        case str():
            return body.encode(errors="replace")  # YAML may contain lone surrogates
        case {"base64_string": str(coded)} | {"encoding": "base64", "string": str(coded)}:
            return _decoded(coded)
        case {"string": bytes() | str() | None as text}:
            return _body(text, None)
        case _:
            return orjson.dumps(body)


def _decoded(coded: str) -> bytes:
    try:
        return base64.b64decode(coded)
    except (binascii.Error, ValueError):
        raise Unusable("its body is not valid base64") from None
