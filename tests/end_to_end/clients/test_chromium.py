"""A browser as client: with a token as subprotocol, and with the origin that it always sends."""

from pathlib import Path

import pytest

from tests.end_to_end.clients.chromium import page
from tests.end_to_end.clients.talk import TOKEN, bridge, judge, turns

pytestmark = pytest.mark.needs("chromium")


async def test_a_page_completes_the_conversation_with_a_token_as_subprotocol(tmp_path: Path) -> None:
    protocol = f"cf-aig-authorization.{TOKEN}"
    async with page() as opened, bridge(tmp_path) as server:
        result = await opened.run_script(
            f"http://127.0.0.1:{opened.port}",
            tmp_path / "profile",
            url=f"{server.url}/v1/account/tokened",
            protocols=[protocol],
            turns=turns(),
        )
    judge(result["frames"])
    assert (result["code"], result["protocol"]) == (1000, protocol)


async def test_a_page_of_an_allowed_origin_completes_the_conversation_with_an_open_gateway(tmp_path: Path) -> None:
    async with page() as opened:
        origin = f"http://allowed.example:{opened.port}"
        async with bridge(tmp_path, allowed_origins=[origin]) as server:
            result = await opened.run_script(
                origin, tmp_path / "profile", url=f"{server.url}/v1/account/open", protocols=[], turns=turns()
            )
    judge(result["frames"])


@pytest.mark.parametrize("gateway", ["open", "tokened"])
async def test_a_page_of_another_origin_without_a_token_is_refused(gateway: str, tmp_path: Path) -> None:
    async with page() as opened, bridge(tmp_path, allowed_origins=["http://allowed.example"]) as server:
        result = await opened.run_script(
            f"http://other.example:{opened.port}",
            tmp_path / "profile",
            url=f"{server.url}/v1/account/{gateway}",
            protocols=[],
            turns=turns(),
        )
    assert (result["frames"], result["code"]) == ([], 1006)
