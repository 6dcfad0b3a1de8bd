"""Every taped answer over HTTP: the client gets the provider's bytes, however the reads are split."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from bridge.errors import ProviderErrorInStream
from bridge.tapes.file import StreamEnd, Tape, pairs, read_tape
from tests.support.clock import advance, turns
from tests.support.harness import Frame, config_of, connected, running
from tests.support.paths import FIXTURES
from tests.support.provider_script import RESET, SILENCE, Part, ScriptedProvider, ScriptedResponse
from tests.support.raw_http import GATEWAY, HttpResult, connect_http

T = TypeVar("T")

FOLDER = FIXTURES / "tapes"
TAPES = {f"{path.parent.name}/{path.stem}": read_tape(path) for path in sorted(FOLDER.rglob("*.jsonl"))}
CONFIG = """
[gateways.gateway]
request_timeout = 60_000
idle_timeout = 30_000
[providers.custom-any]
base_url = "https://any.test"
"""
_ENDS: dict[StreamEnd, list[Part]] = {
    StreamEnd.EOF: [],
    StreamEnd.RESET: [RESET],
    StreamEnd.STALL: [SILENCE],
    StreamEnd.CLIENT: [SILENCE],
}


def split(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def plays_of(tape: Tape, how: str) -> ScriptedResponse:
    """Return the tape's answer with its reads as taped, joined, or split."""
    reads = [chunk.data for chunk in tape.chunks]
    if how == "whole":
        reads = [b"".join(reads)]
    elif how == "in pieces":
        reads = split(b"".join(reads), 7)
    ending = _ENDS[tape.ending.end]
    if tape.head is None:
        return ScriptedResponse(before_head=ending)
    headers = dict(pairs(tape.head.headers))
    return ScriptedResponse([*filter(None, reads), *ending], tape.head.status, headers.pop("content-type", ""), headers)


async def with_time_passing(answer: Coroutine[Any, Any, T]) -> T:
    """Await the answer and advance the clock meanwhile, so that every deadline expires."""
    task = asyncio.ensure_future(answer)
    while not task.done():
        await turns(60)
        if not task.done():
            advance(1)
    return await task


async def over_http(tape: Tape, how: str, folder: Path) -> HttpResult:
    provider = ScriptedProvider(plays_of(tape, how))
    async with running(config_of(CONFIG, folder), provider) as server, connect_http(server) as client:
        path = f"{GATEWAY}/custom-any{urlsplit(tape.request.url).path}"
        return await with_time_passing(client(tape.request.method, path, tape.request.body))


async def over_a_socket(tape: Tape, how: str, folder: Path) -> Frame:
    """Return the last frame of the same event on a WebSocket."""
    provider = ScriptedProvider(plays_of(tape, how))
    endpoint = urlsplit(tape.request.url).path
    step = {"eventId": "a", "provider": "custom-any", "endpoint": endpoint, "method": tape.request.method, "query": {}}
    async with running(config_of(CONFIG, folder), provider) as server, connected(server, GATEWAY) as client:
        return (await with_time_passing(client.call(step)))[-1]


def is_own(response: object) -> bool:
    """Return True if this is an error body of the bridge."""
    return isinstance(response, dict) and response.get("name") == "AiGatewayError"


@pytest.mark.parametrize("how", ["as taped", "whole", "in pieces"])
@pytest.mark.parametrize("name", TAPES)
async def test_the_body_is_the_providers_and_its_end_matches_the_last_frame(
    name: str, how: str, tmp_path: Path
) -> None:
    tape = TAPES[name]
    response, last = await over_http(tape, how, tmp_path), await over_a_socket(tape, how, tmp_path)
    is_one_piece, status = "response" in last, last["metadata"]["status"]
    if last.get("error", {}).get("code") == ProviderErrorInStream.code:
        assert tape.head is not None
        status = tape.head.status  # the last frame has the status that the error stands for
    assert response.status == status
    if is_one_piece and is_own(last["response"]):
        assert response.code == last["error"]["code"]
        return
    body = b"".join(chunk.data for chunk in tape.chunks)
    assert tape.head is not None
    assert response.headers["content-type"] == dict(pairs(tape.head.headers)).get("content-type", "")
    assert response.is_complete is (is_one_piece or last["metadata"]["success"])
    assert response.body == body if response.is_complete else body.startswith(response.body)
