"""Several worker processes on one port: if one fails the others continue, and none survives the supervisor."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from bridge.policy.breaker import FAILURES
from tests.support.commands import TAPES, run
from tests.support.event_harness import step
from tests.support.harness import Client
from tests.support.redis_server import RedisServer
from tests.support.serving import serving
from tests.support.socket_provider import Line, Provider, sends

SOCKETS = 24
"""Number of sockets; the probability that one of two workers gets none is one in eight million."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
BEGUN = HEAD + b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
REST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
FAILURE = b"HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Gate:
    """A provider's script: for_each stream starts at once, and continues when the gate is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def __call__(self, line: Line) -> None:
        await line.request()
        await line.send(BEGUN)
        await self.opened.wait()
        await line.send(REST)
        line.close()


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def provider(gate: Gate) -> AsyncIterator[Provider]:
    async with Provider(gate) as provider:
        yield provider


def config_in(folder: Path, provider: Provider, *more: str) -> tuple[str, str]:
    """Write a configuration of two workers that call this provider, and return its command-line flag."""
    path = folder / "bridge.toml"
    providers = [f'[providers.openai]\nbase_url = "http://127.0.0.1:{provider.port}"']
    path.write_text("\n".join(["[server]\nworkers = 2\ndrain_timeout = 9000", *more, *providers]))
    return "--config", str(path)


async def for_each(clients: list[Client], do: Callable[[int, Client], Awaitable[object]]) -> list[object]:
    return await asyncio.gather(*(do(number, client) for number, client in enumerate(clients)), return_exceptions=True)


async def begin(number: int, client: Client) -> None:
    await client.create({"eventId": number, **step()})
    for expected in ("universal.created", "universal.stream"):
        assert (await client.receive())["type"] == expected


async def finish(number: int, client: Client) -> str:
    """Return the type of the event's last frame. Raise AssertionError if the socket closes first."""
    last: str = (await client.until_last(number))[-1]["type"]
    return last


async def close_code(_: int, client: Client) -> object:
    """Return the code of the close frame. aiohttp's own code is 1006 if its answer to the frame arrives too late."""
    while (message := await client.socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
        assert message.type is aiohttp.WSMsgType.TEXT
    code: object = message.data
    return code


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_killed_worker_is_replaced_and_the_others_continue(
    tmp_path: Path, provider: Provider, gate: Gate
) -> None:
    async with serving(*config_in(tmp_path, provider)) as bridge, bridge.clients(SOCKETS) as clients:
        pids = await bridge.workers(2)
        assert await for_each(clients, begin) == [None] * SOCKETS
        os.kill(pids[1], signal.SIGKILL)
        line = await bridge.next_log_line("a worker ended; starting another one")
        assert (line["worker"], line["pid"], line["why"]) == (1, pids[1], "SIGKILL")
        again = await bridge.next_log_line("started")
        assert again["worker"] == 1
        assert again["pid"] not in pids.values()
        gate.opened.set()
        outcomes = await for_each(clients, finish)
        assert {type(outcome) for outcome in outcomes} == {str, AssertionError}, "each worker had some events"
        assert {outcome for outcome in outcomes if isinstance(outcome, str)} == {"universal.done"}
        async with bridge.clients(SOCKETS) as fresh:
            assert await for_each(fresh, begin) == [None] * SOCKETS
            assert await for_each(fresh, finish) == ["universal.done"] * SOCKETS


@pytest.mark.parametrize("to_the_group", [False, True], ids=["as a service", "from a terminal"])
async def test_a_signal_drains_all_workers(tmp_path: Path, provider: Provider, gate: Gate, to_the_group: bool) -> None:
    """Ctrl-C in a terminal reaches for_each process of the group, and counts as one signal."""
    async with serving(*config_in(tmp_path, provider)) as bridge, bridge.clients(SOCKETS) as clients:
        pids = await bridge.workers(2)
        await for_each(clients, begin)
        if to_the_group:
            os.killpg(bridge.process.pid, signal.SIGINT)
        else:
            bridge.process.terminate()
        for _ in range(3):
            await bridge.next_log_line("draining")
        gate.opened.set()
        assert await for_each(clients, finish) == ["universal.done"] * SOCKETS
        assert set(await for_each(clients, close_code)) == {1001}
        assert await bridge.exit_code() == 0
        assert not any(map(is_alive, pids.values()))
        assert [message for message in await bridge.remaining_messages() if message != "event"] == ["stopped"] * 3


async def test_the_drain_timeout_applies_to_every_worker(tmp_path: Path, provider: Provider) -> None:
    config = config_in(tmp_path, provider)
    async with (
        serving(*config, BRIDGE_SERVER_DRAIN_TIMEOUT="100") as bridge,
        bridge.clients(SOCKETS) as clients,
    ):
        await for_each(clients, begin)
        bridge.process.terminate()
        assert await for_each(clients, finish) == ["universal.error"] * SOCKETS
        assert {client.frames[-1]["error"]["code"] for client in clients} == {9022}
        assert await bridge.exit_code() == 0


async def test_a_second_signal_kills_all_workers(tmp_path: Path, provider: Provider) -> None:
    async with serving(*config_in(tmp_path, provider)) as bridge, bridge.clients(SOCKETS) as clients:
        pids = await bridge.workers(2)
        await for_each(clients, begin)
        bridge.process.send_signal(signal.SIGINT)
        for _ in range(3):
            await bridge.next_log_line("draining")
        bridge.process.send_signal(signal.SIGINT)
        assert await bridge.exit_code() == -signal.SIGINT
        assert not any(map(is_alive, pids.values()))


async def test_workers_drain_when_their_supervisor_is_killed(tmp_path: Path, provider: Provider, gate: Gate) -> None:
    """They drain as after a signal: events in flight finish."""
    async with serving(*config_in(tmp_path, provider)) as bridge, bridge.clients(SOCKETS) as clients:
        await bridge.workers(2)
        await for_each(clients, begin)
        bridge.process.kill()
        for _ in range(2):
            await bridge.next_log_line("draining")
        gate.opened.set()
        assert await for_each(clients, finish) == ["universal.done"] * SOCKETS
        assert [message for message in await bridge.remaining_messages() if message != "event"] == ["stopped"] * 2


async def test_a_terminated_worker_drains_and_is_replaced(tmp_path: Path, provider: Provider, gate: Gate) -> None:
    async with serving(*config_in(tmp_path, provider)) as bridge, bridge.clients(SOCKETS) as clients:
        pids = await bridge.workers(2)
        await for_each(clients, begin)
        os.kill(pids[2], signal.SIGTERM)
        await bridge.next_log_line("draining")
        gate.opened.set()
        assert await for_each(clients, finish) == ["universal.done"] * SOCKETS
        assert (await bridge.next_log_line("a worker ended; starting another one"))["why"] == "exit code 0"
        assert (await bridge.next_log_line("started"))["worker"] == 2


async def test_a_reload_reaches_every_worker(tmp_path: Path, provider: Provider) -> None:
    async with serving(*config_in(tmp_path, provider)) as bridge:
        await bridge.workers(2)
        bridge.process.send_signal(signal.SIGHUP)
        for _ in range(2):
            await bridge.next_log_line("reloaded")


async def test_the_supervisor_logs_its_workers_at_the_start(tmp_path: Path, provider: Provider) -> None:
    async with serving(*config_in(tmp_path, provider)) as bridge:
        await bridge.next_log_line("supervising", pid=bridge.process.pid, workers=2)
        await bridge.next_log_line("limits, breakers and cache are per worker")
        bridge.process.terminate()
        assert await bridge.exit_code() == 0
        assert bridge.process.stdout is not None
        assert await bridge.process.stdout.read() == b"", "there is one ready line"


@pytest.mark.parametrize(
    ("args", "code", "error"),
    [
        (["--port", "{taken}"], 1, "bridge: cannot listen on 127.0.0.1:{taken}: Address already in use\n"),
        (["--port", "{shared}"], 1, "bridge: cannot listen on 127.0.0.1:{shared}: Address already in use\n"),
        (["--host", "no.such.host.invalid"], 1, "bridge: cannot listen on no.such.host.invalid:"),
        (["--record", "/dev/null/tapes"], 1, "bridge: cannot record to /dev/null/tapes: Not a directory\n"),
        (["--workers", "0"], 2, "--workers: 0 is not a whole number from 1 to 256"),
        (["--replay", str(TAPES)], 2, "workers: each worker"),
        (["--tls-cert", "pyproject.toml", "--tls-key", "pyproject.toml"], 2, "tls_cert, tls_key: pyproject.toml"),
    ],
)
def test_an_error_of_all_workers_is_reported_once(args: list[str], code: int, error: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied, shared_socket() as shared:
        names = {"taken": occupied.getsockname()[1], "shared": shared.getsockname()[1]}
        ended = run("serve", "--workers", "2", "--allow-open", *(arg.format(**names) for arg in args))
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith(error.format(**names))
    assert ended.stderr.count("\n") == 1


def shared_socket() -> socket.socket:
    """Listen as a worker of another bridge does."""
    return socket.create_server(("127.0.0.1", 0), reuse_port=True)


@pytest.mark.needs("redis-server")
async def test_workers_share_the_breakers_over_redis(redis: RedisServer, tmp_path: Path) -> None:
    """After five failures on one socket, the events of all sockets go to the second step."""
    async with Provider(sends(FAILURE)) as broken, Provider(sends(JSON)) as sound:
        more = f'redis_url = "{redis.url}"\n[providers.groq]\nbase_url = "http://127.0.0.1:{sound.port}"'
        async with serving(*config_in(tmp_path, broken, more)) as bridge, bridge.clients(SOCKETS) as clients:
            for number in range(FAILURES):
                await clients[0].call({"eventId": number, **step("openai")})
            await until_all_breakers_are_open(clients)
            calls = broken.connections
            assert set(await for_each(clients, answered_by)) == {"1"}
            assert broken.connections == calls


async def answered_by(number: int, client: Client) -> object:
    """Send an event of two steps and return the step that answered."""
    name = f"{number} of {len(client.frames)}"
    return (await client.call({"eventId": name, "steps": [step("openai"), step("groq")]}))[-1]["metadata"]["step"]


async def until_all_breakers_are_open(clients: list[Client]) -> None:
    """Wait until all workers have received the state of the breaker."""
    async with asyncio.timeout(5):
        while set(await for_each(clients, answered_by)) != {"1"}:
            pass


@pytest.mark.needs("redis-server")
async def test_workers_continue_without_redis_and_reconnect(redis: RedisServer, tmp_path: Path) -> None:
    async with Provider(sends(JSON)) as provider:
        more = f'redis_url = "{redis.url}"'
        async with serving(*config_in(tmp_path, provider, more)) as bridge, bridge.clients(SOCKETS) as clients:
            await bridge.workers(2)
            redis.kill()
            for _ in range(2):
                await bridge.next_log_line("Redis unreachable")
            assert set(await for_each(clients, succeeded)) == {True}
            redis.start()
            for _ in range(2):
                await bridge.next_log_line("Redis reachable again")
            assert set(await for_each(clients, succeeded)) == {True}
            bridge.process.terminate()
            assert await bridge.exit_code() == 0
            assert not [message for message in await bridge.remaining_messages() if "redis" in message.lower()]


async def succeeded(number: int, client: Client) -> object:
    name = f"{number} of {len(client.frames)}"
    return (await client.call({"eventId": name, **step()}))[-1]["metadata"]["success"]
