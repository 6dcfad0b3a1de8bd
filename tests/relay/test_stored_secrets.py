"""A stored key that a provider tells back never reaches the client, whichever way it is told."""

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
    "as it is": KEY,
    "cut off": KEY[:24],
    "in percent": quote(KEY, safe=""),
    "in base64": base64.b64encode(f"x{KEY}".encode()).decode(),
    "in a URL's base64": base64.urlsafe_b64encode(KEY.encode()).decode(),
    "with escapes": KEY.replace("/", r"\/"),
    "with more escapes": KEY.replace("+", r"\u002b"),
    "with escapes that nobody needs": KEY.replace("s", r"\u0073"),
}
"""As they stand in a text of JSON."""


def is_told(key: str, said: object) -> bool:
    text = json.dumps(said) if not isinstance(said, str) else said
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
async def test_an_error_s_body_and_message_do_not_tell_it(folder: Path, form: str) -> None:
    body = b'{"error":{"message":"Incorrect API key provided: %b","code":"invalid_api_key"}}' % form.encode()
    [last] = await frames_of(folder, answers(body, 401, x_debug=f"got {KEY}"))
    assert (last["metadata"]["status"], last["error"]["code"]) == (401, 401)
    assert last["error"]["message"].startswith("Incorrect API key provided: ")
    assert last["response"]["error"]["code"] == "invalid_api_key"
    assert not is_told(form, last)


async def test_a_message_that_is_cut_inside_of_the_key_does_not_tell_its_beginning(folder: Path) -> None:
    message = "x" * 490 + KEY
    [last] = await frames_of(folder, answers(json.dumps({"error": {"message": message}}).encode(), 401))
    assert KEY[:8] not in json.dumps(last)


async def test_an_error_that_is_text_does_not_tell_it(folder: Path) -> None:
    [last] = await frames_of(folder, ScriptedResponse([f"bad key {KEY}".encode()], 403, "text/plain"))
    assert last["response"] == "bad key " + "*" * len(KEY)


async def test_attempts_do_not_tell_it(folder: Path) -> None:
    told = answers(json.dumps({"error": {"message": f"no: {KEY}"}}).encode(), 500)
    [last] = await frames_of(folder, told, told, config={"maxAttempts": 2, "retryDelay": 1})
    assert len(last["metadata"]["attempts"]) == 2
    assert "stored+key" not in json.dumps(last)


@pytest.mark.parametrize("form", list(FORMS.values())[:5], ids=list(FORMS)[:5])
@pytest.mark.parametrize("frames", ["items", "raw"])
async def test_an_error_item_of_a_stream_does_not_tell_it(folder: Path, form: str, frames: str) -> None:
    item = b'data: {"error":{"message":"Incorrect API key provided: %b"}}\n\n' % form.encode()
    good = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    told = await frames_of(folder, ScriptedResponse([good, item[:50], item[50:]], 200, SSE), config={"frames": frames})
    assert told[-1]["error"]["code"] == 9017
    assert not is_told(form, told)


async def test_an_answer_without_the_key_is_passed_on_byte_for_byte(folder: Path) -> None:
    body = b'{"error" : {"message":"caf\\u00e9 sk-proj-","n":1.0e0}}'
    heard = await http_answer(folder, ScriptedResponse([body], 401, JSON, {"x-debug": "sk-proj-"}))
    assert heard.body == body


async def http_answer(
    folder: Path, *responses: ScriptedResponse, path: str = "openai/v1/chat/completions"
) -> HttpResult:
    config = load(folder / "bridge.toml", ENVIRON, {"port": 0})
    async with running(config, ScriptedProvider(*responses)) as server, connect_http(server) as client:
        headers = {"cf-aig-authorization": "one", "content-type": JSON}
        return await client(path=f"/v1/account/prod/{path}", body=b'{"model":"openai/m"}', headers=headers)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("path", ["openai/v1/chat/completions", "compat/chat/completions"])
async def test_an_error_over_http_does_not_tell_it(folder: Path, form: str, path: str) -> None:
    body = b'{"error":{"message":"Incorrect API key provided: %b"}}' % form.encode()
    heard = await http_answer(folder, answers(body, 401, x_debug=f"got {KEY}"), path=path)
    assert (heard.status, int(heard.headers["content-length"])) == (401, len(heard.body))
    assert not is_told(form, heard.body.decode())
    assert "stored+key" not in str(heard.headers)


async def test_a_stream_over_http_does_not_tell_it_wherever_it_is_cut(folder: Path) -> None:
    good = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    item = b'data: {"error":{"message":"Incorrect API key provided: %b"}}\n\n' % KEY.encode()
    for cut in (30, 60, 70, len(item) - 1):
        heard = await http_answer(folder, ScriptedResponse([good, item[:cut], item[cut:]], 200, SSE))
        assert heard.body.startswith(good)
        assert b"stored+key" not in heard.body
        assert len(heard.body) == len(good + item)


async def test_a_stream_over_http_that_is_cut_inside_of_the_item_does_not_tell_it(folder: Path) -> None:
    item = b'data: {"error":{"message":"Incorrect API key provided: %b' % KEY.encode()
    heard = await http_answer(folder, ScriptedResponse([item], 200, SSE))
    assert b"stored+key" not in heard.body


async def test_a_key_of_the_client_s_own_is_told_back_as_the_provider_said_it(folder: Path) -> None:
    body = b'{"error":{"message":"Incorrect API key provided: sk-of-the-client-0123456789"}}'
    [last] = await frames_of(
        folder, answers(body, 401), headers={"authorization": "Bearer sk-of-the-client-0123456789"}
    )
    assert last["response"] == json.loads(body)


async def test_the_first_step_s_key_is_not_told_when_the_second_fails_to_connect(folder: Path) -> None:
    told = answers(json.dumps({"error": {"message": f"no: {KEY}"}}).encode(), 401)
    config = load(folder / "bridge.toml", ENVIRON, {"port": 0})
    async with (
        running(config, ScriptedProvider(told, refuses())) as server,
        connected(server, "/v1/account/prod", headers={"cf-aig-authorization": "one"}) as client,
    ):
        await client.create([STEP, {**STEP, "provider": "groq"}], eventId="a")
        said = json.dumps(await client.until_last("a"))
    assert "stored+key" not in said


def test_what_is_masked_keeps_its_length_unless_it_was_escaped_for_no_reason() -> None:
    known = known_key(StoredKey("openai", "default", KEY, "env:KEY"))
    for form in list(FORMS.values())[:7]:
        body = f'{{"a":"{form}"}}'.encode()
        assert len(concealed(body, known)) == len(body)
