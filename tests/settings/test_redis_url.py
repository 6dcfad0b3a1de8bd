"""The Redis URL may contain a password: it may be a reference, and it is never shown."""

from pathlib import Path

import pytest

from bridge.config import ConfigError, load
from bridge.config.describe import describe

PASSWORD = "p4ss-of-redis"


def config_text(redis_url: str) -> str:
    return f'[server]\nredis_url = "{redis_url}"\n'


@pytest.mark.parametrize(
    ("value", "environ", "url", "shown"),
    [
        ("redis://cache:6380/2", {}, "redis://cache:6380/2", "redis://cache:6380/2"),
        ("rediss://user@cache", {}, "rediss://user@cache", "rediss://cache"),
        ("unix:///run/redis.sock?db=1", {}, "unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("env:SHARED", {"SHARED": f"redis://:{PASSWORD}@cache"}, f"redis://:{PASSWORD}@cache", "env:SHARED"),
        ("file:secret/redis", {}, f"unix:///run/redis.sock?password={PASSWORD}", "file:secret/redis"),
        (
            "",
            {"BRIDGE_SERVER_REDIS_URL": f"redis://u:{PASSWORD}@cache"},
            f"redis://u:{PASSWORD}@cache",
            "redis://cache",
        ),
        ("", {"BRIDGE_SERVER_REDIS_URL": "env:SHARED", "SHARED": "redis://cache"}, "redis://cache", "env:SHARED"),
    ],
)
def test_the_url_is_read_and_its_password_is_not_shown(
    tmp_path: Path, value: str, environ: dict[str, str], url: str, shown: str
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "redis").write_text(f"unix:///run/redis.sock?password={PASSWORD}\n")
    path = tmp_path / "bridge.toml"
    path.write_text(config_text(value) if value else "")
    config = load(path, environ, {})
    found = config.server.redis_url
    assert found is not None
    assert (found.url, str(found)) == (url, shown)
    assert f"  redis_url = {shown}" in describe(config)
    assert PASSWORD not in repr(config) + str(describe(config))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (f"redis://:{PASSWORD}@cache", "with a password in it"),
        (f"redis://{PASSWORD}:@cache", "with a password in it"),
        (f"unix:///run/redis.sock?password={PASSWORD}", "with a password in it"),
        (f"http://{PASSWORD}", "this is not a URL of Redis"),
        (f"redis://cache:{PASSWORD}", "this is not a URL of Redis"),
        ("redis:", "this is not a URL of Redis"),
        ("env:NONE", "the environment variable NONE is not set"),
        ("env:ODD", "this is not a URL of Redis"),
        ("env:SLASH", "this is not a URL of Redis"),
        ("env:QUERY", "this is not a URL of Redis"),
        ("env:AGAIN", "env:AGAIN contains a reference, not a URL"),
    ],
)
def test_an_invalid_url_is_reported_with_its_line_and_without_the_password(
    tmp_path: Path, value: str, message: str
) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text(config_text(value))
    not_encoded = {"SLASH": f"redis://u:a@b/{PASSWORD}@cache", "QUERY": f"redis://:12?{PASSWORD}@cache"}
    with pytest.raises(ConfigError) as refused:
        load(path, {"ODD": f"http://:{PASSWORD}@cache", "AGAIN": "env:ODD", **not_encoded}, {})
    [problem] = refused.value.problems
    assert (problem.key, problem.line) == ("server.redis_url", 2)
    assert message in problem.message
    assert PASSWORD not in problem.message
