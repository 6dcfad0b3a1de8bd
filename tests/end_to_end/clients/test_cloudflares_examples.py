"""The examples of Cloudflare's page on realtime WebSockets, from each kind of client, with only the host changed.

Their targets, keys and first messages are those of
developers.cloudflare.com/ai-gateway/usage/websockets-api/realtime-api. They send when the socket is open; some code of
the page sends earlier, which no client allows.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from websockets.sync.client import connect

from bridge.server.server import Server
from tests.end_to_end.clients.chromium import page
from tests.support.harness import config_of, running

HERE = Path(__file__).parent
ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKEN = "a-token-of-cloudflares"
AUDIO = bytes(range(256))
BY_HEADER = {"cf-aig-authorization": TOKEN}
BY_PROTOCOL = f"cf-aig-authorization.{TOKEN}"
LIVE = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
RUN = f"/accounts/{ACCOUNT}/ai/run/@cf/deepgram"
STT = "encoding=linear16&sample_rate=16000&interim_results=true"


@dataclass(frozen=True)
class Example:
    slug: str
    url: str
    """Target behind the gateway's name."""
    target: str
    """Target that the provider receives; `key` is the header with its key."""
    key: tuple[str, str]
    headers: dict[str, str] = field(default_factory=dict)
    protocols: tuple[str, ...] = ()
    message: str | bytes = ""
    answer: str | bytes = '{"type":"hello"}'
    base: str = ""


EXAMPLES = {
    "OpenAI": Example(
        "openai",
        "openai?model=gpt-4o-realtime-preview-2024-12-17",
        "/v1/realtime?model=gpt-4o-realtime-preview-2024-12-17",
        ("authorization", "Bearer sk-own"),
        {**BY_HEADER, "Authorization": "Bearer sk-own", "OpenAI-Beta": "realtime=v1"},
        message='{"type":"response.create","response":{"modalities":["text"],"instructions":"Tell me a joke"}}',
        base="/v1",
    ),
    "Google AI Studio": Example(
        "google-ai-studio",
        "google?api_key=AIza-own",
        LIVE,
        ("x-goog-api-key", "AIza-own"),
        protocols=(BY_PROTOCOL,),
        message='{"setup":{"model":"models/gemini-2.5-flash","generationConfig":{"responseModalities":["TEXT"]}}}',
        answer=b'{\n  "setupComplete": {}\n}\n',
    ),
    "Cartesia": Example(
        "cartesia",
        "cartesia?cartesia_version=2024-06-10&api_key=sk_car_own",
        "/tts/websocket?cartesia_version=2024-06-10",
        ("x-api-key", "sk_car_own"),
        protocols=(BY_PROTOCOL,),
        message='{"model_id":"sonic","transcript":"Hello, world!","context_id":"happy-monkeys-fly","continue":true}',
    ),
    "ElevenLabs": Example(
        "elevenlabs",
        "elevenlabs?agent_id=agent_1",
        "/v1/convai/conversation?agent_id=agent_1",
        ("xi-api-key", "sk_xi_own"),
        protocols=("xi-api-key.sk_xi_own", BY_PROTOCOL),
        message='{"text":"This is a sample text ","voice_settings":{"stability":0.8,"similarity_boost":0.8}}',
    ),
    "Fal AI": Example(
        "fal",
        "fal/fal-ai/fast-lcm-diffusion",
        "/fal-ai/fast-lcm-diffusion",
        ("authorization", "Key fal-own"),
        protocols=("fal-api-key.fal-own", BY_PROTOCOL),
        message='{"prompt":"generate an image of a cat flying an aeroplane"}',
        answer=AUDIO,
    ),
    "Deepgram (Workers AI), speech to text": Example(
        "workers-ai",
        f"workers-ai?model=@cf/deepgram/nova-3&{STT}",
        f"{RUN}/nova-3?{STT}",
        ("authorization", "Bearer stored"),
        BY_HEADER,
        message=AUDIO,
        base="/accounts/{account_id}/ai",
    ),
    "Deepgram (Workers AI), text to speech": Example(
        "workers-ai",
        "workers-ai?model=@cf/deepgram/aura-1",
        f"{RUN}/aura-1",
        ("authorization", "Bearer stored"),
        BY_HEADER,
        message='{"type":"Speak","text":"Hello"}',
        answer=AUDIO,
        base="/accounts/{account_id}/ai",
    ),
}

Received = tuple[str | bytes, str]
"""The first message that was received, and the subprotocol."""


def by_websockets(url: str, example: Example) -> Received:
    protocols = example.protocols or None
    with connect(url, additional_headers=example.headers, subprotocols=protocols) as socket:  # type: ignore[arg-type]  # strings
        socket.send(example.message)
        return socket.recv(), socket.subprotocol or ""


def by_websocket_client(url: str, example: Example) -> Received:
    from websocket import ABNF, create_connection

    socket = create_connection(url, header=example.headers, subprotocols=example.protocols or None, timeout=30)
    binary = isinstance(example.message, bytes)
    socket.send(example.message, opcode=ABNF.OPCODE_BINARY if binary else ABNF.OPCODE_TEXT)
    received, protocol = socket.recv(), socket.getsubprotocol() or ""
    socket.close(timeout=3)
    return received, protocol


class Provider:
    def __init__(self, example: Example) -> None:
        self._example = example
        self.seen: list[tuple[str, dict[str, str], str | bytes]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        received = (await socket.receive()).data
        self.seen.append((request.raw_path, {name.lower(): value for name, value in request.headers.items()}, received))
        answer = self._example.answer
        await (socket.send_str(answer) if isinstance(answer, str) else socket.send_bytes(answer))
        while (await socket.receive()).type not in {WSMsgType.CLOSE, WSMsgType.CLOSED}:
            pass
        return socket


@asynccontextmanager
async def bridged(folder: Path, example: Example) -> AsyncIterator[Server]:
    """Run a bridge whose gateway requires the token; check that the provider received the key and the message."""
    (folder / "key").write_text("stored")
    provider = Provider(example)
    app = web.Application()
    app.router.add_get("/{path:.*}", provider.handle)
    async with TestServer(app) as served:
        text = f"""
            [providers.{example.slug}]
            base_url = "{str(served.make_url("")).rstrip("/")}{example.base}"
            [gateways.gateway.tokens]
            ci = "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
            [gateways.gateway.keys.{example.slug}]
            default = "file:key"
        """
        async with running(config_of(text, folder)) as server:
            yield server
    [(target, headers, received)] = provider.seen
    name, value = example.key
    assert (target, headers[name], received) == (example.target, value, example.message)
    assert TOKEN not in str(headers)
    assert "sec-websocket-protocol" not in headers


def url_of(server: Server, example: Example) -> str:
    return f"{server.url}/v1/{ACCOUNT}/gateway/{example.url}"


def echoed(example: Example) -> set[str]:
    """Return the subprotocols that may be echoed: those that were offered."""
    return set(example.protocols) or {""}


of_each_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)


@of_each_example
@pytest.mark.parametrize(
    "client",
    [
        pytest.param(by_websockets, id="websockets"),
        pytest.param(by_websocket_client, id="websocket-client", marks=pytest.mark.needs("pip-websocket-client")),
    ],
)
async def test_an_example_works_with_a_python_client(
    tmp_path: Path, client: Callable[[str, Example], Received], example: Example
) -> None:
    async with bridged(tmp_path, example) as server:
        received, protocol = await asyncio.to_thread(client, url_of(server, example), example)
    assert received == example.answer
    assert protocol in echoed(example)


@pytest.mark.needs("npm-ws")
@of_each_example
async def test_an_example_works_with_node(tmp_path: Path, example: Example) -> None:
    async with bridged(tmp_path, example) as server:
        process = await asyncio.create_subprocess_exec(
            "node",
            str(HERE / "npm_ws_say.mjs"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=dict(os.environ),
        )
        arguments = {"url": url_of(server, example), "protocols": example.protocols, "headers": example.headers}
        async with asyncio.timeout(60):
            result, _ = await process.communicate(json.dumps(arguments | {"message": plain(example.message)}).encode())
    judge(json.loads(result), example)


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(
    "example", [pytest.param(example, id=name) for name, example in EXAMPLES.items() if example.protocols]
)
async def test_an_example_works_in_a_browser(tmp_path: Path, example: Example) -> None:
    """A page can send keys only in its URL and its subprotocols."""
    async with page() as opened, bridged(tmp_path, example) as server:
        result = await opened.run_script(
            f"http://127.0.0.1:{opened.port}",
            tmp_path / "profile",
            url=url_of(server, example),
            protocols=example.protocols,
            message=plain(example.message),
        )
    judge(result, example)


def plain(message: str | bytes) -> str | list[int]:
    """Return the message in a form that JSON can hold."""
    return message if isinstance(message, str) else list(message)


def judge(result: dict[str, object], example: Example) -> None:
    assert (result["received"], result["code"]) == (plain(example.answer), 1000)
    assert result["protocol"] in echoed(example)
