"""The model of a request, read as the provider reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.formats import request_fields
from bridge.formats.request_fields import MAX_FORM_FIELDS, MAX_REWRITTEN_BYTES, model_in

PLAIN = '{"model":"gpt-x","messages":[]}'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(PLAIN.encode(), id="plain"),
        pytest.param(b"\xef\xbb\xbf" + PLAIN.encode(), id="byte order mark"),
        pytest.param(PLAIN.encode("utf-16"), id="utf-16 with its mark"),
        pytest.param(PLAIN.encode("utf-16-le"), id="utf-16-le"),
        pytest.param(PLAIN.encode("utf-16-be"), id="utf-16-be"),
        pytest.param(PLAIN.encode("utf-32"), id="utf-32"),
        pytest.param(b'{"messages":["hi \\ud83d"],"model":"gpt-x"}', id="half an emoji"),
        pytest.param(b'{"temperature":NaN,"model":"gpt-x"}', id="NaN"),
        pytest.param(b'{"a":[Infinity,-Infinity,"NaN \\"N"],"model":"gpt-x","I":1}', id="Infinity"),
        pytest.param(b'{"a":NaN,"b":"\\ud83d","model":"gpt-x"}', id="NaN and half an emoji"),
        pytest.param(b'{"model":"cheap","model":"gpt-x"}', id="twice: the last one counts"),
        pytest.param(b'{"mod\\u0065l":"gpt-x"}', id="escaped name"),
        pytest.param(b'{"Model":"gpt-x"}', id="a name in another case, as Go reads it"),
        pytest.param(b'{"model":"gpt-x","MODEL":"gpt-x"}', id="the same in two cases"),
        pytest.param(b'{"messages":["\xff"],"model":"gpt-x"}', id="broken UTF-8 elsewhere"),
        pytest.param(b'{"model_id":"gpt-x"}', id="model_id"),
        pytest.param(b'{"model_id":"other","model":"gpt-x"}', id="model before model_id"),
        pytest.param(b'\r\n {"n":' + b"9" * 5000 + b',"model":"gpt-x"}', id="a number of 5,000 digits"),
    ],
)
def test_the_model_is_read_whenever_a_provider_can_read_it(body: bytes) -> None:
    assert model_in(body, "application/json") == "gpt-x"
    assert model_in(body) == "gpt-x"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"model":7}',
        b'{"model":null}',
        b'{"model":""}',
        b'{"a":{"model":"inner"}}',
        b'{"model":"one","MODEL":"other"}',
        b'{"model":"gpt-x"',
        b'{"model":"\xff"}',
        b'"NaN',
        b"\xff\xfe{",
        b"\x00\xd8\x00\xd8",
        b'{"a":' + b"[" * 100_000,
    ],
)
def test_an_ambiguous_body_names_no_model(body: bytes) -> None:
    assert model_in(body) is None


def form(*parts: tuple[str, bytes], boundary: str = "X", ends: str = "--\r\n") -> bytes:
    body = b"preamble\r\n"
    for head, value in parts:
        body += b"--" + boundary.encode() + b"\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"
    return body + b"--" + boundary.encode() + ends.encode()


FILE = ('Content-Disposition: form-data; name="file"; filename="name=model"\r\nContent-Type: audio/wav', b"\x00" * 5000)
MODEL = ('Content-Disposition: form-data; name="model"', b"whisper-1")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(FILE, MODEL), "multipart/form-data; boundary=X"),
        (form(MODEL, FILE), 'Multipart/Form-Data; charset=utf-8; boundary="X"'),
        (form(("content-disposition: form-data; name=model", b"whisper-1")), "multipart/form-data;boundary=X"),
        (
            form(('Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"', b" whisper-1 ")),
            "multipart/form-data; boundary=X",
        ),
        (form(FILE, MODEL, ends=""), "multipart/form-data; boundary=X"),
        (
            form(FILE, ('Content-Disposition: form-data; name="model_id"', b"whisper-1")),
            "multipart/form-data; boundary=X",
        ),
        (b"prompt=a%20b&model=whisper-1", "application/x-www-form-urlencoded"),
        (b'{"model":"whisper-1"}', "application/x-www-form-urlencoded"),
    ],
)
def test_the_model_is_a_field_of_a_form(body: bytes, content_type: str) -> None:
    assert model_in(body, content_type) == "whisper-1"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(FILE), "multipart/form-data; boundary=X"),
        (form(MODEL), "multipart/form-data"),
        (form(MODEL), "multipart/form-data; boundary=Y"),
        (form(MODEL, (MODEL[0], b"other")), "multipart/form-data; boundary=X"),
        (form((MODEL[0], b"x" * 5000)), "multipart/form-data; boundary=X"),
        (form(*[FILE] * 2, *[("x", b"")] * MAX_FORM_FIELDS, MODEL), "multipart/form-data; boundary=X"),
        (b"model=a&model=b", "application/x-www-form-urlencoded"),
        (b"a&" * 5000, "application/x-www-form-urlencoded"),
    ],
)
def test_a_form_without_one_clear_model_names_none(body: bytes, content_type: str) -> None:
    assert model_in(body, content_type) is None


@pytest.mark.parametrize("data", [b"RIFF\\ud83d", b"\x00\x01\x02", b"[1]", b'"model"'])
def test_other_values_are_not_read_tolerantly(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(request_fields, "read_json", None)
    assert model_in(data) is None


def test_a_long_text_is_not_searched_for_constants() -> None:
    text = b'{"a":NaN,"b":"' + b"x" * MAX_REWRITTEN_BYTES + b'","model":"gpt-x"}'
    assert model_in(text) is None


@given(st.binary(), st.sampled_from(["", "multipart/form-data; boundary=-", "application/x-www-form-urlencoded"]))
def test_reading_never_raises(body: bytes, content_type: str) -> None:
    model_in(body, content_type)
