"""Official SDKs run realtime sessions over a bridge; only their host and their key are changed.

SDKs that require TLS trust the tests' certificate. The provider is @copilotkit/aimock, an independent implementation,
if it supports the API; otherwise a script with recorded or documented messages of the provider.
"""

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from bridge.server.server import Server
from tests.end_to_end.clients.sdk_talks import AUDIO
from tests.support.harness import config_of, running
from tests.support.paths import FIXTURES
from tests.transports.aimock import HELLO, serving

HERE = Path(__file__).parent
TLS = FIXTURES / "tls"
SPOKEN = base64.b64encode(AUDIO).decode()

Socket = web.WebSocketResponse[bool]
Script = Callable[["ScriptedSocket"], Awaitable[None]]


class ScriptedSocket:
    """Socket of a provider script."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def send(self, *messages: object) -> None:
        for message in messages:
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            else:
                await self._socket.send_str(orjson.dumps(message).decode())

    async def receive(self) -> object:
        """Return the next message: bytes, or the parsed JSON."""
        message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            return message.data
        return orjson.loads(message.data) if message.type is WSMsgType.TEXT else None

    async def until(self, name: str, value: object) -> None:
        """Read messages up to the one with that member."""
        while (received := await self.receive()) is not None and not (
            isinstance(received, dict) and received.get(name) == value
        ):
            pass


async def cartesia_tts(socket: ScriptedSocket) -> None:
    request = await socket.receive()
    assert isinstance(request, dict)
    of = {"context_id": request["context_id"]}
    await socket.send(
        {"type": "chunk", "data": SPOKEN, "done": False, "status_code": 206, "step_time": 1.5, **of},
        {"type": "done", "done": True, "status_code": 200, **of},
    )


async def deepgram_listen(socket: ScriptedSocket) -> None:
    assert await socket.receive() == AUDIO
    alternative = {"transcript": "hello", "confidence": 0.99, "words": []}
    metadata = {
        "request_id": "r",
        "model_uuid": "m",
        "model_info": {"name": "general-nova-3", "version": "1", "arch": "nova-3"},
    }
    await socket.send(
        {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": 1.0,
            "start": 0.0,
            "is_final": True,
            "speech_final": True,
            "channel": {"alternatives": [alternative]},
            "metadata": metadata,
            "from_finalize": False,
        }
    )
    await socket.until("type", "CloseStream")
    await socket.send(
        {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": "r",
            "sha256": "0",
            "created": "2026-01-01T00:00:00Z",
            "duration": 1.0,
            "channels": 1,
        }
    )


async def deepgram_speak(socket: ScriptedSocket) -> None:
    await socket.until("type", "Flush")
    await socket.send(AUDIO, {"type": "Flushed", "sequence_id": 0})


async def deepgram_agent(socket: ScriptedSocket) -> None:
    await socket.send(
        {"type": "Welcome", "request_id": "r"},
        {"type": "ConversationText", "role": "assistant", "content": "Of course!"},
    )


async def elevenlabs_tts(socket: ScriptedSocket) -> None:
    await socket.until("text", "")
    await socket.send({"audio": SPOKEN, "isFinal": None, "alignment": None}, {"audio": None, "isFinal": True})


async def elevenlabs_agent(socket: ScriptedSocket) -> None:
    await socket.until("type", "conversation_initiation_client_data")
    initiated = {
        "conversation_id": "c",
        "agent_output_audio_format": "pcm_16000",
        "user_input_audio_format": "pcm_16000",
    }
    await socket.send(
        {"type": "conversation_initiation_metadata", "conversation_initiation_metadata_event": initiated},
        {"type": "ping", "ping_event": {"event_id": 1, "ping_ms": 50}},
    )
    await socket.until("type", "pong")
    await socket.send(
        {"type": "agent_response", "agent_response_event": {"agent_response": "Hello there.", "event_id": 2}}
    )


async def google_live(socket: ScriptedSocket) -> None:
    """Google sends indented JSON in binary frames."""

    async def send(**message: object) -> None:
        await socket.send(orjson.dumps(message, option=orjson.OPT_INDENT_2))

    setup = await socket.receive()
    assert isinstance(setup, dict)
    assert setup["setup"]["model"] == "models/gemini-live"
    await send(setupComplete={"sessionId": "16dbe99e-065e-44f9-b025-f09394554a7a"})
    assert await socket.receive() == {
        "client_content": {"turns": [{"parts": [{"text": "hello"}], "role": "user"}], "turnComplete": True}
    }
    await send(serverContent={"modelTurn": {"parts": [{"text": "Hello "}]}})
    await send(serverContent={"modelTurn": {"parts": [{"text": "there."}]}})
    counts = {"promptTokenCount": 5, "responseTokenCount": 3, "totalTokenCount": 8}
    await send(serverContent={"turnComplete": True}, usageMetadata=counts)


async def fal_realtime(socket: ScriptedSocket) -> None:
    assert await socket.receive() == b"\x81\xa6prompt\xa5a cat"
    await socket.send({"type": "x-fal-message", "action": "metadata"}, b"\x81\xa6images\x90")


@dataclass(frozen=True)
class Talk:
    script: Script
    package: str
    slug: str
    target: str
    header: tuple[str, str]
    received: object
    closes: bool = False
    """True if the provider closes the session."""
    tls: bool = False
    """True if the SDK requires TLS."""

    @property
    def name(self) -> str:
        return self.script.__name__


TOKEN = ("authorization", "Token the-key")
CONVAI = "/v1/convai/conversation?agent_id=agent&source=python_sdk"
TALKS = [
    Talk(
        google_live,
        "google-genai",
        "google-ai-studio",
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
        ("x-goog-api-key", "the-key"),
        "Hello there.",
        tls=True,
    ),
    Talk(
        cartesia_tts,
        "cartesia",
        "cartesia",
        "/tts/websocket",
        ("authorization", "Bearer the-key"),
        ["chunk", "done"],
        tls=True,
    ),
    Talk(deepgram_listen, "deepgram-sdk", "deepgram", "/v1/listen?model=nova-3", TOKEN, ["hello", "Metadata"]),
    Talk(deepgram_speak, "deepgram-sdk", "deepgram", "/v1/speak?model=aura-2-thalia-en", TOKEN, [True, "Flushed"]),
    Talk(deepgram_agent, "deepgram-sdk", "deepgram", "/v1/agent/converse", TOKEN, ["Welcome", "Of course!"]),
    Talk(
        elevenlabs_tts,
        "elevenlabs",
        "elevenlabs",
        "/v1/text-to-speech/voice/stream-input?model_id=eleven_flash_v2_5",
        ("xi-api-key", "the-key"),
        True,
        closes=True,
        tls=True,
    ),
    Talk(elevenlabs_agent, "elevenlabs", "elevenlabs", CONVAI, ("host", ""), ["Hello there."]),
    Talk(
        fal_realtime,
        "fal_client",
        "fal",
        "/fal-ai/fast-lcm-diffusion/realtime",
        ("authorization", "Key id:secret"),
        {"images": []},
        tls=True,
    ),
]


@dataclass
class Provider:
    talk: Talk
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.raw_path, {name.lower(): value for name, value in request.headers.items()}))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await self.talk.script(ScriptedSocket(socket))
        if self.talk.closes:
            await socket.close()
        while (await socket.receive()).type not in {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED}:
            pass
        return socket


@asynccontextmanager
async def bridged(folder: Path, slug: str, base: str, *, tls: bool) -> AsyncIterator[Server]:
    certificate = {"tls_cert": TLS / "localhost.pem", "tls_key": TLS / "localhost-key.pem"} if tls else {}
    server_table = "".join(f'{key} = "{path}"\n' for key, path in certificate.items())
    text = f'[server]\n{server_table}[providers.{slug}]\nbase_url = "{base}"\n'
    async with running(config_of(text, folder)) as server:
        yield server


PYTHON = (sys.executable, str(HERE / "sdk_talks.py"))
NODE = ("node", str(HERE / "sdk_talks.cjs"))

UP_TO_TLS_1_2 = """\
openssl_conf = conf
[conf]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MaxProtocol = TLSv1.2
"""
"""For OpenSSL. The blocking client of websockets writes in one thread while it reads in another, which OpenSSL does not
allow: in TLS 1.3, where a server sends unrequested messages after the handshake, requests are sometimes lost.
"""


async def run_sdk(server: Server, folder: Path, name: str, command: tuple[str, ...] = PYTHON) -> object:
    """Run the SDK and return the messages that it received."""
    gateway = f"{server.url.replace('ws', 'http', 1)}/v1/account/gateway"
    authority, limits = str(TLS / "localhost.pem"), folder / "openssl.cnf"
    limits.write_text(UP_TO_TLS_1_2)
    environ = {
        **os.environ,
        "SSL_CERT_FILE": authority,
        "NODE_EXTRA_CA_CERTS": authority,
        "OPENSSL_CONF": str(limits),
    }
    process = await asyncio.create_subprocess_exec(*command, name, gateway, env=environ, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(60):
            socket, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return orjson.loads(socket)


@pytest.mark.parametrize(
    "talk", [pytest.param(talk, id=talk.name, marks=pytest.mark.needs(f"pip-{talk.package}")) for talk in TALKS]
)
async def test_an_sdk_completes_a_session_with_its_provider(tmp_path: Path, talk: Talk) -> None:
    provider = Provider(talk)
    app = web.Application()
    app.router.add_get("/{path:.*}", provider.handle)
    async with TestServer(app) as served:
        base = str(served.make_url("")).rstrip("/")
        async with bridged(tmp_path, talk.slug, base, tls=talk.tls) as server:
            assert await run_sdk(server, tmp_path, talk.name) == talk.received
    [(target, headers)] = provider.seen
    assert target.startswith(talk.target)
    name, value = talk.header
    assert headers[name].startswith(value)


@pytest.mark.needs("npm-aimock")
@pytest.mark.parametrize(
    ("name", "slug", "base", "command"),
    [
        pytest.param("openai_realtime", "openai", "/v1", PYTHON, marks=pytest.mark.needs("pip-openai")),
        pytest.param("openai_responses", "openai", "/v1", PYTHON, marks=pytest.mark.needs("pip-openai")),
        # Google's for Python writes client_content, which Google takes and aimock does not
        pytest.param("google", "google-ai-studio", "", NODE, marks=pytest.mark.needs("npm-google-genai")),
    ],
)
async def test_an_sdk_completes_a_session_with_an_independent_provider(
    tmp_path: Path, name: str, slug: str, base: str, command: tuple[str, ...]
) -> None:
    with serving() as url:
        async with bridged(tmp_path, slug, url + base, tls=True) as server:
            assert await run_sdk(server, tmp_path, name, command) == HELLO
