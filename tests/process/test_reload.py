"""Reload the configuration while sockets are open."""

import asyncio
import logging
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiohttp
import orjson
import pytest

from bridge.client import ConnectionLost, connect
from bridge.config import ConfigError, Configuration, authenticate, load
from bridge.demo.scenes import SCENES
from bridge.process.reload import POLL_S, RELOADABLE, Reloader, apply_reloadable, reloading
from bridge.server.server import Server
from bridge.settings.server import SERVER
from tests.support.clock import advance, turns, until
from tests.support.commands import ROOT, TIMEOUT_S, started, url_in
from tests.support.event_harness import DONE, FINISH, content, step
from tests.support.harness import Client, connected, running
from tests.support.paths import FIXTURES
from tests.support.provider_script import SILENCE, ScriptedProvider, ScriptedResponse, answers, streams

ENVIRON = {"ONE": "first", "TWO": "second", "KEY": "stored-1234567890", "OTHER": "stored-0987654321"}
TOKENS = '[gateways.prod.tokens]\none = "env:ONE"\ntwo = "env:TWO"\n'
WITHOUT_ONE = '[gateways.prod.tokens]\ntwo = "env:TWO"\n'
BARE = {key: value for key, value in step().items() if key != "headers"}
"""A step without a credential."""


def write(path: Path, text: str) -> None:
    path.write_text(text)


def remove(path: Path) -> None:
    path.unlink()


def written(path: Path, text: str) -> Configuration:
    write(path, text)
    return load(path, ENVIRON, {"port": 0})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bridge.toml"


# What can be had without a restart.


def test_settings_that_require_a_restart_are_kept_and_named(path: Path) -> None:
    running_now = written(path, "[server]\nmax_sockets = 5\nmax_item_bytes = 4096")
    found = written(path, "[server]\nmax_sockets = 6\nmax_item_bytes = 8192\nhandshake_timeout = 1\n[gateways.a]")
    config, waiting = apply_reloadable(running_now, found)
    assert waiting == ["max_item_bytes", "handshake_timeout"]
    assert (config.server.max_sockets, config.server.max_item_bytes) == (6, 4096)
    assert config.gateways.keys() == {"a"}


def test_changes_of_the_address_and_of_tls_itself_require_a_restart(path: Path) -> None:
    config = written(path, "")
    tls = replace(config.server, host="::1", port=1, tls_cert=path, tls_key=path)
    assert apply_reloadable(config, replace(config, server=tls))[1] == ["host", "port", "tls_cert", "tls_key"]
    assert apply_reloadable(replace(config, server=tls), config)[1] == ["host", "port", "tls_cert", "tls_key"]
    other = replace(tls, tls_cert=path.parent)
    assert apply_reloadable(replace(config, server=tls), replace(config, server=other)) == (
        replace(config, server=other),
        [],
    ), "another certificate does not"


def test_a_gateway_is_not_opened_to_a_network_that_the_bridge_still_listens_on(path: Path) -> None:
    """The new file has 127.0.0.1, which requires a restart."""
    write(path, TOKENS)
    exposed = load(path, ENVIRON, {"host": "0.0.0.0"})
    with pytest.raises(ConfigError, match="have no tokens"):
        apply_reloadable(exposed, written(path, "[gateways.prod]"))


@pytest.mark.parametrize("text", ["", "[server]\n", "[gateways.prod]", '[gateways."*"]'])
def test_a_reload_opens_no_gateway_that_requires_tokens(path: Path, text: str) -> None:
    """A file that is being written is empty first."""
    running_now = written(path, TOKENS)
    with pytest.raises(ConfigError, match=r"gateways\.prod: requires tokens"):
        apply_reloadable(running_now, written(path, text))


@pytest.mark.parametrize("text", ["[gateways.other]", TOKENS + "[gateways.other]", WITHOUT_ONE])
def test_another_gateway_may_be_open_or_take_its_place(path: Path, text: str) -> None:
    running_now = written(path, TOKENS)
    found = written(path, text)
    assert apply_reloadable(running_now, found)[0].gateways == found.gateways


def test_a_gateway_of_its_own_opens_no_name_that_the_default_gateway_protects(path: Path) -> None:
    running_now = written(path, TOKENS.replace("prod", '"*"'))
    with pytest.raises(ConfigError, match=r"gateways\.dev: requires tokens"):
        apply_reloadable(running_now, written(path, "[gateways.dev]"))


def test_every_reloadable_setting_exists() -> None:
    assert {row.name for row in SERVER} >= RELOADABLE


# Who notices.


class Applied:
    """A reloader of files, and the configurations that it had applied."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.configs: list[Configuration] = []
        config = written(path, text)
        self.reloader = Reloader(config, partial(load, path, ENVIRON, {"port": 0}), self.configs.append)

    async def noticed(self) -> bool:
        """Poll twice, and return the results."""
        before = len(self.configs)
        for _ in range(2):
            if await self.reloader.poll():
                await self.reloader.reload()
        return len(self.configs) > before

    @property
    def names(self) -> set[str]:
        return set(self.configs[-1].gateways)


def overwritten(path: Path) -> None:
    write(path, "[gateways.new]")


def renamed(path: Path) -> None:
    new = path.with_suffix(".new")
    write(new, "[gateways.new]")
    new.replace(path)


@pytest.mark.parametrize("change", [overwritten, renamed])
async def test_a_change_of_the_file_is_noticed_once(path: Path, change: Callable[[Path], None]) -> None:
    applied = Applied(path, "[gateways.old]")
    assert not await applied.noticed()
    change(path)
    assert await applied.noticed()
    assert applied.names == {"new"}
    assert not await applied.noticed()


async def test_a_pipe_is_read_once_and_never_blocks_a_reload(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`--config <(…)` is a pipe."""
    applied = Applied(path, "[gateways.old]")
    remove(path)
    os.mkfifo(path)
    assert not await applied.noticed()
    assert "is a pipe" in caplog.text
    remove(path)
    write(path, "[gateways.new]")
    assert await applied.noticed()


def config_map(folder: Path) -> Path:
    """Make a folder as Kubernetes does: symlinks into `..data`, itself a symlink to the folder of a version."""
    for name, text in (("..1", "[gateways.old]"), ("..2", "[gateways.new]")):
        (folder / name).mkdir()
        write(folder / name / "bridge.toml", text)
    (folder / "..data").symlink_to("..1")
    (folder / "bridge.toml").symlink_to("..data/bridge.toml")
    return folder / "bridge.toml"


def swap(folder: Path) -> None:
    (folder / "..data_tmp").symlink_to("..2")
    (folder / "..data_tmp").replace(folder / "..data")


async def test_a_config_map_of_kubernetes_is_noticed(tmp_path: Path) -> None:
    applied = Applied(config_map(tmp_path), "[gateways.old]")
    swap(tmp_path)
    assert await applied.noticed()
    assert applied.names == {"new"}


async def test_a_change_of_a_secret_file_is_noticed(path: Path) -> None:
    secret = path.parent / "token"
    write(secret, "one")
    applied = Applied(path, '[gateways.prod.tokens]\nci = "file:token"\n')
    write(secret, "another")
    assert await applied.noticed()
    assert authenticate(applied.configs[-1].gateways["prod"], "another") == "ci"


async def test_a_file_is_read_once_it_no_longer_changes(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    applied = Applied(path, "[gateways.old]")
    write(path, "[gateways.")
    assert not await applied.reloader.poll()
    write(path, "[gateways.new]")
    assert not await applied.reloader.poll()
    assert await applied.noticed()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_invalid_file_changes_nothing_and_is_reported_once_with_its_lines(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    applied = Applied(path, "[gateways.old]")
    write(path, '[gateways.new]\nmax_atempts = 3\n[server]\nport = "x"')
    assert not await applied.noticed()
    assert not await applied.noticed()
    logged = [record.getMessage() for record in caplog.records]
    assert logged == [
        f"{path}:2: gateways.new.max_atempts: unknown key; did you mean max_attempts?",
        f"{path}:4: server.port: 'x' is not a whole number from 0 to 65535",
        "invalid configuration; the current one stays in use",
    ]


async def test_an_invalid_file_is_read_again_when_a_missing_file_appears(path: Path) -> None:
    applied = Applied(path, "[gateways.old]")
    write(path, '[gateways.new.tokens]\none = "file:token"\n')
    assert not await applied.noticed()
    write(path.parent / "token", "secret")
    assert await applied.noticed()
    assert applied.names == {"new"}


async def test_a_file_that_goes_away_changes_nothing_until_it_is_back(path: Path) -> None:
    applied = Applied(path, "[gateways.old]")
    remove(path)
    assert not await applied.noticed()
    write(path, "[gateways.new]")
    assert await applied.noticed()


async def test_settings_that_require_a_restart_are_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    applied = Applied(path, "")
    write(path, "[server]\nmax_item_bytes = 4096\nmemory_budget_bytes = 4096")
    assert await applied.noticed()
    assert "changed settings require a restart: max_item_bytes, memory_budget_bytes" in caplog.text
    assert "the file defines no gateway" in caplog.text


async def test_files_are_polled_every_second_and_read_at_once_on_sighup(path: Path) -> None:
    configs: list[Configuration] = []
    config = written(path, "[gateways.old]")
    async with reloading(config, partial(load, path, ENVIRON, {"port": 0}), configs.append):
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: len(configs) == 1)
        write(path, "[gateways.new]")
        await until(lambda: advance(POLL_S) or len(configs) == 2)  # type: ignore[func-returns-value]  # time goes by
    assert set(configs[-1].gateways) == {"new"}


# Who stays, and who leaves.


@asynccontextmanager
async def served(path: Path, text: str, *plays: ScriptedResponse) -> AsyncIterator[tuple[Server, ScriptedProvider]]:
    provider = ScriptedProvider(*plays)
    async with running(written(path, text), provider) as server:
        yield server, provider


def came_in(server: Server, token: str, gateway: str = "prod") -> "asyncio._AsyncGeneratorContextManager[Client]":
    return connected(server, f"/v1/account/{gateway}", headers={"cf-aig-authorization": ENVIRON[token]})


async def is_well(client: Client, event_id: int = 1) -> bool:
    return (await client.call({"eventId": event_id, **step()}))[-1]["metadata"]["success"] is True


async def test_a_revoked_token_s_sockets_close_with_1008_once_their_events_were_cancelled(path: Path) -> None:
    async with (
        served(path, TOKENS, streams(content("a"), SILENCE), answers()) as (server, provider),
        came_in(server, "ONE") as busy,
        came_in(server, "ONE") as idle,
        came_in(server, "TWO") as other,
    ):
        await busy.create({"eventId": "a", **step()})
        await busy.receive()
        server.reload(written(path, WITHOUT_ONE))
        # Both at once: aiohttp's client forgets a close frame that it has not read when the connection ends.
        assert await asyncio.gather(busy.close_code(), idle.close_code()) == [1008, 1008]
        last = busy.frames[-1]
        assert (last["type"], last["error"]["code"]) == ("universal.error", 2009)
        assert "the token 'one' is no longer valid for gateway 'prod'" in last["error"]["message"]
        await until(lambda: provider.open_streams == 0)
        assert await is_well(other)


@pytest.mark.parametrize(
    "now", ["[gateways.other.tokens]\ntwo = 'env:TWO'\n", TOKENS.replace('"env:ONE"', '"env:OTHER"')],
    ids=["a gateway that is gone", "a token that stands for another secret"],
)  # fmt: skip
async def test_sockets_that_lost_their_gateway_close_with_1008(path: Path, now: str) -> None:
    async with served(path, TOKENS) as (server, _), came_in(server, "ONE") as client:
        server.reload(written(path, now))
        assert await client.close_code() == 1008


async def test_an_open_gateway_that_gets_tokens_closes_sockets_without_one(path: Path) -> None:
    async with served(path, "[gateways.prod]") as (server, _), connected(server, "/v1/account/prod") as client:
        server.reload(written(path, TOKENS))
        assert await client.close_code() == 1008


async def test_http_requests_of_a_revoked_token_are_cancelled_with_an_error(path: Path) -> None:
    """A request without an answer gets 401; a stream that has begun ends incomplete."""
    async with (
        served(path, TOKENS, streams(SILENCE), streams(content("a"), SILENCE)) as (server, provider),
        aiohttp.ClientSession(headers={"cf-aig-authorization": ENVIRON["ONE"]}) as session,
    ):
        url = server.url.replace("ws", "http", 1) + "/v1/account/prod"
        waiting = asyncio.create_task(session.post(url, json=[step()]))
        await until(lambda: provider.open_streams == 1)
        async with session.post(url, json=[step()]) as begun:
            await begun.content.readany()
            server.reload(written(path, WITHOUT_ONE))
            with pytest.raises(aiohttp.ClientPayloadError):
                await begun.read()
        async with await waiting as refused:
            assert (refused.status, (await refused.json())["error"][0]["code"]) == (401, 2009)
        await until(lambda: provider.open_streams == 0)


async def test_a_reload_does_not_affect_other_events(path: Path) -> None:
    gate = asyncio.Event()
    async with (
        served(path, TOKENS, streams(content("a"), gate, FINISH, DONE)) as (server, _),
        came_in(server, "TWO") as client,
    ):
        await client.create({"eventId": "a", **step()})
        await client.receive()
        server.reload(written(path, WITHOUT_ONE + "[gateways.new]"))
        await turns()
        gate.set()
        assert (await client.until_last("a"))[-1]["metadata"]["success"] is True


async def test_new_connections_use_the_new_configuration(path: Path) -> None:
    """An open socket keeps the settings of its handshake."""
    async with (
        served(path, TOKENS, answers(status=500), answers(status=500), answers()) as (server, provider),
        came_in(server, "TWO") as before,
    ):
        server.reload(written(path, "[gateways.prod]\nmax_attempts = 2\nretry_delay = 0\n" + TOKENS))
        assert not await is_well(before)
        async with came_in(server, "TWO") as after:
            assert await is_well(after)
        assert len(provider.requests) == 3


async def test_open_sockets_use_the_current_keys_and_scopes(path: Path) -> None:
    key = '[gateways.prod.keys.openai]\ndefault = "env:{}"\n'
    scope = '[gateways.prod.tokens.one]\ntoken = "env:ONE"\nproviders = ["groq"]\n'
    async with (
        served(path, TOKENS, answers(), answers(), answers()) as (server, provider),
        came_in(server, "ONE") as client,
    ):
        for number, keys in enumerate(("", key.format("KEY"), key.format("OTHER"))):
            server.reload(written(path, TOKENS + keys))
            await client.call({"eventId": number, **BARE})
        sent = [received.headers.get("authorization") for received in provider.requests]
        assert sent == [None, "Bearer stored-1234567890", "Bearer stored-0987654321"]
        server.reload(written(path, scope))
        [refused] = await client.call({"eventId": "late", **BARE})
        assert (refused["error"]["code"], refused["metadata"]["status"]) == (2009, 403)


async def test_max_sockets_changes_at_once(path: Path) -> None:
    async with served(path, "[gateways.prod]") as (server, _), connected(server, "/v1/account/prod"):
        server.reload(written(path, "[server]\nmax_sockets = 1\n[gateways.prod]"))
        with pytest.raises(Exception, match="503"):
            async with connected(server, "/v1/account/prod"):
                pass


# A process.


def lines_of(process: "subprocess.Popen[str]", count: int) -> list[str]:
    assert process.stderr is not None
    return [orjson.loads(process.stderr.readline())["message"] for _ in range(count)]


async def test_a_serving_bridge_reloads_on_sighup_and_keeps_its_sockets(path: Path) -> None:
    write(path, TOKENS)
    tapes = ROOT / "bridge" / "demo" / "tapes"
    with started("serve", "--config", str(path), "--port", "0", "--replay", str(tapes), **ENVIRON) as process:
        assert process.stdout is not None
        url = url_in(process.stdout.readline())
        assert lines_of(process, 1) == ["started"]
        async with (
            connect(url, token="second", reconnect=False) as stays,
            connect(url, token="first", reconnect=False) as leaves,
        ):
            write(path, "nonsense")
            process.send_signal(signal.SIGHUP)
            wrong, kept = lines_of(process, 2)
            assert f"{path}:1: is not TOML" in wrong
            assert kept == "invalid configuration; the current one stays in use"
            write(path, WITHOUT_ONE)
            process.send_signal(signal.SIGHUP)
            assert lines_of(process, 1) == ["reloaded"]
            with pytest.raises(ConnectionLost, match="1008"):
                async with leaves.create(SCENES[0].request) as event:
                    await anext(event)
            async with stays.create(SCENES[0].request) as event:
                assert (await anext(event)).type == "created"
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0


TLS = FIXTURES / "tls"


def copied(name: str, folder: Path) -> None:
    shutil.copy(TLS / name, folder)


async def test_new_connections_get_a_renewed_certificate(tmp_path: Path, path: Path) -> None:
    copied("localhost.pem", tmp_path)
    copied("localhost-key.pem", tmp_path)
    text = '[server]\ntls_cert = "localhost.pem"\ntls_key = "localhost-key.pem"\n[gateways.prod]'
    async with served(path, text) as (server, _):
        config = written(path, text)
        assert set(config.files) == {path, tmp_path / "localhost.pem", tmp_path / "localhost-key.pem"}
        write(tmp_path / "localhost-key.pem", "nonsense")
        with pytest.raises(ConfigError, match="cannot be used"):
            server.reload(config)
        copied("localhost-key.pem", tmp_path)
        server.reload(config)
        context = ssl.create_default_context(cafile=str(TLS / "localhost.pem"))
        async with connected(server, "/v1/account/prod", ssl=context):
            pass
