"""`bridge help`: the list of pages, one page, and a topic that does not exist."""

from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from bridge.cli import app
from bridge.docs import pages
from tests.support.commands import run_here

runner = CliRunner()


def test_without_a_topic_every_page_is_listed_with_its_summary() -> None:
    listed = runner.invoke(app, ["help"])
    assert listed.exit_code == 0
    for topic in pages.topics():
        assert f"{topic} " in listed.stdout
        assert pages.read(topic).summary in listed.stdout


def test_a_page_in_a_pipe_is_its_markdown_without_markers() -> None:
    printed = runner.invoke(app, ["help", "errors"])
    assert printed.exit_code == 0
    assert printed.stdout == pages.read("errors").text


@pytest.mark.parametrize("written", ["errors", "ERRORS", "errors.md"])
def test_raw_prints_the_markdown_of_the_page(written: str) -> None:
    assert runner.invoke(app, ["help", written, "--raw"]).stdout == pages.read("errors").markdown


def test_a_page_on_a_terminal_is_rendered() -> None:
    with patch("bridge.cli.help.is_terminal", lambda: True):
        printed = runner.invoke(app, ["help", "errors"])
    assert printed.exit_code == 0
    assert "Error codes" in printed.stdout
    assert "|---|" not in printed.stdout


@pytest.mark.parametrize(
    ("topic", "telling"),
    [("erorrs", "'errors'"), ("../errors", "errors"), ("/etc/passwd", "bridge help"), ("", "bridge help")],
)
def test_an_unknown_topic_is_wrong_usage_and_the_nearest_one_is_named(topic: str, telling: str) -> None:
    refused = run_here("help", topic)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert telling in refused.stderr
