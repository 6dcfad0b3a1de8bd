"""The plugin for pytest: a bridge that plays tapes (`bridge_url`), and golden transcripts (`bridge_frames`).

Every run of pytest where the bridge is installed loads it: it imports nothing but pytest until a test asks for one.
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
"""The marker and the ini option."""
TRANSCRIPTS: Final = "transcripts"
"""The folder beside a test's file."""

_UNSPEAKABLE: Final = re.compile(r"[^\w.=-]+")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bridge", "Universal Bridge")
    group.addoption("--bridge-update", action="store_true", help="Write the transcripts of bridge_frames anew.")
    parser.addini(TAPES, type="paths", help="Folders of tapes for bridge_url, where a test's marker names none.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f'{TAPES}(*folders, config=None, pace="instant", ignore_query=(), ignore_json=(), match_header=(), '
        'exhausted="repeat", fault=()): what bridge_url plays. Paths are relative to the test\'s file, or to rootdir.',
    )


@pytest.fixture
def _bridge_stage(request: pytest.FixtureRequest) -> "TestBridge":
    return _stage(request)


@pytest.fixture
def bridge_url(_bridge_stage: "TestBridge") -> Iterator[str]:
    """The URL of a bridge that plays the test's tapes from their beginning, on a free port, until the test is over.

    A test in which a realtime session strayed from its tape fails, whatever it made of that.
    """
    with _bridge_stage.running() as url:
        yield url
    if _bridge_stage.on_mismatch:
        pytest.fail("\n\n".join(_bridge_stage.on_mismatch), pytrace=False)


@pytest.fixture
def bridge_frames(request: pytest.FixtureRequest, bridge_url: str, _bridge_stage: "TestBridge") -> "BridgeFrames":
    """`bridge_frames(request)` sends an event and holds its frames against the test's transcript."""
    from bridge.testing.frames import BridgeFrames

    path = request.path.parent / TRANSCRIPTS / request.path.stem / f"{_name(request.node)}.jsonl"
    update = request.config.getoption("bridge_update")
    return BridgeFrames(bridge_url, path, update=update, missed=_bridge_stage.missed, hint=_bridge_stage.hint)


def _stage(request: pytest.FixtureRequest) -> "TestBridge":
    from bridge.testing.bridge import NotPlayable, bridge_tapes

    terms = _terms(request)
    try:
        return bridge_tapes(_folders(request), **terms)
    except (NotPlayable, TypeError) as error:
        pytest.fail(f"{TAPES}: {error}", pytrace=False)


def _folders(request: pytest.FixtureRequest) -> list[Path]:
    """Those of the closest marker that names any, else those of the ini option."""
    named = next((marker.args for marker in request.node.iter_markers(TAPES) if marker.args), ())
    folders: list[Path] = [_found(request, each) for each in named or request.config.getini(TAPES)]
    if not folders:
        pytest.fail(
            f'No tapes for bridge_url: mark the test with @pytest.mark.{TAPES}("FOLDER"), or set {TAPES} = FOLDER '
            "in the configuration of pytest.",
            pytrace=False,
        )
    return folders


def _terms(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The keywords of all its markers; of one that is given twice, the closest."""
    terms: dict[str, Any] = {}
    for marker in request.node.iter_markers(TAPES):
        terms = {**marker.kwargs, **terms}
    if terms.get("config") is not None:
        terms["config"] = _found(request, terms["config"])
    return terms


def _found(request: pytest.FixtureRequest, path: str | Path) -> Path:
    places = dict.fromkeys(base / path for base in (request.path.parent, request.config.rootpath))
    for place in places:
        if place.exists():
            return place
    pytest.fail(f"{TAPES}: there is no {' and no '.join(map(str, places))}", pytrace=False)


def _name(node: pytest.Item) -> str:
    """The test's, with its class and its parameters, as a file may be called."""
    return _UNSPEAKABLE.sub("-", node.nodeid.partition("::")[2]).strip("-")
