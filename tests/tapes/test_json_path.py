"""Paths into JSON: what they may be, and what they lead to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.tapes.json_path import Every, InvalidPath, parse_path, without


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("$", ()),
        ("$.user", ("user",)),
        ("$.metadata.user_id", ("metadata", "user_id")),
        ("$.messages[0]", ("messages", 0)),
        ("$.messages[*].id", ("messages", Every.ELEMENT, "id")),
        ("$[*][12]", (Every.ELEMENT, 12)),
        ("$.x-trace.größe.$ref", ("x-trace", "größe", "$ref")),
    ],
)
def test_a_path_is_read(text: str, path: object) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with $"),
        ("metadata.user_id", "must begin with $"),
        ("$metadata", "after '$'"),
        ("$.", "after '$'"),
        ("$..id", "after '$'"),
        ("$.a.b ", "after '$.a.b'"),
        ("$.a[", "after '$.a'"),
        ("$.a[-1]", "after '$.a'"),
        ("$.a[1:2]", "after '$.a'"),
        ("$.a['b']", "after '$.a'"),
        ("$.a.*", "after '$.a'"),
        ("$.a[\N{ARABIC-INDIC DIGIT ONE}]", "after '$.a'"),
    ],
)
def test_an_invalid_path_is_refused_with_the_position(text: str, words: str) -> None:
    with pytest.raises(InvalidPath, match="invalid JSON path") as refused:
        parse_path(text)
    assert words in str(refused.value)


@given(st.text() | st.from_regex(r"\$([.\[\]*a-z0-9])*", fullmatch=True))
def test_any_text_is_a_path_or_is_refused(text: str) -> None:
    try:
        path = parse_path(text)
    except InvalidPath:
        return
    without({"a": [{"b": 1}]}, path)


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("$", None),
        ("$.user", {"list": [{"id": 1, "x": 2}, {"id": 3}, "text"], "deep": {"er": {"id": 4}}}),
        ("$.deep.er.id", {"user": "u", "list": [{"id": 1, "x": 2}, {"id": 3}, "text"], "deep": {"er": {}}}),
        ("$.list[*].id", {"user": "u", "list": [{"x": 2}, {}, "text"], "deep": {"er": {"id": 4}}}),
        ("$.list[1].id", {"user": "u", "list": [{"id": 1, "x": 2}, {}, "text"], "deep": {"er": {"id": 4}}}),
        ("$.list[1]", {"user": "u", "list": [{"id": 1, "x": 2}, None, "text"], "deep": {"er": {"id": 4}}}),
        ("$.list[*]", {"user": "u", "list": [None, None, None], "deep": {"er": {"id": 4}}}),
    ],
)
def test_the_selected_parts_are_removed(path: str, left: object) -> None:
    value = {"user": "u", "list": [{"id": 1, "x": 2}, {"id": 3}, "text"], "deep": {"er": {"id": 4}}}
    assert without(value, parse_path(path)) == left


@pytest.mark.parametrize("path", ["$.gone", "$.a.gone.b", "$.list[7]", "$.list.id", "$[0]", "$.a[*]", "$.a.b.c"])
def test_a_path_that_leads_nowhere_takes_nothing_out(path: str) -> None:
    value = {"a": {"b": 1}, "list": [1]}
    assert without(value, parse_path(path)) == {"a": {"b": 1}, "list": [1]}


def test_a_number_is_an_index_of_a_list_and_no_name_of_a_member() -> None:
    assert without({"0": 1}, parse_path("$[0]")) == {"0": 1}
    assert without([1], parse_path("$.0")) == [1]
