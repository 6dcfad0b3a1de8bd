"""The words of a text that could be a token."""

import base64

import pytest

from bridge.policy.token_words import token_words


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("t0ken", "t0ken"),
        ("Bearer t0ken", "t0ken"),
        ("Bearer%20t0ken", "t0ken"),
        ("x?a=t0ken&b", "t0ken"),
        (base64.b64encode(b"user:t0ken").decode(), "t0ken"),
        ("a%253Db", "a=b"),
    ],
)
def test_a_word_is_found_as_it_stands_and_decoded(text: str, word: str) -> None:
    assert word in token_words(text)


def test_an_empty_text_has_no_words() -> None:
    assert token_words("") == set()


@pytest.mark.parametrize("text", ["a", "ab,", "%41", "a=", "a.b/c:d ", "QUJDRA== "])
def test_twice_the_text_has_at_most_about_twice_the_characters_in_its_words(text: str) -> None:
    """Many short words that differ, and one word without an end, are the extremes."""
    short, long = (sum(map(len, token_words(text * count))) for count in (1_000, 2_000))
    assert long <= 2 * short + 100
    distinct = " ".join(f"{text}{number}" for number in range(4_000))
    assert sum(map(len, token_words(distinct))) <= 20 * len(distinct)
