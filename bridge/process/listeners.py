"""The sockets that several processes listen on, at one address."""

import os
import socket
import sys
from typing import Final

BALANCED: Final = sys.platform == "linux"
"""Whether the kernel spreads connections over the sockets of one port. Elsewhere SO_REUSEPORT gives all to one."""

_Address = tuple[socket.AddressFamily, tuple[object, ...]]


def url_of(address: tuple[object, ...], *, tls: bool) -> str:
    """Of a socket's own name, as a WebSocket URL without a path."""
    host, port = address[:2]
    return f"{'wss' if tls else 'ws'}://{f'[{host}]' if ':' in str(host) else host}:{port}"


class Listeners:
    """Holds an address for as long as there are workers; each of them gets sockets for it."""

    def __init__(self, host: str, port: int, *, balanced: bool = BALANCED) -> None:
        """Raises OSError when the address cannot be had."""
        self._balanced = balanced
        self._held: list[socket.socket] = []
        try:
            for family, address in _resolved(host, port):
                self._hold(family, address)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> tuple[object, ...]:
        """The first one's, with its real port."""
        name: tuple[object, ...] = self._held[0].getsockname()
        return name

    def for_worker(self) -> list[socket.socket]:
        """Bound, to be given to a worker and then closed here.

        Where the kernel balances, a socket of its own is each worker's: what waits in its queue dies with it, and what
        comes after goes to the others. Elsewhere there is one queue, and who is idle takes from it.
        """
        if not self._balanced:
            return [held.dup() for held in self._held]
        return [_bound(held.family, held.getsockname(), shared=True) for held in self._held]

    def close(self) -> None:
        for held in self._held:
            held.close()

    def _hold(self, family: socket.AddressFamily, address: tuple[object, ...]) -> None:
        """Those of a name have one port. What is held takes no connections where each worker has its own socket."""
        if self._held and not address[1]:
            address = (address[0], self.address[1], *address[2:])
        if self._balanced:
            # Another bridge's workers would let us in, and we would share its clients.
            _bound(family, address, shared=False).close()
        self._held.append(_bound(family, address, shared=self._balanced))


def _resolved(host: str, port: int) -> list[_Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made
