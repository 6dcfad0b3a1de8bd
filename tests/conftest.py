"""Fixtures for all tests: a virtual clock, and the markers of tests that a machine may be unable to run."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import hypothesis
import pytest
import uvloop

from tests.support.clock import ClockLoop

pytest_plugins = ["pytester", "bridge.testing.plugin", "tests.support.redis_server", "tests.support.wall_clock"]

hypothesis.settings.register_profile("tests", deadline=None)  # a deadline is a bound in seconds of any machine
hypothesis.settings.load_profile("tests")

LOOPS = {"clock": ClockLoop, "uvloop": uvloop.new_event_loop}

IN_CI = bool(os.environ.get("BRIDGE_CI"))
"""True in CI, where a missing tool fails its tests, since the CI script installs the tools."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return LOOPS if item.get_closest_marker("both_loops") else {"clock": ClockLoop}


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("quiet") and not IN_CI:
        pytest.skip("its bound is in seconds of a machine that runs nothing else (BRIDGE_CI)")
    for marker in item.iter_markers("needs"):
        for requirement in marker.args:
            if reason := _missing(requirement):
                (pytest.fail if _is_required(requirement) else pytest.skip)(reason)


def _is_required(requirement: str) -> bool:
    """Return True if the tool's absence fails a test; recordings and Autobahn are required if their variable is set."""
    variable = {"streams": "BRIDGE_STREAMS", "autobahn": "BRIDGE_WSTEST"}.get(requirement)
    return variable in os.environ if variable else IN_CI


@cache
def _missing(requirement: str) -> str | None:
    """Return why a test that needs the tool cannot run; None if it can."""
    match requirement:
        case "streams":
            folder = os.environ.get("BRIDGE_STREAMS")
            return None if folder and Path(folder).is_dir() else "BRIDGE_STREAMS names no folder of recorded streams"
        case "autobahn":
            program = os.environ.get("BRIDGE_WSTEST")
            return None if program and shutil.which(program) else "BRIDGE_WSTEST names no wstest of the Autobahn suite"
        case "npm-ws":
            return None if _node_has("ws") else "node with the npm package ws is missing (NODE_PATH)"
        case "npm-aimock":
            return None if _node_has("@copilotkit/aimock") else "node with @copilotkit/aimock is missing (NODE_PATH)"
        case "npm-google-genai":
            return None if _node_has("@google/genai") else "node with @google/genai is missing (NODE_PATH)"
        case "npm-ai-gateway-provider":
            packages = ("ai-gateway-provider", "ai", "@ai-sdk/openai", "@ai-sdk/anthropic")
            lacking = [package for package in packages if not _node_has(package)]
            return f"node with {', '.join(lacking)} is missing (NODE_PATH)" if lacking else None
        case _ if requirement.startswith("pip-"):
            package = requirement.removeprefix("pip-")
            return None if _python_has(package) else f"the Python package {package} is missing (extra sdks)"
        case _:
            return None if shutil.which(requirement) else f"{requirement} is not installed"


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
