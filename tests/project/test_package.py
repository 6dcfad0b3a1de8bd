"""The wheel contains the whole package and nothing else, and declares its dependencies."""

import subprocess
import sys
import tomllib
from email.message import Message
from email.parser import Parser
from zipfile import ZipFile

import pytest

import bridge
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return ZipFile(built)


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: ZipFile) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "bridge").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("needed", ["bridge/py.typed", "bridge/demo/tapes/stream-anthropic.jsonl"])
def test_the_wheel_contains_data_files(wheel: ZipFile, needed: str) -> None:
    """These files are the marker of a typed package, and the tapes of the demo."""
    assert needed in wheel.namelist()


def test_both_places_of_the_version_agree(metadata: Message) -> None:
    assert metadata["Version"] == bridge.__version__


def test_the_wheel_is_for_the_pythons_that_are_tested(metadata: Message) -> None:
    assert metadata["Requires-Python"] == ">=3.11"
    named = [value.rpartition(" ")[2] for value in metadata.get_all("Classifier", []) if ":: 3." in value]
    assert named == ["3.11", "3.12", "3.13"]


def test_both_commands_are_the_same(wheel: ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    lines = wheel.read(name).decode().split("\n")
    assert {"bridge = bridge.cli:main", "universal-bridge = bridge.cli:main"} <= set(lines)


def test_an_installation_does_not_require_test_tools(metadata: Message) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    always = {
        need.partition(";")[0].strip() for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need
    }
    assert len(always) == len(project["dependencies"])
    assert not any(need.startswith(("pytest", "hypothesis", "ruff", "mypy")) for need in always)
