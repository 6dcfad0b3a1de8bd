"""Share an address between several processes, with and without balancing by the kernel."""

import socket

import pytest

from bridge.process.listeners import Listeners, url_of


@pytest.mark.parametrize("balanced", [True, False], ids=["a socket for each", "one socket for all"])
def test_all_workers_get_sockets_of_one_address(balanced: bool) -> None:
    listeners = Listeners("localhost", 0, balanced=balanced)
    try:
        assigned = [listeners.for_worker() for _ in range(3)]
        for sockets in assigned:
            assert {made.getsockname()[1] for made in sockets} == {listeners.address[1]}
            for made in sockets:
                made.listen()
        with socket.create_connection(("localhost", int(str(listeners.address[1]))), timeout=5):
            pass
    finally:
        listeners.close()
        for sockets in assigned:
            for each in sockets:
                each.close()


def test_an_address_in_use_is_not_shared() -> None:
    """Sharing with SO_REUSEPORT is refused too: two bridges on one port would each get part of the clients."""
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=True) as occupied,
        pytest.raises(OSError, match="in use"),
    ):
        Listeners("127.0.0.1", occupied.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "tls", "url"),
    [(("127.0.0.1", 80), False, "ws://127.0.0.1:80"), (("::1", 443, 0, 0), True, "wss://[::1]:443")],
)
def test_the_address_of_a_socket_is_shown_as_a_url(address: tuple[object, ...], tls: bool, url: str) -> None:
    assert url_of(address, tls=tls) == url
