"""Connections between two requests: which one is used next, and when one expires."""

import httpx
import pytest

from bridge.upstream.transport import HttpTransport
from tests.support.clock import advance, run_until_idle
from tests.support.memory_network import MemoryNetwork, Reply, our_transport

OK = Reply((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",))
SLOW = Reply((b"HTTP/1.1 200 OK\r\n", b"Content-Length: 2\r\n\r\n", b"ok"))


async def send(transport: HttpTransport, url: str = "http://host/") -> bytes:
    response = await transport.handle_async_request(httpx.Request("GET", url))
    return await response.aread()


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork([OK] * 20)


async def test_a_connection_is_used_again_within_75_seconds(network: MemoryNetwork) -> None:
    async with our_transport(network) as transport:
        await send(transport)
        advance(74)
        await send(transport)
        assert network.connections == 1
        advance(75)
        await send(transport)
        assert network.connections == 2


async def test_an_expired_connection_is_closed_by_itself(network: MemoryNetwork) -> None:
    async with our_transport(network) as transport:
        await send(transport)
        assert transport._pool is not None
        advance(75.1)
        await run_until_idle()
        assert not transport._pool._open
        assert not transport._pool._idle
        assert transport._pool._sweeper is None


async def test_the_sweeper_comes_back_for_a_connection_that_was_used_meanwhile(network: MemoryNetwork) -> None:
    async with our_transport(network) as transport:
        await send(transport)
        advance(50)
        await send(transport)
        assert transport._pool is not None
        advance(50)
        await run_until_idle()
        assert len(transport._pool._open) == 1
        advance(26)
        await run_until_idle()
        assert not transport._pool._open


async def test_the_connection_that_was_used_last_is_used_next() -> None:
    network = MemoryNetwork([SLOW, OK, OK, OK, OK])
    async with our_transport(network) as transport:
        first = await transport.handle_async_request(httpx.Request("GET", "http://host/"))
        await send(transport)
        await first.aread()
        assert network.connections == 2
        for _ in range(3):
            advance(40)
            await run_until_idle()
            await send(transport)
        assert transport._pool is not None
        assert (network.connections, len(transport._pool._open)) == (2, 1), "the other one has expired"


@pytest.mark.parametrize("other", ["http://host:81/", "http://other/", "https://host/", "https://host:80/"])
async def test_origins_share_no_connection(network: MemoryNetwork, other: str) -> None:
    async with our_transport(network) as transport:
        await send(transport)
        await send(transport, other)
        assert network.connections == 2


async def test_the_default_port_is_the_same_origin(network: MemoryNetwork) -> None:
    async with our_transport(network) as transport:
        await send(transport, "http://HOST/a")
        await send(transport, "http://host:80/b")
        assert network.connections == 1


async def test_a_closed_transport_opens_nothing(network: MemoryNetwork) -> None:
    transport = our_transport(network)
    await send(transport)
    await transport.aclose()
    with pytest.raises(httpx.ConnectError):
        await send(transport)
    assert transport._pool is not None
    await run_until_idle()
    assert not transport._pool._open
