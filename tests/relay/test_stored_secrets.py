"""A stored key that a provider's response contains never reaches the client, in any encoding."""

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from bridge.config import load
from bridge.config.keys import StoredKey
from bridge.relay.stored_secrets import concealed, known_key
from tests.support.harness import Client, Frame, connected, running
from tests.support.provider_script import JSON, SSE, ScriptedProvider, ScriptedResponse, answers, refuses
from tests.support.raw_http import HttpResult, connect_http

KEY = "sk-proj-stored+key/Zq81xvTnW30bLp5Kd92mRf"
ENVIRON = {"TOKEN": "one", "KEY": KEY}
CONFIG = '[gateways.prod.tokens]\nci = "env:TOKEN"\n[gateways.prod.keys.openai]\ndefault = "env:KEY"\n'
STEP = {"provider": "openai", "endpoint": "v1/chat/completions", "query": {"model": "m", "messages": []}}

FORMS = {
    "plain": KEY,
    "cut off": KEY[:24],
    "percent-encoded": quote(KEY, safe=""),
    "in base64": base64.b64encode(f"x{KEY}".encode()).decode(),
    "in base64url": base64.urlsafe_b64encode(KEY.encode()).decode(),
    "with escapes": KEY.replace("/", r"\/"),
    "with more escapes": KEY.replace("+", r"\u002b"),
    "with needless escapes": KEY.replace("s", r"\u0073"),
}
"""The key in forms that a JSON string may contain."""


def contains_key(key: str, value: object) -> bool:
    text = json.dumps(value) if not isinstance(value, str) else value
    decoded = json.loads(f'"{key}"')
    return key[4:20] in text or decoded[4:20] in text or "stored+key" in text or "stored%2Bkey" in text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bridge.toml").write_text(CONFIG)
    return tmp_path


async def frames_of(folder: Path, *responses: ScriptedResponse, **more: object) -> list[Frame]:
    config = load(folder / "bridge.toml", ENVIRON, {"port": 0})
    provider = ScriptedProvider(*responses)
    async with (
        running(config, provider) as server,
        connected(server, "/v1/account/prod", headers={"cf-aig-authorization": "one"}) as client,
    ):
        return await _called(client, **more)


async def _called(client: Client, **more: object) -> list[Frame]:
    return await client.call({"eventId": "a", **STEP, **more})


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_an_errors_body_and_message_do_not_contain_the_key(folder: Path, form: str) -> None:
    body = b'{"error":{"message":"Incorrect API key provided: %b","code":"invalid_api_key"}}' % form.encode()
    [last] = await frames_of(folder, answers(body, 401, x_debug=f"got {KEY}"))
    assert (last["metadata"]["status"], last["error"]["code"]) == (401, 401)
    assert last["error"]["message"].startswith("Incorrect API key provided: ")
    assert last["response"]["error"]["code"] == "invalid_api_key"
    assert not contains_key(form, last)


async def test_a_message_cut_inside_the_key_does_not_contain_its_beginning(folder: Path) -> None:
    message = "x" * 490 + KEY
    [last] = await frames_of(folder, answers(json.dumps({"error": {"message": message}}).encode(), 401))
    assert KEY[:8] not in json.dumps(last)


async def test_a_text_error_does_not_contain_the_key(folder: Path) -> None:
    [last] = await frames_of(folder, ScriptedResponse([f"bad key {KEY}".encode()], 403, "text/plain"))
    assert last["response"] == "bad key " + "*" * len(KEY)


async def test_attempts_do_not_contain_the_key(folder: Path) -> None:
    leaking = answers(json.dumps({"error": {"message": f"no: {KEY}"}}).encode(), 500)
    [last] = await frames_of(folder, leaking, leaking, config={"maxAttempts": 2, "retryDelay": 1})
    assert len(last["metadata"]["attempts"]) == 2
    assert "stored+key" not in json.dumps(last)


@pytest.mark.parametrize("form", list(FORMS.values())[:5], ids=list(FORMS)[:5])
@pytest.mark.parametrize("frames", ["items", "raw"])
async def test_an_error_item_of_a_stream_does_not_contain_the_key(folder: Path, form: str, frames: str) -> None:
    item = b'data: {"error":{"message":"Incorrect API key provided: %b"}}\n\n' % form.encode()
    good = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    received = await frames_of(
        folder, ScriptedResponse([good, item[:50], item[50:]], 200, SSE), config={"frames": frames}
    )
    assert received[-1]["error"]["code"] == 9017
    assert not contains_key(form, received)


async def test_a_response_without_the_key_is_relayed_unchanged(folder: Path) -> None:
    body = b'{"error" : {"message":"caf\\u00e9 sk-proj-","n":1.0e0}}'
    response = await http_answer(folder, ScriptedResponse([body], 401, JSON, {"x-debug": "sk-proj-"}))
    assert response.body == body


async def http_answer(
    folder: Path, *responses: ScriptedResponse, path: str = "openai/v1/chat/completions"
) -> HttpResult:
    config = load(folder / "bridge.toml", ENVIRON, {"port": 0})
    async with running(config, ScriptedProvider(*responses)) as server, connect_http(server) as client:
        headers = {"cf-aig-authorization": "one", "content-type": JSON}
        return await client(path=f"/v1/account/prod/{path}", body=b'{"model":"openai/m"}', headers=headers)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("path", ["openai/v1/chat/completions", "compat/chat/completions"])
async def test_an_error_over_http_does_not_contain_the_key(folder: Path, form: str, path: str) -> None:
    body = b'{"error":{"message":"Incorrect API key provided: %b"}}' % form.encode()
    response = await http_answer(folder, answers(body, 401, x_debug=f"got {KEY}"), path=path)
    assert (response.status, int(response.headers["content-length"])) == (401, len(response.body))
    assert not contains_key(form, response.body.decode())
    assert "stored+key" not in str(response.headers)


async def test_a_stream_over_http_does_not_contain_the_key_wherever_reads_split(folder: Path) -> None:
    good = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    item = b'data: {"error":{"message":"Incorrect API key provided: %b"}}\n\n' % KEY.encode()
    for cut in (30, 60, 70, len(item) - 1):
        response = await http_answer(folder, ScriptedResponse([good, item[:cut], item[cut:]], 200, SSE))
        assert response.body.startswith(good)
        assert b"stored+key" not in response.body
        assert len(response.body) == len(good + item)


async def test_a_stream_over_http_cut_inside_the_item_does_not_contain_the_key(folder: Path) -> None:
    item = b'data: {"error":{"message":"Incorrect API key provided: %b' % KEY.encode()
    response = await http_answer(folder, ScriptedResponse([item], 200, SSE))
    assert b"stored+key" not in response.body


async def test_a_clients_own_key_is_not_masked(folder: Path) -> None:
    body = b'{"error":{"message":"Incorrect API key provided: sk-of-the-client-0123456789"}}'
    [last] = await frames_of(
        folder, answers(body, 401), headers={"authorization": "Bearer sk-of-the-client-0123456789"}
    )
    assert last["response"] == json.loads(body)


async def test_attempts_do_not_contain_the_key_of_an_earlier_step(folder: Path) -> None:
    leaking = answers(json.dumps({"error": {"message": f"no: {KEY}"}}).encode(), 401)
    config = load(folder / "bridge.toml", ENVIRON, {"port": 0})
    async with (
        running(config, ScriptedProvider(leaking, refuses())) as server,
        connected(server, "/v1/account/prod", headers={"cf-aig-authorization": "one"}) as client,
    ):
        await client.create([STEP, {**STEP, "provider": "groq"}], eventId="a")
        received = json.dumps(await client.until_last("a"))
    assert "stored+key" not in received


def test_masking_keeps_the_length_unless_the_key_is_needlessly_escaped() -> None:
    known = known_key(StoredKey("openai", "default", KEY, "env:KEY"))
    for form in list(FORMS.values())[:7]:
        body = f'{{"a":"{form}"}}'.encode()
        assert len(concealed(body, known)) == len(body)
