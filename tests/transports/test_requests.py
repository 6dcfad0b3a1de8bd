"""Whatever the body is, the bridge gets it so that the provider gets the very bytes."""

import subprocess
import sys

import orjson
import pytest

from bridge.client.steps import create
from bridge.protocol.messages import Create, MessageLimits, parse
from bridge.settings.step import StepSettings
from bridge.transports.requests import TransportRequest, step_of
from bridge.transports.routes import Address, ProviderPlace

JSON = "application/json"
BODIES = {
    "JSON": (b'{"a":  1.0, "b":"\xc3\xa9", "b": 2}', JSON, "query"),
    "JSON by its full name": (b"[1,2]", "Application/JSON; charset=utf-8", "query"),
    "half an emoji": (rb'{"a":"\ud83d"}', JSON, "query"),
    "null": (b"null", JSON, "query"),
    "JSON in white space": (b'\n{"a":1}\n', JSON, "text"),
    "JSON of another type": (b'{"a":1}', "text/plain", "text"),
    "no JSON": (b'{"a":NaN', JSON, "text"),
    "JSON that is no UTF-8": (b'{"a":"\xff"}', JSON, "base64"),
    "a byte order mark": (b'\xef\xbb\xbf{"a":1}', JSON, "text"),
    "a form": (b"a=1&b=%20", "application/x-www-form-urlencoded", "text"),
    "bytes": (bytes(range(256)), "application/octet-stream", "base64"),
    "nothing": (b"", JSON, "nothing"),
}


def message_of(body: bytes, content_type: str) -> bytes:
    request = TransportRequest(
        "PUT", Address("https", "h", None, "/"), {"content-type": content_type}, body, None, None
    )
    return create("event", step_of(request, ProviderPlace("openai", "files"), {"frames": "raw"}))


@pytest.mark.parametrize(("body", "content_type", "way"), BODIES.values(), ids=BODIES)
def test_the_bridge_reads_the_very_bytes(body: bytes, content_type: str, way: str) -> None:
    message = message_of(body, content_type)
    read = parse(message, StepSettings(), MessageLimits())
    assert isinstance(read, Create), read
    [step] = read.steps
    assert (step.method, step.body, step.provider_headers) == ("PUT", body, {"content-type": content_type})
    assert way_of(message) == way


def way_of(message: bytes) -> str:
    try:
        step = orjson.loads(message)["request"]
    except orjson.JSONDecodeError:
        return "query"  # lone surrogates, which orjson does not take
    return "query" if "query" in step else step.get("encoding", "nothing")


def test_no_http_library_is_imported_before_its_transport() -> None:
    script = "import sys, bridge.transports.base; print({'httpx', 'httpx2', 'uvloop'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
    )
