"""Lookups of hosts: kept for a while, and shared."""

import asyncio
import socket
from typing import Any

import pytest

from bridge.upstream.addresses import Addresses
from tests.support.clock import advance, turns


class Resolver:
    """Stands in for the loop's `getaddrinfo`: each lookup waits until the test answers it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.lookups = 0
        self.answered = asyncio.Event()
        self._addresses = addresses
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._getaddrinfo)

    async def _getaddrinfo(self, host: str, port: int, **_: object) -> list[Any]:
        self.lookups += 1
        await self.answered.wait()
        if not self._addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self._addresses]


async def hosts_of(addresses: Addresses, host: str = "host") -> list[str]:
    return [info[4][0] for info in await addresses.of(host, 80)]


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch, host: str, family: int) -> None:
    resolver = Resolver(monkeypatch)
    (info,) = await Addresses().of(host, 80)
    assert (info[0], info[4][:2], resolver.lookups) == (family, (host, 80), 0)


async def test_a_result_is_kept_for_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, addresses = Resolver(monkeypatch, "1.1.1.1"), Addresses()
    resolver.answered.set()
    await hosts_of(addresses)
    advance(9)
    await hosts_of(addresses)
    assert resolver.lookups == 1
    advance(2)
    await hosts_of(addresses)
    assert resolver.lookups == 2


async def test_each_call_begins_with_the_next_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, addresses = Resolver(monkeypatch, "1.1.1.1", "2.2.2.2", "3.3.3.3"), Addresses()
    resolver.answered.set()
    assert [(await hosts_of(addresses))[0] for _ in range(4)] == ["1.1.1.1", "2.2.2.2", "3.3.3.3", "1.1.1.1"]


async def test_simultaneous_calls_share_a_lookup_that_outlives_a_cancelled_one(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, addresses = Resolver(monkeypatch, "1.1.1.1"), Addresses()
    first, second = (asyncio.create_task(hosts_of(addresses)) for _ in range(2))
    await turns()
    first.cancel()
    resolver.answered.set()
    assert await second == ["1.1.1.1"]
    assert (resolver.lookups, first.cancelled()) == (1, True)


async def test_a_failed_lookup_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, addresses = Resolver(monkeypatch), Addresses()
    resolver.answered.set()
    for _ in range(2):
        with pytest.raises(OSError, match="unknown"):
            await hosts_of(addresses)
    assert resolver.lookups == 2


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b"])
async def test_a_host_that_cannot_be_a_name_is_not_looked_up(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    resolver = Resolver(monkeypatch, "1.1.1.1")
    with pytest.raises(UnicodeError):
        await Addresses().of(host, 80)
    assert resolver.lookups == 0
