"""The bridge's own errors, as SDKs show them: below a provider's name, on `compat` and over the transports."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import config_of, running
from tests.support.transport_variants import GATEWAY, LibraryVariant
from tests.transports.sdks import SDKS, OpenAi, Sdk

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what SDKs use of Python is theirs to mend

TOKENS = f'[gateways.gateway.tokens]\nci = "sha256:{hashlib.sha256(b"right").hexdigest()}"'
MESSAGE = "Unauthorized: "


class Compat(OpenAi):
    slug, path = "compat", ""


def every_sdk(*more: type[Sdk]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("sdk", "way"),
        [
            pytest.param(
                sdk,
                LibraryVariant(sdk.library, is_async),
                id=f"{sdk.__name__}-{'async' if is_async else 'sync'}",
                marks=pytest.mark.needs(f"pip-{sdk.package}"),
            )
            for sdk in (*SDKS, *more)
            for is_async in (True, False)
        ],
    )


async def failure(it: Sdk) -> tuple[int, str, Any]:
    """The status, the message as the SDK itself found it, and the exception."""
    with pytest.raises(Exception) as raised:
        await it.plain("hello")
    error: Any = raised.value
    return it.status_of(error), str(getattr(error, "message", None) or error), error


def check(sdk: type[Sdk], status: int, message: str, error: Any) -> None:
    assert (status, MESSAGE in message) == (401, True)
    if sdk.package == "openai":
        shown = error.body["message"]
        assert (MESSAGE in shown, error.type, str(error.code)) == (True, "AiGatewayError", "2009")


async def here(way: LibraryVariant, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return await (ask() if way.is_async else asyncio.to_thread(lambda: asyncio.run(ask())))


@every_sdk(Compat)
async def test_an_sdk_at_the_bridges_url_shows_the_message(sdk: type[Sdk], way: LibraryVariant, tmp_path: Path) -> None:
    async with running(config_of(TOKENS, tmp_path)) as server:

        async def ask() -> Any:
            it = sdk.reaching(server.url.replace("ws", "http", 1) + GATEWAY, way, "wrong")
            try:
                return await failure(it)
            finally:
                await it.close()

        reported = await here(way, ask)
    check(sdk, *reported)


@every_sdk()
async def test_an_sdk_over_the_transport_shows_the_message(sdk: type[Sdk], way: LibraryVariant, tmp_path: Path) -> None:
    async with running(config_of(TOKENS, tmp_path)) as server:
        transport = way.transport(server.url + GATEWAY, "wrong")
        reported = await way.use(transport, lambda client: failure(sdk(way, client.client)))
    check(sdk, *reported)
