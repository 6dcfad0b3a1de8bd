"""Look up the addresses of hosts. Results are kept for 10 seconds; simultaneous lookups of one host share one."""

import asyncio
import ipaddress
import socket
from typing import Any, Final, NamedTuple

TTL_S: Final = 10.0
MAX_HOSTS: Final = 1000

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""Family, type, protocol, canonical name and socket address, as `getaddrinfo` returns them."""


class _Found(NamedTuple):
    infos: list[AddressInfo]
    expires_at: float


class Addresses:
    """Addresses by host and port. Each call begins with the next one, so that connections are spread over all."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], _Found] = {}
        self._lookups: dict[tuple[str, int], asyncio.Task[list[AddressInfo]]] = {}

    async def of(self, host: str, port: int) -> list[AddressInfo]:
        """Return all addresses of the host. Raises OSError if there is none, UnicodeError if it cannot be a name."""
        if (literal := _literal(host, port)) is not None:
            return [literal]
        found = self._found.get((host, port))
        if found is None or found.expires_at <= asyncio.get_running_loop().time():
            infos = await asyncio.shield(self._lookup(host, port))
        else:
            infos = found.infos
        first, *others = infos
        infos[:] = [*others, first]
        return [first, *others]

    def _lookup(self, host: str, port: int) -> "asyncio.Task[list[AddressInfo]]":
        """Return the running lookup. It is not cancelled with one of those that wait for it."""
        key = (host, port)
        task = self._lookups.get(key)
        if task is None:
            task = self._lookups[key] = asyncio.create_task(self._look_up(host, port), name="lookup of a host")
            task.add_done_callback(_retrieved)
            task.add_done_callback(lambda _: self._lookups.pop(key, None))
        return task

    async def _look_up(self, host: str, port: int) -> list[AddressInfo]:
        host.encode("idna")  # some resolvers take a label of any length
        loop = asyncio.get_running_loop()
        infos: list[AddressInfo] = list(
            await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        )
        while len(self._found) >= MAX_HOSTS:
            del self._found[next(iter(self._found))]
        self._found[host, port] = _Found(infos, loop.time() + TTL_S)
        return infos

    async def aclose(self) -> None:
        """Cancel the lookups."""
        for task in list(self._lookups.values()):
            task.cancel()


def _literal(host: str, port: int) -> AddressInfo | None:
    """Return the address that the host is; None if it is a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 4:
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))


def _retrieved(task: "asyncio.Task[list[AddressInfo]]") -> None:
    """Retrieve the exception, which asyncio would log if all who waited were cancelled."""
    if not task.cancelled():
        task.exception()
