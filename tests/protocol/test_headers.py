"""Headers that may be sent, and those that stay here."""

import msgspec
import pytest

from bridge.errors import BadField, TooLarge
from bridge.formats.json_spans import ABSENT
from bridge.protocol.headers import (
    check_size,
    forwarded_headers,
    headers_in,
    names_a_proxy,
    request_headers,
    validate_headers,
)


def read(text: str) -> dict[str, str]:
    return headers_in(msgspec.Raw(text.encode()), "headers", 32_768)


@pytest.mark.parametrize("span", [ABSENT, msgspec.Raw(b"null"), msgspec.Raw(b"{}")])
def test_none_are_none(span: msgspec.Raw) -> None:
    assert headers_in(span, "headers", 32_768) == {}


@pytest.mark.parametrize("name", ["X-API-Key", "x", "0", "a_b", "!#$%&'*+-.^_`|~", "Anthropic-Version"])
def test_a_token_is_a_name_and_comes_in_lower_case(name: str) -> None:
    assert read(f'{{"{name}":"v"}}') == {name.lower(): "v"}


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", ":authority", "a\\n", "a\\r\\nb", "\\u0000", "a/b", "é", "(a)", "\u212a"]
)
def test_anything_else_is_no_name(name: str) -> None:
    with pytest.raises(BadField, match=r"^headers: .* is not a valid header name"):
        read(f'{{"{name}":"v"}}')


@pytest.mark.parametrize("value", ["", " ", "a b", "é", "😀", "\t", 'a,b;c=\\"d\\"', "\\u0001", "x" * 30_000])
def test_nearly_any_text_is_a_value(value: str) -> None:
    assert read(f'{{"a":"{value}"}}'.replace("\t", "\\t")) == {
        "a": msgspec.json.decode(f'"{value}"'.replace("\t", "\\t"))
    }


@pytest.mark.parametrize("value", ["\\n", "a\\nb", "\\r", "\\r\\nx: y", "\\u0000", "a\\u000a", "\\u000D"])
def test_no_value_begins_another_line(value: str) -> None:
    with pytest.raises(BadField, match=r"^headers\.x-y: .*CR, LF or NUL"):
        read(f'{{"x-y":"{value}"}}')


def test_a_fault_never_repeats_a_value() -> None:
    with pytest.raises(BadField) as raised:
        read('{"authorization":"Bearer secret\\n"}')
    assert "secret" not in str(raised.value)


def test_a_fault_does_not_grow_with_the_name() -> None:
    for text in (f'{{"{"x" * 10_000} ":"v"}}', f'{{"{"x" * 10_000}":"\\n"}}', f'{{"{"x" * 10_000}":[]}}'):
        with pytest.raises(BadField) as raised:
            read(text)
        assert len(str(raised.value)) < 200


def test_headers_of_other_origin_are_checked_alike() -> None:
    assert validate_headers([("A", "b")], "here") == {"a": "b"}
    with pytest.raises(BadField, match=r"^here\.A: "):
        validate_headers([("A", "\n")], "here")


HOP_BY_HOP = ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"]
PROXIES = ["proxy-authorization", "proxy-authenticate", "proxy-connection", "proxy-anything"]
SOCKETS = ["sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions"]
OURS = ["host", "content-length", "expect", "accept-encoding"]
SETTINGS = ["cf-aig-authorization", "cf-aig-max-attempts", "cf-aig-anything", "cf-cache-ttl", "cf-skip-cache"]


@pytest.mark.parametrize("name", [*HOP_BY_HOP, *PROXIES, *SOCKETS, *OURS, *SETTINGS])
def test_what_is_for_this_hop_or_for_the_bridge_is_not_forwarded(name: str) -> None:
    assert forwarded_headers({name: "x", "x-other": "y"}) == {"x-other": "y"}


KEYS = ["authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"]
NEARLY = ["cf-ray", "cf-aigx", "proxy", "hosts", "content-encoding", "accept", "connections", "x-forwarded-for"]


@pytest.mark.parametrize("name", [*KEYS, *NEARLY, "content-type", "user-agent", "anthropic-version"])
def test_all_else_is(name: str) -> None:
    assert forwarded_headers({name: "x"}) == {name: "x"}


@pytest.mark.parametrize("listed", ["x-hop", "X-HOP", "close, X-Hop", " x-hop ,keep-alive", "x-hop,", ",,x-hop"])
def test_what_connection_lists_is_for_this_hop(listed: str) -> None:
    assert forwarded_headers({"connection": listed, "x-hop": "1", "x-other": "2"}) == {"x-other": "2"}


def test_their_size_is_that_of_names_and_values() -> None:
    check_size({"ab": "cde", "f": ""}, 2, 6, "headers")
    with pytest.raises(TooLarge, match=r"^headers: 6 bytes of headers; at most 5 are allowed$"):
        check_size({"ab": "cde", "f": ""}, 2, 5, "headers")
    with pytest.raises(TooLarge, match=r"^headers: 2 headers; at most 1 are allowed$"):
        check_size({"ab": "cde", "f": ""}, 1, 6, "headers")


# Bytes that are no UTF-8, as aiohttp hands them over.

LATIN_1 = b"caf\xe9".decode("utf-8", "surrogateescape")


def test_a_header_for_the_provider_that_is_no_utf_8_is_refused_by_name() -> None:
    with pytest.raises(BadField, match=r"^headers\.x-title: the value is not valid UTF-8"):
        request_headers([("X-Title", LATIN_1)], "headers")


@pytest.mark.parametrize("name", ["Cookie", "Referer", "X-Forwarded-User"])
def test_one_that_stays_here_refuses_no_request(name: str) -> None:
    assert request_headers([(name, LATIN_1), ("x-a", "é")], "headers") == {name.lower(): "café", "x-a": "é"}


@pytest.mark.parametrize("name", ["cf-aig-max-attempts", "cf-aig-authorization", "user-agent", "x-amzn-bedrock-trace"])
def test_a_header_of_a_client_is_none_of_a_proxy(name: str) -> None:
    assert not names_a_proxy([name])


@pytest.mark.parametrize("name", ["cf-ray", "x-forwarded-port", "fly-region", "true-client-ip", "x-amzn-trace-id"])
def test_a_header_that_proxies_add_shows_one(name: str) -> None:
    assert names_a_proxy(["host", name])
