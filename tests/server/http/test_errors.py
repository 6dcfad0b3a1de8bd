"""The bridge's own error responses reveal no software and cannot be sniffed as pages."""

from pathlib import Path

import pytest

from tests.support.harness import config_of, running
from tests.support.provider_script import ScriptedProvider, answers
from tests.support.raw_client import UPGRADE, connect_raw

HOST = b"Host: 127.0.0.1\r\n"
ASKED = b"POST /v1/account/gateway/%b HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}"
PREFLIGHT = b"Origin: http://localhost\r\nAccess-Control-Request-Method: POST\r\n"

OWN = {
    "a probe": b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "the metrics": b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n",
    "no such path": b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n",
    "no such path, and an expectation": b"POST /nothing HTTP/1.1\r\n"
    + HOST
    + b"Expect: more\r\nContent-Length: 0\r\n\r\n",
    "no such method": b"PUT /v1/account/gateway HTTP/1.1\r\n" + HOST + b"\r\n",
    "no HTTP": b"\x16\x03\x01 what\r\n\r\n",
    "no length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n",
    "a line that is too long": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a page of another site": b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "no upgrade": b"GET /v1/account/gateway HTTP/1.1\r\n" + HOST + b"\r\n",
    "a preflight": b"OPTIONS /v1/account/gateway HTTP/1.1\r\n" + HOST + PREFLIGHT + b"\r\n",
    "a step that cannot be called": ASKED % b"nobody/x",
    "an agreement": "\r\n".join(
        ("GET /v1/account/gateway HTTP/1.1", *(f"{name}: {value}" for name, value in UPGRADE.items()), "", "")
    ).encode(),
}


@pytest.mark.parametrize("request_bytes", OWN.values(), ids=OWN)
async def test_own_responses_name_no_software_and_forbid_sniffing(tmp_path: Path, request_bytes: bytes) -> None:
    async with running(config_of("", tmp_path)) as server, connect_raw(server) as client:
        await client.send(request_bytes)
        answered = await client.read_response()
    assert "server" not in answered.headers
    assert answered.headers["x-content-type-options"] == "nosniff"


async def test_a_providers_response_keeps_its_own_headers(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers(server="theirs/1.0"))
    async with running(config_of("", tmp_path), provider) as server, connect_raw(server) as client:
        await client.send(ASKED % b"openai/v1/chat/completions")
        answered = await client.read_response()
    assert answered.headers["server"] == "theirs/1.0"
    assert "x-content-type-options" not in answered.headers
