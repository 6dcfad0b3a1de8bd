"""Official SDKs with nothing changed but their base URL and their key, which is a token of the gateway."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import config_of, running
from tests.support.transport_variants import GATEWAY, LibraryVariant, done
from tests.transports.aimock import HELLO
from tests.transports.sdks import SDKS, OpenAi, Sdk, user

pytestmark = [
    pytest.mark.needs("npm-aimock"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # what SDKs use of Python is theirs to mend
    pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid FinishReason"),  # aimock invents it for Gemini
]

TOKEN = "a-token-of-the-gateway"

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


def config_text(slug: str, url: str) -> str:
    """Return a configuration with a stored key that may be used for files, too."""
    return f"""
[gateways.gateway]
stored_key_access = "full"
[gateways.gateway.tokens]
ci = "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
[gateways.gateway.keys]
{slug}.default = "file:key"
[providers.{slug}]
base_url = "{url}"
"""


async def over_http(
    sdk: type[Sdk], way: LibraryVariant, provider: str, folder: Path, ask: Callable[[Any], Coroutine[Any, Any, Any]]
) -> Any:
    """What `ask` gives: in this loop, or in a thread where its calls may block."""
    (folder / "key").write_text("the-providers-key")

    async def run() -> Any:
        it = sdk.reaching(url, way, TOKEN)
        try:
            return await ask(it)
        finally:
            await it.close()

    async with running(config_of(config_text(sdk.slug, provider + sdk.base), folder)) as server:
        url = server.url.replace("ws", "http", 1) + GATEWAY
        return await (run() if way.is_async else asyncio.to_thread(lambda: asyncio.run(run())))


@every_sdk
async def test_an_answer(sdk: type[Sdk], way: LibraryVariant, provider: str, tmp_path: Path) -> None:
    assert await over_http(sdk, way, provider, tmp_path, lambda it: it.plain("hello")) == HELLO


@every_sdk
async def test_a_stream(sdk: type[Sdk], way: LibraryVariant, provider: str, tmp_path: Path) -> None:
    pieces = await over_http(sdk, way, provider, tmp_path, lambda it: it.stream("hello"))
    assert "".join(pieces) == HELLO
    assert len(pieces) > 3


@every_sdk
async def test_a_tool_and_its_result(sdk: type[Sdk], way: LibraryVariant, provider: str, tmp_path: Path) -> None:
    call, answer = await over_http(sdk, way, provider, tmp_path, lambda it: it.tools("weather"))
    assert call == ("get_weather", {"city": "Köln"})
    assert answer == "Blue."


@every_sdk
async def test_an_error_of_the_provider(sdk: type[Sdk], way: LibraryVariant, provider: str, tmp_path: Path) -> None:
    """It is the SDK's own exception, with the provider's status and words."""

    async def ask(it: Sdk) -> tuple[int, str]:
        try:
            await it.plain("wrong")
        except Exception as error:
            return it.status_of(error), str(error)
        raise AssertionError("no error")

    status, text = await over_http(sdk, way, provider, tmp_path, ask)
    assert (status, "No such model" in text) == (400, True)


class AnyModel(OpenAi):
    slug, path = "compat", ""


@pytest.mark.needs("pip-openai")
async def test_one_sdk_and_the_models_of_all_providers(provider: str, tmp_path: Path) -> None:
    """The OpenAI-shaped front, plain and streamed."""
    (tmp_path / "key").write_text("the-providers-key")
    way = LibraryVariant("httpx2", is_async=True)
    async with running(config_of(config_text("mistral", provider), tmp_path)) as server:
        it = AnyModel.reaching(server.url.replace("ws", "http", 1) + GATEWAY, way, TOKEN)
        try:
            answer = await it.client.chat.completions.create(model="mistral/small", messages=[user("hello")])
            stream = await it.client.chat.completions.create(
                model="mistral/small", messages=[user("hello")], stream=True
            )
            chunks = [chunk async for chunk in stream]
        finally:
            await it.close()
    assert answer.choices[0].message.content == HELLO
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == HELLO


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.needs("pip-openai")
async def test_a_file_is_uploaded_and_downloaded(is_async: bool, provider: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000

    async def ask(it: Sdk) -> bytes:
        file = await done(it.client.files.create(file=("a.bin", content), purpose="batch"))
        assert (file.bytes, file.filename) == (len(content), "a.bin")
        down: bytes = (await done(it.client.files.content(file.id))).content
        return down

    assert await over_http(OpenAi, LibraryVariant("httpx2", is_async), provider, tmp_path, ask) == content
