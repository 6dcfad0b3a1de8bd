"""The npm package ws as client, which Cloudflare's examples use."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bridge.server.server import Server
from tests.end_to_end.clients.talk import TOKEN, bridge, judge, turns

pytestmark = pytest.mark.needs("npm-ws")

SCRIPT = Path(__file__).parent / "npm_ws.mjs"


async def run_ws(server: Server, **handshake: object) -> dict[str, Any]:
    """Run the script and return its result: frames, close code, subprotocol and HTTP status."""
    arguments = {"url": f"{server.url}/v1/account/tokened", "turns": turns(), **handshake}
    node = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        output, _ = await node.communicate(json.dumps(arguments).encode())
    assert node.returncode == 0
    result: dict[str, Any] = json.loads(output)
    return result


async def test_ws_completes_the_conversation_with_a_token_in_a_header(tmp_path: Path) -> None:
    async with bridge(tmp_path) as server:
        result = await run_ws(server, headers={"cf-aig-authorization": f"Bearer {TOKEN}"})
    judge(result["frames"])
    assert (result["code"], result["protocol"]) == (1000, "")


async def test_ws_completes_the_conversation_with_a_token_in_a_subprotocol(tmp_path: Path) -> None:
    """The subprotocol without a credential is echoed: ws disconnects if none is."""
    async with bridge(tmp_path) as server:
        result = await run_ws(server, protocols=[f"cf-aig-authorization.{TOKEN}", "universal"])
    judge(result["frames"])
    assert (result["code"], result["protocol"]) == (1000, "universal")


async def test_ws_gets_401_for_a_wrong_token(tmp_path: Path) -> None:
    async with bridge(tmp_path) as server:
        result = await run_ws(server, headers={"cf-aig-authorization": "Bearer another"})
    assert (result["status"], result["frames"]) == (401, [])
