"""The official SDKs, each made to talk over a transport. What they are asked is the same for all.

Every method is written once: with an SDK that has no event loop its calls block, in a thread of the test's.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Any, ClassVar, Self

from tests.support.transport_variants import LibraryVariant, done, each

WEATHER = "get_weather"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": WEATHER, "description": "The weather of a city.", "parameters": SCHEMA}
TOOL_RESULT = '{"sky":"blue"}'

Call = tuple[str, Any]
"""A tool's name and arguments."""


class Sdk(ABC):
    """One SDK with one client of it. `model` and key are of no account to the provider of the tests."""

    package: ClassVar[str]
    slug: ClassVar[str]
    library: ClassVar[str]
    base: ClassVar[str] = ""
    """The path of its provider's base URL in the bridge's table, for which the test's provider stands."""
    obeys_retry_after: ClassVar[bool] = True

    path: ClassVar[str] = ""
    """What its users write behind a gateway's URL and the slug, to reach the provider there."""

    def __init__(self, way: LibraryVariant, http: Any) -> None:
        """`http` is a client of the library, with the transport in it."""
        self.is_async = way.is_async
        self.client = self.make(http)

    @classmethod
    def reaching(cls, gateway: str, way: LibraryVariant, key: str) -> Self:
        """With nothing changed but its base URL and its key."""
        self = cls.__new__(cls)
        self.is_async = way.is_async
        self.client = self.reach(f"{gateway}/{cls.slug}{cls.path}", key)
        return self

    @abstractmethod
    def make(self, http: Any) -> Any: ...

    @abstractmethod
    def reach(self, url: str, key: str) -> Any: ...

    async def close(self) -> None:
        await done(self.client.close())

    @abstractmethod
    async def plain(self, text: str) -> str: ...

    @abstractmethod
    async def stream(self, text: str) -> list[str]:
        """The pieces of an answer."""

    @abstractmethod
    async def tools(self, text: str) -> tuple[Call, str]:
        """The tool that the model wants, and its answer once it has the result."""

    @staticmethod
    def status_of(error: Any) -> int:
        return int(error.status_code)

    def pick(self, module: str, plain: str, with_loop: str) -> Any:
        return getattr(import_module(module), with_loop if self.is_async else plain)


class _Chat(Sdk):
    """OpenAI's chat, as others speak it too."""

    model: ClassVar[str] = "small"

    async def plain(self, text: str) -> str:
        answer = await self._ask([user(text)])
        return str(answer.choices[0].message.content)

    async def stream(self, text: str) -> list[str]:
        chunks = each(await self._ask([user(text)], stream=True))
        return [choice.delta.content async for chunk in chunks for choice in chunk.choices if choice.delta.content]

    async def tools(self, text: str) -> tuple[Call, str]:
        tools = [{"type": "function", "function": FUNCTION}]
        message = (await self._ask([user(text)], tools=tools)).choices[0].message
        [call] = message.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": TOOL_RESULT}
        answer = await self._ask([user(text), message.model_dump(exclude_none=True), result], tools=tools)
        return (call.function.name, json.loads(call.function.arguments)), str(answer.choices[0].message.content)

    async def _ask(self, messages: Sequence[Any], **more: Any) -> Any:
        return await done(self.client.chat.completions.create(model=self.model, messages=messages, **more))


class OpenAi(_Chat):
    package, slug, library, base = "openai", "openai", "httpx2", "/v1"
    path = "/v1"

    def make(self, http: Any) -> Any:
        return self.pick("openai", "OpenAI", "AsyncOpenAI")(api_key="key", http_client=http)

    def reach(self, url: str, key: str) -> Any:
        return self.pick("openai", "OpenAI", "AsyncOpenAI")(api_key=key, base_url=url)


class OpenAiResponses(OpenAi):
    async def plain(self, text: str) -> str:
        return str((await self._respond(text)).output_text)

    async def stream(self, text: str) -> list[str]:
        events = each(await self._respond(text, stream=True))
        return [event.delta async for event in events if event.type == "response.output_text.delta"]

    async def tools(self, text: str) -> tuple[Call, str]:
        tools = [{"type": "function", "strict": False, **FUNCTION}]
        output = (await self._respond([user(text)], tools=tools)).output
        [call] = [item for item in output if item.type == "function_call"]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": TOOL_RESULT}
        answer = await self._respond([user(text), call.model_dump(exclude_none=True), result], tools=tools)
        return (call.name, json.loads(call.arguments)), str(answer.output_text)

    async def _respond(self, question: Any, **more: Any) -> Any:
        return await done(self.client.responses.create(model="small", input=question, **more))


class Groq(_Chat):
    package, slug, library, base = "groq", "groq", "httpx", "/openai/v1"

    def make(self, http: Any) -> Any:
        return self.pick("groq", "Groq", "AsyncGroq")(api_key="key", http_client=http)

    def reach(self, url: str, key: str) -> Any:
        return self.pick("groq", "Groq", "AsyncGroq")(api_key=key, base_url=url)


class Anthropic(Sdk):
    package, slug, library = "anthropic", "anthropic", "httpx2"

    def make(self, http: Any) -> Any:
        return self.pick("anthropic", "Anthropic", "AsyncAnthropic")(api_key="key", http_client=http)

    def reach(self, url: str, key: str) -> Any:
        return self.pick("anthropic", "Anthropic", "AsyncAnthropic")(api_key=key, base_url=url)

    async def plain(self, text: str) -> str:
        return "".join(block.text for block in (await self._ask([user(text)])).content)

    async def stream(self, text: str) -> list[str]:
        events = each(await self._ask([user(text)], stream=True))
        return [event.delta.text async for event in events if event.type == "content_block_delta"]

    async def tools(self, text: str) -> tuple[Call, str]:
        tools = [{"name": WEATHER, "input_schema": SCHEMA}]
        content = (await self._ask([user(text)], tools=tools)).content
        [call] = [block for block in content if block.type == "tool_use"]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": TOOL_RESULT}
        turn = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in content]}
        answer = await self._ask([user(text), turn, {"role": "user", "content": [result]}], tools=tools)
        return (call.name, call.input), answer.content[0].text

    async def _ask(self, messages: Sequence[Any], **more: Any) -> Any:
        return await done(self.client.messages.create(model="small", max_tokens=99, messages=messages, **more))


class GoogleGenAi(Sdk):
    """Takes a client per manner, and retries only when it is told to, by its own schedule."""

    package, slug, library = "google-genai", "google-ai-studio", "httpx2"
    obeys_retry_after = False

    def make(self, http: Any) -> Any:
        options = {"httpx_async_client" if self.is_async else "httpx_client": http}
        options["api_version"] = "v1beta"  # the one that the tests' provider speaks
        client = import_module("google.genai").Client(api_key="key", http_options=options)
        return client.aio if self.is_async else client

    def reach(self, url: str, key: str) -> Any:
        options = {"base_url": url, "api_version": "v1beta"}
        client = import_module("google.genai").Client(api_key=key, http_options=options)
        return client.aio if self.is_async else client

    async def close(self) -> None:
        await done(self.client.aclose() if self.is_async else self.client.close())

    async def plain(self, text: str) -> str:
        return str((await self._ask(text)).text)

    async def stream(self, text: str) -> list[str]:
        chunks = each(await done(self.client.models.generate_content_stream(model="small", contents=text)))
        return [chunk.text async for chunk in chunks if chunk.text]

    async def tools(self, text: str) -> tuple[Call, str]:
        tools = {"tools": [{"function_declarations": [FUNCTION]}]}
        first = await self._ask(text, config=tools)
        [call] = first.function_calls
        part = {"function_response": {"name": call.name, "response": json.loads(TOOL_RESULT)}}
        question = {"role": "user", "parts": [{"text": text}]}
        conversation = [question, first.candidates[0].content, {"role": "user", "parts": [part]}]
        return (call.name, call.args), str((await self._ask(conversation, config=tools)).text)

    async def _ask(self, contents: Any, **more: Any) -> Any:
        return await done(self.client.models.generate_content(model="small", contents=contents, **more))

    @staticmethod
    def status_of(error: Any) -> int:
        return int(error.code)


class Mistral(Sdk):
    package, slug, library = "mistralai", "mistral", "httpx2"

    def make(self, http: Any) -> Any:
        retry = import_module("mistralai.client.utils")  # it retries when it is told to
        retries = retry.RetryConfig("backoff", retry.BackoffStrategy(500, 5000, 1.5, 60_000), True)
        named = {"async_client" if self.is_async else "client": http}
        return import_module("mistralai.client").Mistral(api_key="key", retry_config=retries, **named)

    def reach(self, url: str, key: str) -> Any:
        return import_module("mistralai.client").Mistral(api_key=key, server_url=url)

    async def close(self) -> None:
        await (
            self.client.__aexit__(None, None, None) if self.is_async else done(self.client.__exit__(None, None, None))
        )

    async def plain(self, text: str) -> str:
        return str((await self._ask("complete", [user(text)])).choices[0].message.content)

    async def stream(self, text: str) -> list[str]:
        chunks = each(await self._ask("stream", [user(text)]))
        return [choice.delta.content async for chunk in chunks for choice in chunk.data.choices if choice.delta.content]

    async def tools(self, text: str) -> tuple[Call, str]:
        tools = [{"type": "function", "function": FUNCTION}]
        message = (await self._ask("complete", [user(text)], tools=tools)).choices[0].message
        [call] = message.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "name": WEATHER, "content": TOOL_RESULT}
        answer = await self._ask("complete", [user(text), message, result], tools=tools)
        arguments = call.function.arguments
        return (call.function.name, json.loads(arguments)), str(answer.choices[0].message.content)

    async def _ask(self, how: str, messages: Sequence[Any], **more: Any) -> Any:
        method = getattr(self.client.chat, f"{how}_async" if self.is_async else how)
        return await done(method(model="small", messages=messages, **more))


class Cohere(Sdk):
    package, slug, library = "cohere", "cohere", "httpx"

    def make(self, http: Any) -> Any:
        return self.pick("cohere", "ClientV2", "AsyncClientV2")(api_key="key", httpx_client=http)

    def reach(self, url: str, key: str) -> Any:
        return self.pick("cohere", "ClientV2", "AsyncClientV2")(api_key=key, base_url=url)

    async def close(self) -> None:
        await (
            self.client.__aexit__(None, None, None) if self.is_async else done(self.client.__exit__(None, None, None))
        )

    async def plain(self, text: str) -> str:
        return str((await self._ask([user(text)])).message.content[0].text)

    async def stream(self, text: str) -> list[str]:
        events = each(self.client.chat_stream(model="small", messages=[user(text)]))
        return [event.delta.message.content.text async for event in events if event.type == "content-delta"]

    async def tools(self, text: str) -> tuple[Call, str]:
        tools = [{"type": "function", "function": FUNCTION}]
        [call] = (await self._ask([user(text)], tools=tools)).message.tool_calls
        turn = {"role": "assistant", "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": call.id, "content": TOOL_RESULT}
        answer = await self._ask([user(text), turn, result], tools=tools)
        return (call.function.name, json.loads(call.function.arguments)), str(answer.message.content[0].text)

    async def _ask(self, messages: Sequence[Any], **more: Any) -> Any:
        return await done(self.client.chat(model="small", messages=messages, **more))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


SDKS: tuple[type[Sdk], ...] = (OpenAi, OpenAiResponses, Anthropic, GoogleGenAi, Mistral, Cohere, Groq)
