"""A stored key that a realtime provider repeats never reaches the client."""

import hashlib
from pathlib import Path

from tests.server.realtime.test_services import CONFIG, TALK, TOKEN, place
from tests.support.harness import config_of, running
from tests.support.raw_client import UPGRADE, connect_raw
from tests.support.realtime_harness import CLOSE, client_close_frame, close_payload
from tests.support.socket_provider import Provider, sends

KEY = "stored-secret"


async def test_error_messages_and_close_reasons_do_not_reveal_the_stored_key(tmp_path: Path) -> None:
    async with place(tmp_path) as runtime:
        client, side = await runtime.talk()
        await side.send(b'{"type":"session.created","n":1.0e0}')
        assert (await client.next_frame())[1] == b'{"type":"session.created","n":1.0e0}'
        await side.send(b'{"type":"error","error":{"message":"Incorrect API key: %b"}}' % KEY.encode())
        assert (await client.next_frame())[
            1
        ] == b'{"type":"error","error":{"message":"Incorrect API key: *************"}}'
        await side.send(close_payload(4001, f"bad key {KEY}".encode()), CLOSE)
        assert await client_close_frame(client) == (4001, "bad key *************")


async def test_a_refused_handshake_does_not_reveal_the_stored_key(tmp_path: Path) -> None:
    body = b'{"error":"bad key stored-secret"}'
    refusal = b"HTTP/1.1 401 No\r\nx-debug: stored-secret\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    (tmp_path / "key").write_text(KEY)
    async with Provider(sends(refusal)) as provider:
        text = CONFIG.format(port=provider.port, digest=hashlib.sha256(TOKEN.encode()).hexdigest())
        async with running(config_of(text, tmp_path)) as server, connect_raw(server) as client:
            answered = await client.request(TALK, {**UPGRADE, "cf-aig-authorization": TOKEN})
    assert (answered.status, answered.body) == (401, b'{"error":"bad key *************"}')
    assert KEY not in str(answered.headers)
