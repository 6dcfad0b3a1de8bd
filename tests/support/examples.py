"""Find the examples in the documentation: the fenced code blocks of its pages."""

import re

from bridge.docs import pages


def blocks(topic: str, language: str) -> list[str]:
    """Return the code blocks of one language on a page."""
    return [text for found, text in all_blocks(pages.read(topic).markdown) if found == language]


def all_blocks(markdown: str) -> list[tuple[str, str]]:
    """Return the language and the text of each code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)


def text_of(topic: str) -> str:
    """Return a page as one line, for sentences that may be wrapped anywhere."""
    return " ".join(pages.read(topic).markdown.split())
