"""Apply stored keys, tokens, the log and observers to a session."""

import hashlib
from pathlib import Path

import msgspec
import orjson
import pytest

from bridge.formats.usage import Usage
from bridge.relay.interfaces import Services
from bridge.relay.summary import EventSummary, SessionTotals
from tests.support.clock import until
from tests.support.harness import config_of, running
from tests.support.raw_client import UPGRADE, connect_raw, frame
from tests.support.realtime_harness import (
    BINARY,
    CLOSE,
    PATH,
    AcceptingProvider,
    client_close_frame,
    close_payload,
    open_session_with_server,
    realtime_bridge,
)
from tests.support.socket_provider import Provider, sends


class Observed:
    """Implements `relay.interfaces.Observer`."""

    def __init__(self) -> None:
        self.entries: list[EventSummary] = []

    def on_event_end(self, entry: EventSummary) -> None:
        self.entries.append(entry)

    async def one(self) -> EventSummary:
        await until(lambda: self.entries)
        [entry] = self.entries
        return entry


DONE = orjson.dumps(
    {"type": "response.done", "response": {"usage": {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}}}
)


async def test_a_session_is_one_event_summary(tmp_path: Path) -> None:
    observed = Observed()
    services = Services(observers=(observed,))
    async with open_session_with_server(tmp_path, "", services, path=f"{PATH}?model=gpt-realtime&api_key=sk-1") as (
        _,
        client,
        side,
    ):
        await client.send(frame(b"12345") + frame(b"123", BINARY))
        await side.next_frame()
        await side.next_frame()
        for message in (b"1234567", DONE, DONE):
            await side.send(message)
            await client.next_frame()
        await side.send(close_payload(1000), CLOSE)
        assert await client_close_frame(client) == (1000, "")
        client.abort()
        entry = await observed.one()
    assert entry.realtime == SessionTotals(2, 3, 8, 7 + 2 * len(DONE), "provider", 1000)
    assert (entry.request_bytes, entry.answer_bytes, entry.chunks) == (8, 7 + 2 * len(DONE), 0)
    assert entry.usage == Usage(60, 24, None, 84)
    assert (entry.transport, entry.provider, entry.model) == ("realtime", "custom-x", "gpt-realtime")
    assert (entry.status, entry.success, entry.code, entry.reason) == (101, True, None, None)
    assert (entry.account, entry.gateway, entry.method, entry.path) == ("account", "gateway", "GET", "talk")
    assert (entry.bodies, entry.cached, entry.byok_alias) == (None, False, None)
    assert entry.first_answer_ms is not None
    assert entry.added_ms is not None
    assert 0 <= entry.added_ms <= entry.first_answer_ms <= entry.duration_ms
    assert "sk-1" not in str(msgspec.structs.replace(entry, sent=None))


async def test_the_client_chooses_the_event_id_of_a_session(tmp_path: Path) -> None:
    observed = Observed()
    sockets = AcceptingProvider()
    async with (
        realtime_bridge(sockets.script, tmp_path, services=Services(observers=(observed,))) as server,
        connect_raw(server) as client,
    ):
        assert (await client.request(PATH, {**UPGRADE, "cf-aig-event-id": "mine"})).status == 101
        (await sockets.next_session()).line.drop()
        assert await client.close_code() == 1011
        client.abort()
        entry = await observed.one()
    assert entry.event_id == "mine"
    assert entry.realtime == SessionTotals(0, 0, 0, 0, "provider", 1006)
    assert (entry.status, entry.success, entry.code) == (101, False, 9016)


async def test_a_client_that_leaves_without_a_close_frame_is_an_ordinary_end(tmp_path: Path) -> None:
    observed = Observed()
    async with open_session_with_server(tmp_path, "", Services(observers=(observed,))) as (_, client, side):
        client.abort()
        assert await side.close_frame() == (1011, "the connection to the client was lost")
        side.line.drop()
        entry = await observed.one()
    assert entry.realtime == SessionTotals(0, 0, 0, 0, "client", 1006)
    assert (entry.status, entry.success, entry.code, entry.reason) == (101, True, None, None)


@pytest.mark.parametrize(
    ("path", "status", "code", "provider"),
    [
        (PATH, 401, 401, "custom-x"),
        ("/v1/account/gateway/custom-x", 400, 9007, None),
        ("/v1/account/gateway/nobody", 400, 2008, None),
    ],
)
async def test_a_refused_session_is_one_event_summary_too(
    tmp_path: Path, path: str, status: int, code: int, provider: str | None
) -> None:
    observed = Observed()
    services = Services(observers=(observed,))
    refusal = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"
    async with realtime_bridge(sends(refusal), tmp_path, services=services) as server, connect_raw(server) as client:
        assert (await client.request(path, UPGRADE)).status == status
        entry = await observed.one()
    assert (entry.status, entry.success, entry.code, entry.provider) == (status, False, code, provider)
    assert entry.realtime is None


SETUP = b'{"setup":{"model":"models/gemini-live-2.5-flash"}}'


async def test_the_model_of_gemini_is_read_from_the_first_message(tmp_path: Path) -> None:
    observed = Observed()
    async with open_session_with_server(tmp_path, "", Services(observers=(observed,))) as (_, client, side):
        await client.send(frame(SETUP) + frame(b'{"setup":{"model":"another"}}'))
        await side.next_frame()
        await side.next_frame()
        await client.send(frame(close_payload(1000), CLOSE))
        assert await side.close_frame() == (1000, "")
        side.line.drop()
        entry = await observed.one()
    assert entry.model == "gemini-live-2.5-flash"
    assert entry.realtime == SessionTotals(2, 0, len(SETUP) + 29, 0, "client", 1000)


STORED = """
[providers.deepgram]
base_url = "http://127.0.0.1:{port}"
[gateways.closed.tokens]
ci = "sha256:{digest}"
[gateways.closed.keys.deepgram]
default = "file:key"
"""


@pytest.mark.parametrize(
    ("query", "headers", "authorization"),
    [
        ("", {}, "Token stored-secret"),
        ("", {"Sec-WebSocket-Protocol": "cf-aig-authorization.secret"}, "Token stored-secret"),
        ("", {"Authorization": "Token own"}, "Token own"),
        ("", {"Sec-WebSocket-Protocol": "token, own"}, "Token own"),
        ("&api_key=own", {}, "Token own"),
        ("&access_token=own", {}, None),
    ],
)
async def test_a_stored_key_is_used_if_the_client_sends_none(
    tmp_path: Path, query: str, headers: dict[str, str], authorization: str | None
) -> None:
    (tmp_path / "key").write_text("stored-secret")
    sockets = AcceptingProvider()
    async with Provider(sockets.script) as provider:
        text = STORED.format(port=provider.port, digest=hashlib.sha256(b"secret").hexdigest())
        async with running(config_of(text, tmp_path)) as server, connect_raw(server) as client:
            token = {} if "authorization.secret" in str(headers) else {"cf-aig-authorization": "secret"}
            path = f"/v1/account/closed/deepgram/v1/listen?model=nova-3{query}"
            assert (await client.request(path, {**UPGRADE, **token, **headers})).status == 101
            side = await sockets.next_session()
            side.line.drop()
    assert side.headers.get("authorization") == authorization


async def test_a_token_that_may_not_call_the_provider_is_refused(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    more = f'[gateways.closed.tokens.ci]\ntoken = "sha256:{digest}"\nproviders = ["openai"]\n'
    async with (
        realtime_bridge(AcceptingProvider().script, tmp_path, more=more) as server,
        connect_raw(server) as client,
    ):
        response = await client.request(
            "/v1/account/closed/custom-x/talk", {**UPGRADE, "cf-aig-authorization": "secret"}
        )
    assert (response.status, response.sdk_code) == (403, 2009)
