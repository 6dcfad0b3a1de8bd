"""Official SDKs, unchanged, over the bridge: against a provider server that somebody else wrote."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import config_of, running
from tests.support.transport_variants import GATEWAY, LibraryVariant, done
from tests.transports.aimock import HELLO, busy
from tests.transports.sdks import SDKS, OpenAi, Sdk

pytestmark = [
    pytest.mark.needs("npm-aimock"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # what SDKs use of Python is theirs to mend
    pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid FinishReason"),  # aimock invents it for Gemini
]

every_sdk = pytest.mark.parametrize(
    ("sdk", "way"),
    [
        pytest.param(
            sdk,
            LibraryVariant(sdk.library, is_async),
            id=f"{sdk.__name__}-{'async' if is_async else 'sync'}",
            marks=pytest.mark.needs(f"pip-{sdk.package}"),
        )
        for sdk in SDKS
        for is_async in (True, False)
    ],
)


async def over_the_bridge(
    sdk: type[Sdk], way: LibraryVariant, provider: str, folder: Path, ask: Callable[[Any], Coroutine[Any, Any, Any]]
) -> Any:
    """What `ask` gives with the SDK as its makers deliver it: its provider's own URL, and a transport."""
    config = config_of(f'[providers.{sdk.slug}]\nbase_url = "{provider}{sdk.base}"', folder)
    async with running(config) as server:
        transport = way.transport(server.url + GATEWAY)
        return await way.use(transport, lambda client: ask(sdk(way, client.client)))


@every_sdk
async def test_an_answer(sdk: type[Sdk], way: LibraryVariant, provider: str, tmp_path: Path) -> None:
    assert await over_the_bridge(sdk, way, provider, tmp_path, lambda it: it.plain("hello")) == HELLO


@every_sdk
async def test_a_stream(sdk: type[Sdk], way: LibraryVariant, provider: str, tmp_path: Path) -> None:
    pieces = await over_the_bridge(sdk, way, provider, tmp_path, lambda it: it.stream("hello"))
    assert "".join(pieces) == HELLO
    assert len(pieces) > 3


@every_sdk
async def test_a_tool_and_its_result(sdk: type[Sdk], way: LibraryVariant, provider: str, tmp_path: Path) -> None:
    call, answer = await over_the_bridge(sdk, way, provider, tmp_path, lambda it: it.tools("weather"))
    assert call == ("get_weather", {"city": "Köln"})
    assert answer == "Blue."


@pytest.mark.parametrize("how", ["plain", "stream"])
@every_sdk
async def test_an_error_of_the_provider(
    sdk: type[Sdk], way: LibraryVariant, how: str, provider: str, tmp_path: Path
) -> None:
    """It is the SDK's own exception, with the provider's status and words."""

    async def ask(it: Sdk) -> tuple[int, str]:
        try:
            await getattr(it, how)("wrong")
        except Exception as error:
            return it.status_of(error), str(error)
        raise AssertionError("no error")

    status, text = await over_the_bridge(sdk, way, provider, tmp_path, ask)
    assert (status, "No such model" in text) == (400, True)


@every_sdk
async def test_retry_after_is_obeyed(
    sdk: type[Sdk], way: LibraryVariant, provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By those that retry of their own, which reach the provider again over the bridge."""
    slept = pauses(monkeypatch)

    async def ask(it: Sdk) -> object:
        try:
            return await it.plain(busy(sdk, way))
        except Exception as error:
            return it.status_of(error)

    answer = await over_the_bridge(sdk, way, provider, tmp_path, ask)
    assert (answer, slept) == ((HELLO, [1.0]) if sdk.obeys_retry_after else (429, []))


def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that are made from now on, none of which takes any time."""
    made: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float, result: Any = None) -> Any:
        if seconds > 0:
            made.append(seconds)
        return await sleep(0, result)

    monkeypatch.setattr(time, "sleep", made.append)
    monkeypatch.setattr(asyncio, "sleep", pause)
    monkeypatch.setattr("anyio._backends._asyncio.sleep", pause)
    return made


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.needs("pip-openai")
async def test_a_file_is_uploaded_and_downloaded(is_async: bool, provider: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    way = LibraryVariant("httpx2", is_async)

    async def ask(it: Sdk) -> bytes:
        file = await done(it.client.files.create(file=("a.bin", content), purpose="batch"))
        assert (file.bytes, file.filename) == (len(content), "a.bin")
        down: bytes = (await done(it.client.files.content(file.id))).content
        return down

    assert await over_the_bridge(OpenAi, way, provider, tmp_path, ask) == content
