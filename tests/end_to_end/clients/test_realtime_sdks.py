"""Official SDKs hold their realtime talks over a bridge, with nothing changed but their host and their key.

Over TLS where they speak nothing else, with the tests' certificate as their authority. The provider is
@copilotkit/aimock, which somebody else wrote, where it has such sockets; else a script in the provider's own words, as
it was recorded or documents them.
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
Script = Callable[["Told"], Awaitable[None]]


class Told:
    """What a script says and hears on its socket."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def says(self, *messages: object) -> None:
        for message in messages:
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            else:
                await self._socket.send_str(orjson.dumps(message).decode())

    async def hears(self) -> object:
        """The next message: bytes, or what JSON says."""
        message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            return message.data
        return orjson.loads(message.data) if message.type is WSMsgType.TEXT else None

    async def until(self, name: str, value: object) -> None:
        """Hear on to the message with that member."""
        while (heard := await self.hears()) is not None and not (isinstance(heard, dict) and heard.get(name) == value):
            pass


async def cartesia_tts(told: Told) -> None:
    asked = await told.hears()
    assert isinstance(asked, dict)
    of = {"context_id": asked["context_id"]}
    await told.says(
        {"type": "chunk", "data": SPOKEN, "done": False, "status_code": 206, "step_time": 1.5, **of},
        {"type": "done", "done": True, "status_code": 200, **of},
    )


async def deepgram_listen(told: Told) -> None:
    assert await told.hears() == AUDIO
    said = {"transcript": "hello", "confidence": 0.99, "words": []}
    metadata = {
        "request_id": "r",
        "model_uuid": "m",
        "model_info": {"name": "general-nova-3", "version": "1", "arch": "nova-3"},
    }
    await told.says(
        {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": 1.0,
            "start": 0.0,
            "is_final": True,
            "speech_final": True,
            "channel": {"alternatives": [said]},
            "metadata": metadata,
            "from_finalize": False,
        }
    )
    await told.until("type", "CloseStream")
    await told.says(
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


async def deepgram_speak(told: Told) -> None:
    await told.until("type", "Flush")
    await told.says(AUDIO, {"type": "Flushed", "sequence_id": 0})


async def deepgram_agent(told: Told) -> None:
    await told.says(
        {"type": "Welcome", "request_id": "r"},
        {"type": "ConversationText", "role": "assistant", "content": "Of course!"},
    )


async def elevenlabs_tts(told: Told) -> None:
    await told.until("text", "")
    await told.says({"audio": SPOKEN, "isFinal": None, "alignment": None}, {"audio": None, "isFinal": True})


async def elevenlabs_agent(told: Told) -> None:
    await told.until("type", "conversation_initiation_client_data")
    initiated = {
        "conversation_id": "c",
        "agent_output_audio_format": "pcm_16000",
        "user_input_audio_format": "pcm_16000",
    }
    await told.says(
        {"type": "conversation_initiation_metadata", "conversation_initiation_metadata_event": initiated},
        {"type": "ping", "ping_event": {"event_id": 1, "ping_ms": 50}},
    )
    await told.until("type", "pong")
    await told.says(
        {"type": "agent_response", "agent_response_event": {"agent_response": "Hello there.", "event_id": 2}}
    )


async def google_live(told: Told) -> None:
    """Each message of Google's is JSON, laid out in lines, in a binary frame."""

    async def says(**message: object) -> None:
        await told.says(orjson.dumps(message, option=orjson.OPT_INDENT_2))

    setup = await told.hears()
    assert isinstance(setup, dict)
    assert setup["setup"]["model"] == "models/gemini-live"
    await says(setupComplete={"sessionId": "16dbe99e-065e-44f9-b025-f09394554a7a"})
    assert await told.hears() == {
        "client_content": {"turns": [{"parts": [{"text": "hello"}], "role": "user"}], "turnComplete": True}
    }
    await says(serverContent={"modelTurn": {"parts": [{"text": "Hello "}]}})
    await says(serverContent={"modelTurn": {"parts": [{"text": "there."}]}})
    counts = {"promptTokenCount": 5, "responseTokenCount": 3, "totalTokenCount": 8}
    await says(serverContent={"turnComplete": True}, usageMetadata=counts)


async def fal_realtime(told: Told) -> None:
    assert await told.hears() == b"\x81\xa6prompt\xa5a cat"
    await told.says({"type": "x-fal-message", "action": "metadata"}, b"\x81\xa6images\x90")


@dataclass(frozen=True)
class Talk:
    script: Script
    package: str
    slug: str
    target: str
    header: tuple[str, str]
    heard: object
    closes: bool = False
    """The provider says goodbye."""
    tls: bool = False
    """The SDK speaks nothing else."""

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
        await self.talk.script(Told(socket))
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
allow: in TLS 1.3, where a server speaks unasked behind the handshake, requests are lost now and then, whoever serves.
"""


async def held(server: Server, folder: Path, name: str, command: tuple[str, ...] = PYTHON) -> object:
    """What the SDK heard."""
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
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return orjson.loads(told)


@pytest.mark.parametrize(
    "talk", [pytest.param(talk, id=talk.name, marks=pytest.mark.needs(f"pip-{talk.package}")) for talk in TALKS]
)
async def test_an_sdk_talks_with_its_provider(tmp_path: Path, talk: Talk) -> None:
    provider = Provider(talk)
    app = web.Application()
    app.router.add_get("/{path:.*}", provider.handle)
    async with TestServer(app) as served:
        base = str(served.make_url("")).rstrip("/")
        async with bridged(tmp_path, talk.slug, base, tls=talk.tls) as server:
            assert await held(server, tmp_path, talk.name) == talk.heard
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
async def test_an_sdk_talks_with_a_provider_that_somebody_else_wrote(
    tmp_path: Path, name: str, slug: str, base: str, command: tuple[str, ...]
) -> None:
    with serving() as url:
        async with bridged(tmp_path, slug, url + base, tls=True) as server:
            assert await held(server, tmp_path, name, command) == HELLO
