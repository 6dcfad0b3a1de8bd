"""Run the Autobahn test suite on framing, pings, fragments, UTF-8 and closing through a bridge."""

import asyncio
import json
import os
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.harness import config_of, running
from tests.support.realtime_harness import PATH

pytestmark = pytest.mark.needs("autobahn")

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
WELL = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}
PATIENCE_S = 400


async def echo(request: web.Request) -> web.StreamResponse:
    """Echo messages with aiohttp's WebSocket alone."""
    socket = web.WebSocketResponse(max_msg_size=0, compress=False)
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)
    return socket


async def reports(folder: Path, **agents: str) -> dict[str, dict[str, str]]:
    """Return the result of each case by agent: the worse of its behavior and its close."""
    servers = [{"agent": agent, "url": url} for agent, url in agents.items()]
    spec = {"outdir": str(folder / "reports"), "servers": servers, "cases": CASES}
    (folder / "spec.json").write_text(json.dumps(spec))
    program = await asyncio.create_subprocess_exec(
        os.environ["BRIDGE_WSTEST"],
        "-m",
        "fuzzingclient",
        "-s",
        "spec.json",
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await program.wait() == 0
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    results = json.loads((folder / "reports" / "index.json").read_text())
    return {agent: {case: _worse(found) for case, found in cases.items()} for agent, cases in results.items()}


def _worse(found: dict[str, str]) -> str:
    return found["behavior"] if found["behavior"] not in WELL else found["behaviorClose"]


async def test_a_bridge_fails_no_case_that_aiohttp_alone_does_not(tmp_path: Path) -> None:
    app = web.Application()
    app.router.add_get("/talk", echo)
    async with TestServer(app) as provider:
        text = f'[providers.custom-x]\nbase_url = "{provider.make_url("")}"\n'
        async with running(config_of(text, tmp_path)) as server:
            results = await reports(tmp_path, aiohttp=f"ws://127.0.0.1:{provider.port}/talk", bridge=server.url + PATH)
    assert len(results["bridge"]) == len(results["aiohttp"]) > 240
    failed = {case: found for case, found in results["bridge"].items() if found not in WELL}
    assert {case for case in failed if results["aiohttp"][case] in WELL} == set(), failed
