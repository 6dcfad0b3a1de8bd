"""The page `architecture` shows the packages that exist, in the order that the import contracts enforce."""

import re
import tomllib
from pathlib import Path

import pytest

from bridge.docs import pages

ROOT = Path(__file__).parents[2]
PAGE = pages.read("architecture").markdown
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_the_picture_has_every_package_in_the_order_of_the_layers() -> None:
    [layers] = [contract["layers"] for contract in CONTRACTS if contract["type"] == "layers"]
    height = {name: number for number, layer in enumerate(layers) for name in layer.split(" | ")}
    del height["__main__"]
    drawn = [name for line in re.findall(r"^  \| ([a-z ]+?) +\| ", PAGE, re.MULTILINE) for name in line.split()]
    assert sorted(drawn) == sorted(height)
    assert [height[name] for name in drawn] == sorted(height.values())


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([a-z_]+/[a-z_/]+)`", PAGE))))
def test_a_module_that_the_page_names_exists(path: str) -> None:
    place = ROOT / path if path.startswith("tests/") else ROOT / "bridge" / path
    assert place.is_dir() or place.with_suffix(".py").is_file()
