"""Route OpenAI-shaped requests whose `model` also names the provider.

Source: developers.cloudflare.com/ai-gateway/usage/chat-completion.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
import orjson

from bridge.errors import BadField
from bridge.formats.json_spans import ABSENT, JsonType, string_in, type_of
from bridge.formats.request_fields import replace_invalid, to_utf8
from bridge.protocol.steps import ProviderStep
from bridge.providers import Provider, lookup

SLUG: Final = "compat"
_ENDPOINT: Final = "chat/completions"


class _CompatBody(msgspec.Struct):
    model: msgspec.Raw = ABSENT


_compat_body = msgspec.json.Decoder(_CompatBody)


def routed(step: ProviderStep, providers: Mapping[str, Provider]) -> ProviderStep:
    """Return the step for the provider that its model names. Only that name and the coding of the body change.

    Raises BadField, UnknownProvider.
    """
    path, mark, query = step.endpoint.removeprefix("/").partition("?")
    if path.removeprefix("v1/") != _ENDPOINT:
        raise BadField(f"endpoint: {SLUG} has only {_ENDPOINT}")
    body = _in_utf8(step.readable)
    text, span = _read(body)
    slug, slash, model = (string_in(span) if type_of(span) is JsonType.STRING else "").partition("/")
    if not slash:
        raise BadField("model: expected PROVIDER/MODEL, such as openai/gpt-4o-mini")
    provider = lookup(slug, providers)
    if provider.compat_path is None:
        raise BadField(
            f"model: {provider.slug} has no OpenAI-shaped endpoint that follows from a model's name; "
            f"call its own API, as provider {provider.slug}"
        )
    at = _offset_of(span, text)
    rest = body[at + memoryview(span).nbytes :]
    return msgspec.structs.replace(
        step,
        provider=provider.slug,
        endpoint=provider.compat_path + mark + query,
        provider_headers=_without_coding(step.provider_headers),
        body=b"".join((body[:at], orjson.dumps(model), rest)),
        decoded=None,
    )


def _without_coding(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers for a body without content coding."""
    return {name: value for name, value in headers.items() if name != "content-encoding"}


def _in_utf8(body: bytes) -> bytes:
    try:
        return to_utf8(body)
    except UnicodeError as error:
        raise BadField(f"the body is not a JSON object: {error}") from None


def _read(body: bytes) -> tuple[bytearray, msgspec.Raw]:
    """Return a copy of the body with the same offsets, and the span of its `model`, which is a view of the copy."""
    try:
        try:
            return _decoded(body)
        except msgspec.DecodeError:
            return _decoded(replace_invalid(body))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadField(f"the body is not a JSON object: {error}") from None


def _decoded(body: bytes) -> tuple[bytearray, msgspec.Raw]:
    text = bytearray(body)
    return text, _compat_body.decode(text).model


def _offset_of(span: msgspec.Raw, text: bytearray) -> int:
    """Return the offset of the span in `text`: a change there shows in the span. Equal text may occur elsewhere."""
    view = memoryview(span)
    wanted, first = bytes(view), view[0]
    at = text.find(wanted)
    while True:
        text[at] = 0
        if view[0] != first:
            return at
        text[at] = first
        at = text.find(wanted, at + 1)
