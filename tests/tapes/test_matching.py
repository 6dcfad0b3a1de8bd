"""Matching: how alike a request and a tape have to be, strictly and by rules."""

from dataclasses import FrozenInstanceError

import pytest

from bridge.tapes.json_path import InvalidPath
from bridge.tapes.matching import STRICT, InvalidUrl, Matching, ReplayRequest

URL = "https://api.example.com/v1/chat"
JSON = {"content-type": "application/json"}


def request_of(body: bytes = b"{}", query: str = "", **headers: str) -> ReplayRequest:
    """Underscores in a header's name stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ReplayRequest.of("POST", URL + query, body, named.items())


def are_alike(one: ReplayRequest, other: ReplayRequest, matching: Matching) -> bool:
    return matching.key(one) == matching.key(other)


@pytest.mark.parametrize(
    ("matching", "one", "other"),
    [
        (Matching(ignore_query=("seed",)), request_of(query="?seed=1&a=1"), request_of(query="?a=1&seed=2")),
        (Matching(ignore_query=("seed",)), request_of(query="?seed=1"), request_of()),
        (Matching(ignore_query=("a", "b[]")), request_of(query="?a=1&b%5B%5D=2&b[]=3&c=4"), request_of(query="?c=4")),
        (Matching(ignore_json=("$.user",)), request_of(b'{"user":"a","n":1}'), request_of(b'{"n":1}')),
        (
            Matching(ignore_json=("$.metadata.user_id", "$.messages[*].id")),
            request_of(b'{"metadata":{"user_id":"a"},"messages":[{"id":1,"text":"x"},{"id":2}]}'),
            request_of(b'{"messages":[{"text":"x"},{"id":9}],"metadata":{"user_id":7}}'),
        ),
        (Matching(ignore_json=("$.a[0]",)), request_of(b'{"a":[1,2]}'), request_of(b'{"a":["one",2]}')),
        (Matching(ignore_json=("$",)), request_of(b'{"a":1}'), request_of(b"[2]")),
        (Matching(match_headers=("X-Tenant",)), request_of(x_tenant="t"), request_of(x_tenant="t", x_trace="7")),
        (Matching(match_headers=("x-tenant",)), request_of(), request_of()),
        (
            Matching(match_headers=("authorization",)),
            request_of(authorization="Bearer key-of-the-recording"),
            request_of(authorization="Bearer key-of-the-caller"),
        ),
    ],
)
def test_what_the_rules_let_differ_may_differ(matching: Matching, one: ReplayRequest, other: ReplayRequest) -> None:
    assert are_alike(one, other, matching)


@pytest.mark.parametrize(
    ("matching", "one", "other"),
    [
        (STRICT, request_of(query="?seed=1"), request_of(query="?seed=2")),
        (STRICT, request_of(b'{"n":1}'), request_of(b'{"n":1.0}')),
        (Matching(ignore_query=("seed",)), request_of(query="?seed=1&a=1"), request_of(query="?seed=1&a=2")),
        (Matching(ignore_query=("seed",)), request_of(query="?SEED=1"), request_of()),
        (Matching(ignore_json=("$.user",)), request_of(b'{"user":"a","n":1}'), request_of(b'{"user":"a","n":2}')),
        (Matching(ignore_json=("$.user",)), request_of(b'{"deep":{"user":1}}'), request_of(b'{"deep":{}}')),
        (Matching(ignore_json=("$.a[*]",)), request_of(b'{"a":[1,2]}'), request_of(b'{"a":[1]}')),
        (Matching(ignore_json=("$",)), request_of(b"\xff"), request_of(b"\xfe")),
        (Matching(match_headers=("x-tenant",)), request_of(x_tenant="t"), request_of(x_tenant="u")),
        (Matching(match_headers=("x-tenant",)), request_of(x_tenant="t"), request_of()),
        (
            Matching(match_headers=("authorization",)),
            request_of(authorization="Bearer a"),
            request_of(authorization="Basic a"),
        ),
    ],
)
def test_all_else_has_to_be_alike(matching: Matching, one: ReplayRequest, other: ReplayRequest) -> None:
    assert not are_alike(one, other, matching)


def test_headers_do_not_count_unless_a_rule_names_them() -> None:
    assert are_alike(request_of(user_agent="one"), request_of(user_agent="two", accept="*/*"), STRICT)


def test_the_boundary_of_a_multipart_body_means_nothing() -> None:
    def upload(boundary: str, text: str = "hello") -> ReplayRequest:
        body = f'--{boundary}\r\ncontent-disposition: form-data; name="file"\r\n\r\n{text}\r\n--{boundary}--\r\n'
        return request_of(body.encode(), content_type=f'multipart/form-data; charset=utf-8; boundary="{boundary}"')

    assert are_alike(upload("4f2a"), upload("-----9c1b"), STRICT)
    assert not are_alike(upload("4f2a"), upload("4f2a", "goodbye"), STRICT)


def test_a_host_is_named_with_its_port_unless_that_is_the_schemes_own() -> None:
    urls = ("https://h.example:443/", "http://h.example:80/", "https://h.example:8443/")
    assert [ReplayRequest.of("GET", url, b"").host for url in urls] == ["h.example", "h.example", "h.example:8443"]


def test_an_invalid_rule_is_refused_on_creation() -> None:
    with pytest.raises(InvalidPath, match=r"invalid JSON path 'metadata\.user_id'"):
        Matching(ignore_json=("$.fine", "metadata.user_id"))


def test_rules_are_a_value() -> None:
    rules = Matching(ignore_query=("seed",))
    assert rules == Matching(ignore_query=("seed",))
    assert hash(rules) != hash(STRICT)
    with pytest.raises(FrozenInstanceError):
        rules.ignore_query = ()  # type: ignore[misc]  # that is what is tried here


@pytest.mark.parametrize("url", ["http://[::1/", "http://h/\x00", "http://h/" + "x" * 70_000])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl, match="Invalid URL"):
        ReplayRequest.of("GET", url, b"")
