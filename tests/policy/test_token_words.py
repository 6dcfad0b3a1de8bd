"""Words of a text that could be a token."""

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
def test_a_word_is_found_plain_and_decoded(text: str, word: str) -> None:
    assert word in token_words(text)


def test_an_empty_text_has_no_words() -> None:
    assert token_words("") == set()


@pytest.mark.parametrize("text", ["a", "ab,", "%41", "a=", "a.b/c:d ", "QUJDRA== "])
def test_the_size_of_all_words_is_linear_in_the_text(text: str) -> None:
    """Many different short words and one very long word are the worst cases."""
    short, long = (sum(map(len, token_words(text * count))) for count in (1_000, 2_000))
    assert long <= 2 * short + 100
    distinct = " ".join(f"{text}{number}" for number in range(4_000))
    assert sum(map(len, token_words(distinct))) <= 20 * len(distinct)
