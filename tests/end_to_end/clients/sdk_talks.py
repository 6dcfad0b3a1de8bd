"""Run one session of an official SDK: python sdk_talks.py NAME GATEWAY. The SDK gets only the gateway's URL and a key.

The received messages are printed as JSON. It is a separate process, because an SDK may read its host and certificates
from the environment, and may start threads that never end.
"""

import asyncio
import base64
import json
import os
import sys
from collections.abc import Callable
from typing import Any

KEY = "the-key"
AUDIO = bytes(range(256))


def openai_realtime(gateway: str) -> object:
    from openai import OpenAI

    with OpenAI(api_key=KEY, base_url=f"{gateway}/openai").realtime.connect(model="gpt-realtime") as talk:
        talk.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        talk.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
        )
        talk.response.create()
        return _deltas(talk, "response.output_text.delta", "response.done")


def openai_responses(gateway: str) -> object:
    from openai import OpenAI

    with OpenAI(api_key=KEY, base_url=f"{gateway}/openai").responses.connect() as talk:
        talk.response.create(model="gpt-5", input="hello")
        return _deltas(talk, "response.output_text.delta", "response.completed")


def google_live(gateway: str) -> object:
    from google import genai

    async def run() -> str:
        options = {"base_url": f"{gateway}/google-ai-studio", "api_version": "v1beta"}
        client = genai.Client(api_key=KEY, http_options=options)
        async with client.aio.live.connect(model="gemini-live", config={"response_modalities": ["TEXT"]}) as talk:
            await talk.send_client_content(turns={"role": "user", "parts": [{"text": "hello"}]}, turn_complete=True)
            return "".join([message.text or "" async for message in talk.receive()])

    return asyncio.run(run())


def cartesia_tts(gateway: str) -> object:
    from cartesia import Cartesia

    with Cartesia(api_key=KEY, base_url=f"{gateway}/cartesia").tts.websocket_connect() as talk:
        talk.send(
            {
                "model_id": "sonic-2",
                "transcript": "hello",
                "voice": {"mode": "id", "id": "voice"},
                "context_id": "one",
                "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 8000},
            }
        )
        heard = []
        for event in talk:
            heard.append(event.type)
            if event.type == "done":
                return heard
            assert base64.b64decode(event.data) == AUDIO
    raise AssertionError("the session ended without a done event")


def deepgram_listen(gateway: str) -> object:
    with _deepgram(gateway).listen.v1.connect(model="nova-3") as talk:
        talk.send_media(AUDIO)
        first = talk.recv()
        talk.send_close_stream()
        return [first.channel.alternatives[0].transcript, talk.recv().type]


def deepgram_speak(gateway: str) -> object:
    from deepgram.speak.v1.types import SpeakV1Text

    with _deepgram(gateway).speak.v1.connect(model="aura-2-thalia-en") as talk:
        talk.send_text(SpeakV1Text(text="hello"))
        talk.send_flush()
        return [talk.recv() == AUDIO, talk.recv().type]


def deepgram_agent(gateway: str) -> object:
    with _deepgram(gateway).agent.v1.connect() as talk:
        return [talk.recv().type, talk.recv().content]


def elevenlabs_tts(gateway: str) -> object:
    from elevenlabs.client import ElevenLabs

    client = ElevenLabs(api_key=KEY, base_url=f"{gateway}/elevenlabs")
    heard = client.text_to_speech.convert_realtime("voice", text=iter(["hello"]), model_id="eleven_flash_v2_5")
    return b"".join(heard) == AUDIO


def elevenlabs_agent(gateway: str) -> object:
    from elevenlabs.client import ElevenLabs
    from elevenlabs.conversational_ai.conversation import Conversation

    heard: list[str] = []

    def takes(said: str) -> None:
        heard.append(said)
        talk.end_session()

    client = ElevenLabs(api_key=KEY, base_url=f"{gateway}/elevenlabs")
    talk = Conversation(client, "agent", requires_auth=False, callback_agent_response=takes)
    talk.start_session()
    talk.wait_for_session_end()
    return heard


def fal_realtime(gateway: str) -> object:
    os.environ["FAL_RUN_HOST"] = f"{gateway.removeprefix('https://')}/fal"
    import fal_client

    with fal_client.SyncClient(key="id:secret").realtime("fal-ai/fast-lcm-diffusion", use_jwt=False) as talk:
        talk.send({"prompt": "a cat"})
        return talk.recv()


def _deltas(talk: Any, piece: str, last: str) -> str:
    heard = []
    for event in talk:
        if event.type == piece:
            heard.append(event.delta)
        elif event.type == last:
            break
    return "".join(heard)


def _deepgram(gateway: str) -> Any:
    from deepgram import DeepgramClient
    from deepgram.environment import DeepgramClientEnvironment

    base = f"{gateway}/deepgram"
    sockets = base.replace("http", "ws", 1)
    here = DeepgramClientEnvironment(base=base, production=sockets, agent=sockets, agent_rest=base)
    return DeepgramClient(api_key=KEY, environment=here)


TALKS: dict[str, Callable[[str], object]] = {
    talk.__name__: talk
    for talk in (
        openai_realtime,
        openai_responses,
        google_live,
        cartesia_tts,
        deepgram_listen,
        deepgram_speak,
        deepgram_agent,
        elevenlabs_tts,
        elevenlabs_agent,
        fal_realtime,
    )
}

if __name__ == "__main__":
    name, gateway = sys.argv[1:]
    print(json.dumps(TALKS[name](gateway)))
