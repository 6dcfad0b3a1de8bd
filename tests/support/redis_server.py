"""A real Redis that a test can stop, kill, freeze and restart. It stores nothing on disk."""

import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_S = 20.0


class RedisServer:
    """Listens on a unix socket in its folder, so that no port is needed and restarts keep the address."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "redis.sock"
        self._config = folder / "redis.conf"
        self._config.write_text(
            f'port 0\nunixsocket {self._socket}\ndir {folder}\nsave ""\nappendonly no\ndaemonize no\nlogfile ""\n'
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    def start(self) -> None:
        """Start the process and wait until it accepts connections."""
        assert self._process is None
        self._process = subprocess.Popen(["redis-server", str(self._config)], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) and b"ready to accept connections" not in line:
            pass
        assert line, "redis-server ended before it was ready"
        # Later output is not read: it is so little that the pipe does not fill up during a test.

    def kill(self) -> None:
        """Kill the process; connections are reset."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(START_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def freeze(self) -> None:
        """Stop the process from answering; connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def unfreeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send one command and return the raw reply, which must be short enough for one read."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(START_S)
            client.connect(str(self._socket))
            client.sendall(f"*{len(words)}\r\n".encode() + b"".join(_bulk(word.encode()) for word in words))
            return client.recv(65_536)

    def stop(self) -> None:
        if self._process is not None:
            self.kill()


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(word), word)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Provide a running server for the session."""
    # A unix socket's path may have about 100 characters; the path of a test's folder is often longer.
    with tempfile.TemporaryDirectory(prefix="bridge-redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """Provide the server in a clean state. The test is marked `needs("redis-server")`."""
    with redis_server() as server:
        yield server
