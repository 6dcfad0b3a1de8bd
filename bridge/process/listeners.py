"""Listening sockets that several processes share at one address."""

import os
import socket
import sys
from typing import Final

BALANCED: Final = sys.platform == "linux"
"""True if the kernel balances connections over the sockets of one port; elsewhere, SO_REUSEPORT prefers one socket."""

_Address = tuple[socket.AddressFamily, tuple[object, ...]]


def url_of(address: tuple[object, ...], *, tls: bool) -> str:
    """Return the WebSocket URL of a socket's address, without a path."""
    host, port = address[:2]
    return f"{'wss' if tls else 'ws'}://{f'[{host}]' if ':' in str(host) else host}:{port}"


class Listeners:
    """Reserves an address for the workers and makes listening sockets for each of them."""

    def __init__(self, host: str, port: int, *, balanced: bool = BALANCED) -> None:
        """Reserve the address. Raises OSError if it is unavailable."""
        self._balanced = balanced
        self._reserved: list[socket.socket] = []
        try:
            for family, address in _resolved(host, port):
                self._reserve(family, address)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> tuple[object, ...]:
        """The address of the first socket, with its actual port."""
        address: tuple[object, ...] = self._reserved[0].getsockname()
        return address

    def for_worker(self) -> list[socket.socket]:
        """Return bound sockets to pass to a worker; the caller closes its copies.

        Where the kernel balances connections, each worker gets sockets of its own: if it dies, the connections in its
        queue are lost, and later ones go to the other workers. Elsewhere all workers accept from one queue.
        """
        if not self._balanced:
            return [sock.dup() for sock in self._reserved]
        return [_bind(sock.family, sock.getsockname(), shared=True) for sock in self._reserved]

    def close(self) -> None:
        for sock in self._reserved:
            sock.close()

    def _reserve(self, family: socket.AddressFamily, address: tuple[object, ...]) -> None:
        """Bind one address without listening on it. All addresses of a host name get the same port."""
        if self._reserved and not address[1]:
            address = (address[0], self.address[1], *address[2:])
        if self._balanced:
            # With SO_REUSEPORT, the bind succeeds beside another bridge's workers and would share its clients.
            _bind(family, address, shared=False).close()
        self._reserved.append(_bind(family, address, shared=self._balanced))


def _resolved(host: str, port: int) -> list[_Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bind(family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
