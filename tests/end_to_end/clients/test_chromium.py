"""A browser talks with a bridge: with its one way to bring a token, and under the origin that it cannot hide."""

from pathlib import Path

import pytest

from tests.end_to_end.clients.chromium import page
from tests.end_to_end.clients.talk import TOKEN, bridge, judge, turns

pytestmark = pytest.mark.needs("chromium")


async def test_it_holds_the_talk_with_a_token_as_its_subprotocol(tmp_path: Path) -> None:
    protocol = f"cf-aig-authorization.{TOKEN}"
    async with page() as opened, bridge(tmp_path) as server:
        told = await opened.told_from(
            f"http://127.0.0.1:{opened.port}",
            tmp_path / "profile",
            url=f"{server.url}/v1/account/tokened",
            protocols=[protocol],
            turns=turns(),
        )
    judge(told["frames"])
    assert (told["code"], told["protocol"]) == (1000, protocol)


async def test_a_page_of_an_allowed_origin_holds_the_talk_with_an_open_gateway(tmp_path: Path) -> None:
    async with page() as opened:
        origin = f"http://allowed.example:{opened.port}"
        async with bridge(tmp_path, allowed_origins=[origin]) as server:
            told = await opened.told_from(
                origin, tmp_path / "profile", url=f"{server.url}/v1/account/open", protocols=[], turns=turns()
            )
    judge(told["frames"])


@pytest.mark.parametrize("gateway", ["open", "tokened"])
async def test_a_page_without_right_or_token_is_refused(gateway: str, tmp_path: Path) -> None:
    async with page() as opened, bridge(tmp_path, allowed_origins=["http://allowed.example"]) as server:
        told = await opened.told_from(
            f"http://other.example:{opened.port}",
            tmp_path / "profile",
            url=f"{server.url}/v1/account/{gateway}",
            protocols=[],
            turns=turns(),
        )
    assert (told["frames"], told["code"]) == ([], 1006)
