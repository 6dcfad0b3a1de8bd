"""Plugin for pytest: a bridge that plays tapes (`bridge_url`), and golden transcripts (`bridge_frames`).

Every run of pytest with the bridge installed loads it, so it imports only pytest until a test requests a fixture.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from bridge.testing.bridge import TestBridge
    from bridge.testing.frames import BridgeFrames

TAPES: Final = "bridge_tapes"
"""Name of the marker and of the ini option."""
TRANSCRIPTS: Final = "transcripts"
"""Name of the folder beside a test's file."""

_UNSAFE_CHARS: Final = re.compile(r"[^\w.=-]+")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bridge", "Universal Bridge")
    group.addoption("--bridge-update", action="store_true", help="Rewrite the transcripts of bridge_frames.")
    parser.addini(TAPES, type="paths", help="Folders of tapes for bridge_url, if a test's marker names none.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f'{TAPES}(*folders, config=None, pace="instant", ignore_query=(), ignore_json=(), match_header=(), '
        'exhausted="repeat", fault=()): tapes for bridge_url. Paths are relative to the test\'s file, or to rootdir.',
    )


@pytest.fixture
def _bridge_stage(request: pytest.FixtureRequest) -> "TestBridge":
    return _stage(request)


@pytest.fixture
def bridge_url(_bridge_stage: "TestBridge") -> Iterator[str]:
    """Return the URL of a bridge on a free port that plays the test's tapes from the beginning.

    A test fails if a realtime session differed from its tape, even if the test itself passes.
    """
    with _bridge_stage.running() as url:
        yield url
    if _bridge_stage.on_mismatch:
        pytest.fail("\n\n".join(_bridge_stage.on_mismatch), pytrace=False)


@pytest.fixture
def bridge_frames(request: pytest.FixtureRequest, bridge_url: str, _bridge_stage: "TestBridge") -> "BridgeFrames":
    """Return a callable: `bridge_frames(request)` sends an event and compares its frames with the transcript."""
    from bridge.testing.frames import BridgeFrames

    path = request.path.parent / TRANSCRIPTS / request.path.stem / f"{_name(request.node)}.jsonl"
    update = request.config.getoption("bridge_update")
    return BridgeFrames(bridge_url, path, update=update, missed=_bridge_stage.missed, hint=_bridge_stage.hint)


def _stage(request: pytest.FixtureRequest) -> "TestBridge":
    from bridge.testing.bridge import NotPlayable, bridge_tapes

    options = _marker_options(request)
    try:
        return bridge_tapes(_folders(request), **options)
    except (NotPlayable, TypeError) as error:
        pytest.fail(f"{TAPES}: {error}", pytrace=False)


def _folders(request: pytest.FixtureRequest) -> list[Path]:
    """Return the folders of the closest marker that names any, or those of the ini option."""
    named = next((marker.args for marker in request.node.iter_markers(TAPES) if marker.args), ())
    folders: list[Path] = [_found(request, each) for each in named or request.config.getini(TAPES)]
    if not folders:
        pytest.fail(
            f'No tapes for bridge_url: mark the test with @pytest.mark.{TAPES}("FOLDER"), or set {TAPES} = FOLDER '
            "in the configuration of pytest.",
            pytrace=False,
        )
    return folders


def _marker_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the keyword arguments of all markers; the closest marker takes precedence."""
    options: dict[str, Any] = {}
    for marker in request.node.iter_markers(TAPES):
        options = {**marker.kwargs, **options}
    if options.get("config") is not None:
        options["config"] = _found(request, options["config"])
    return options


def _found(request: pytest.FixtureRequest, path: str | Path) -> Path:
    places = dict.fromkeys(base / path for base in (request.path.parent, request.config.rootpath))
    for place in places:
        if place.exists():
            return place
    pytest.fail(f"{TAPES}: there is no {' and no '.join(map(str, places))}", pytrace=False)


def _name(node: pytest.Item) -> str:
    """Return a file name for the test, with its class and parameters."""
    return _UNSAFE_CHARS.sub("-", node.nodeid.partition("::")[2]).strip("-")
