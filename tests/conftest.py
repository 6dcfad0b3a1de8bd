"""What every test may use: a clock that can be advanced, and the tools that a machine may lack."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.clock import ClockLoop

pytest_plugins = ["pytester", "bridge.testing.plugin", "tests.support.redis_server", "tests.support.wall_clock"]

IN_CI = bool(os.environ.get("BRIDGE_CI"))
"""Then what is missing is a failure, for the CI script installs it; the recordings one has, or has not."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"clock": ClockLoop}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for what in marker.args:
            if reason := _missing(what):
                (pytest.fail if _is_owed(what) else pytest.skip)(reason)


def _is_owed(what: str) -> bool:
    """What runs on no Python of today, and recordings, one has or has not."""
    variable = {"streams": "BRIDGE_STREAMS", "autobahn": "BRIDGE_WSTEST"}.get(what)
    return variable in os.environ if variable else IN_CI


@cache
def _missing(what: str) -> str | None:
    """Why a test that needs it cannot run; None when it can."""
    match what:
        case "streams":
            folder = os.environ.get("BRIDGE_STREAMS")
            return None if folder and Path(folder).is_dir() else "BRIDGE_STREAMS names no folder of recorded streams"
        case "autobahn":
            program = os.environ.get("BRIDGE_WSTEST")
            return None if program and shutil.which(program) else "BRIDGE_WSTEST names no wstest of the Autobahn suite"
        case "npm-ws":
            return None if _node_has("ws") else "node with the npm package ws is not there (NODE_PATH)"
        case "npm-aimock":
            return None if _node_has("@copilotkit/aimock") else "node with @copilotkit/aimock is not there (NODE_PATH)"
        case "npm-google-genai":
            return None if _node_has("@google/genai") else "node with @google/genai is not there (NODE_PATH)"
        case "npm-ai-gateway-provider":
            packages = ("ai-gateway-provider", "ai", "@ai-sdk/openai", "@ai-sdk/anthropic")
            lacking = [package for package in packages if not _node_has(package)]
            return f"node with {', '.join(lacking)} is not there (NODE_PATH)" if lacking else None
        case _ if what.startswith("pip-"):
            package = what.removeprefix("pip-")
            return None if _python_has(package) else f"the Python package {package} is not there (extra sdks)"
        case _:
            return None if shutil.which(what) else f"{what} is not installed"


def _python_has(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _node_has(package: str) -> bool:
    node = shutil.which("node")
    return (
        node is not None
        and subprocess.run([node, "-e", f"require.resolve('{package}')"], capture_output=True).returncode == 0
    )
