"""The pages of the manual: their form, their links, and the freshness of their tables."""

import re
from pathlib import Path

import pytest

from bridge.docs import pages, tables

FOLDER = Path(pages.__file__).parent
TOPICS = pages.topics()
MANUAL = {
    "architecture", "cache", "changelog", "cli", "cloudflare", "configuration", "errors", "http", "limits", "metrics",
    "operations", "protocol", "providers", "pytest", "python-client", "realtime", "request-log", "scaling", "sdks",
    "tapes", "tokens-and-keys", "tracing",
}  # fmt: skip

every_page = pytest.mark.parametrize("topic", TOPICS)


def test_the_topics_are_the_files_of_the_folder() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.md")) == TOPICS
    assert set(TOPICS) <= MANUAL


@every_page
def test_a_page_begins_with_its_title_and_one_sentence(topic: str) -> None:
    page = pages.read(topic)
    assert page.markdown.startswith(f"# {page.title}\n\n{page.summary}\n\n")
    assert len(page.summary) <= 100
    assert page.summary.endswith(".")


@every_page
def test_the_generated_tables_of_a_page_are_fresh(topic: str) -> None:
    markdown = pages.read(topic).markdown
    assert tables.fill(markdown) == markdown, "run: python -m bridge.docs"
    assert markdown.count("<!-- ") == 2 * len(tables.names_in(markdown)), "a marker that no table belongs to"


@every_page
def test_every_link_of_a_page_leads_to_a_page(topic: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", pages.read(topic).markdown):
        page, _, section = target.partition("#")
        if "://" in target:
            continue
        assert page.removesuffix(".md") in MANUAL or not page, target
        if section and (page.removesuffix(".md") or topic) in TOPICS:
            assert section in sections(page.removesuffix(".md") or topic), target


def sections(topic: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", pages.read(topic).markdown, re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", head).strip().lower().replace(" ", "-") for head in headings}


def test_a_table_is_replaced_between_its_markers() -> None:
    page = "# T\n\n<!-- table: token-keys -->\n| old |\n<!-- /table -->\n\nend\n"
    filled = tables.fill(page)
    assert "| old |" not in filled
    assert "| `token` | required |" in filled
    assert filled.startswith("# T\n\n<!-- table: token-keys -->\n| key |")
    assert filled.endswith("|\n<!-- /table -->\n\nend\n")
    assert tables.fill(filled) == filled


def test_the_text_of_a_page_has_no_markers() -> None:
    text = pages.read("errors").text
    assert "<!--" not in text
    assert "| 2001 |" in text
