"""A stored key that a realtime provider tells back never reaches the client."""

from pathlib import Path

from tests.realtime.stage import CLOSE, client_closed, close_frame
from tests.realtime.test_house import place

KEY = "stored-secret"


async def test_an_error_message_and_the_reason_of_a_close_do_not_tell_it(tmp_path: Path) -> None:
    async with place(tmp_path) as house:
        client, side = await house.talk()
        await side.send(b'{"type":"session.created","n":1.0e0}')
        assert (await client.next())[1] == b'{"type":"session.created","n":1.0e0}'
        await side.send(b'{"type":"error","error":{"message":"Incorrect API key: %b"}}' % KEY.encode())
        assert (await client.next())[1] == b'{"type":"error","error":{"message":"Incorrect API key: *************"}}'
        await side.send(close_frame(4001, f"bad key {KEY}".encode()), CLOSE)
        assert await client_closed(client) == (4001, "bad key *************")
