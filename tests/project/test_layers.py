"""Rules of the layout: imports point down, pure modules do no I/O, and every module has a layer."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_every_contract_on_imports_is_kept() -> None:
    """The linter runs in its own process, because it takes over logging."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    run = subprocess.run([sys.executable, "-c", command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(" KEPT") == len(CONTRACTS), run.stdout


def pure_files() -> list[Path]:
    [pure] = (contract for contract in CONTRACTS if contract["name"].startswith("Pure modules"))
    places = [ROOT.joinpath(*module.split(".")) for module in pure["source_modules"]]
    return [path for place in places for path in [place.with_suffix(".py"), *place.rglob("*.py")] if path.is_file()]


@pytest.mark.parametrize("path", pure_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_modules_do_not_wait_open_or_print(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called.isdisjoint({"open", "print", "input", "eval", "exec"})
