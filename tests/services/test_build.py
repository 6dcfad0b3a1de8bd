"""The Redis of `redis_url`, as a configuration asks for it: what is missing or odd is a problem with its key."""

import subprocess
import sys
from pathlib import Path

import pytest

from bridge.config import ConfigError
from bridge.services.build import build_services
from tests.support.commands import TIMEOUT_S, environment
from tests.support.harness import config_of


async def refused(folder: Path, redis_url: str) -> str:
    with pytest.raises(ConfigError) as error:
        async with build_services(config_of(f'[server]\nredis_url = "{redis_url}"\n', folder)):
            pass
    [problem] = error.value.problems
    assert problem.key == "redis_url"
    return problem.message


async def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bridge.services.redis", raising=False)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    message = await refused(tmp_path, "redis://127.0.0.1")
    assert message == "install the extra redis: pip install 'universal-bridge[redis]'"


def test_a_bridge_without_redis_needs_no_extra() -> None:
    blocked = "import sys; sys.modules['redis'] = None; import bridge.cli.serve_process, bridge.cli.serve_workers"
    subprocess.run([sys.executable, "-c", blocked], check=True, env=environment(), timeout=TIMEOUT_S)


async def test_a_rejected_redis_url_is_reported_without_its_options(tmp_path: Path) -> None:
    message = await refused(tmp_path, "redis://127.0.0.1/0?socket_timeout=secret")
    assert message == "the Redis client rejects the URL redis://127.0.0.1/0"
