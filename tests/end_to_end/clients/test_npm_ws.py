"""Node's ws, which Cloudflare's own examples use, talks with a bridge."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bridge.server.server import Server
from tests.end_to_end.clients.talk import TOKEN, bridge, judge, turns

pytestmark = pytest.mark.needs("npm-ws")

SCRIPT = Path(__file__).parent / "npm_ws.mjs"


async def told_by_ws(server: Server, **handshake: object) -> dict[str, Any]:
    """What the script has to tell: frames, close code, subprotocol, HTTP status."""
    given = {"url": f"{server.url}/v1/account/tokened", "turns": turns(), **handshake}
    node = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        output, _ = await node.communicate(json.dumps(given).encode())
    assert node.returncode == 0
    told: dict[str, Any] = json.loads(output)
    return told


async def test_it_holds_the_talk_with_a_token_in_a_header(tmp_path: Path) -> None:
    async with bridge(tmp_path) as server:
        told = await told_by_ws(server, headers={"cf-aig-authorization": f"Bearer {TOKEN}"})
    judge(told["frames"])
    assert (told["code"], told["protocol"]) == (1000, "")


async def test_it_holds_the_talk_with_a_token_among_its_subprotocols(tmp_path: Path) -> None:
    """The protocol without a credential is echoed: ws breaks off when none is."""
    async with bridge(tmp_path) as server:
        told = await told_by_ws(server, protocols=[f"cf-aig-authorization.{TOKEN}", "universal"])
    judge(told["frames"])
    assert (told["code"], told["protocol"]) == (1000, "universal")


async def test_it_is_told_401_when_its_token_is_wrong(tmp_path: Path) -> None:
    async with bridge(tmp_path) as server:
        told = await told_by_ws(server, headers={"cf-aig-authorization": "Bearer another"})
    assert (told["status"], told["frames"]) == (401, [])
