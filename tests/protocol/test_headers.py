"""Check request headers, and select those that are forwarded."""

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
def test_missing_headers_are_empty(span: msgspec.Raw) -> None:
    assert headers_in(span, "headers", 32_768) == {}


@pytest.mark.parametrize("name", ["X-API-Key", "x", "0", "a_b", "!#$%&'*+-.^_`|~", "Anthropic-Version"])
def test_a_token_is_a_valid_name_and_is_lowered(name: str) -> None:
    assert read(f'{{"{name}":"v"}}') == {name.lower(): "v"}


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", ":authority", "a\\n", "a\\r\\nb", "\\u0000", "a/b", "é", "(a)", "\u212a"]
)
def test_other_text_is_not_a_valid_name(name: str) -> None:
    with pytest.raises(BadField, match=r"^headers: .* is not a valid header name"):
        read(f'{{"{name}":"v"}}')


@pytest.mark.parametrize("value", ["", " ", "a b", "é", "😀", "\t", 'a,b;c=\\"d\\"', "\\u0001", "x" * 30_000])
def test_nearly_any_text_is_a_valid_value(value: str) -> None:
    assert read(f'{{"a":"{value}"}}'.replace("\t", "\\t")) == {
        "a": msgspec.json.decode(f'"{value}"'.replace("\t", "\\t"))
    }


@pytest.mark.parametrize("value", ["\\n", "a\\nb", "\\r", "\\r\\nx: y", "\\u0000", "a\\u000a", "\\u000D"])
def test_no_value_contains_a_line_break(value: str) -> None:
    with pytest.raises(BadField, match=r"^headers\.x-y: .*CR, LF or NUL"):
        read(f'{{"x-y":"{value}"}}')


def test_an_error_never_repeats_a_value() -> None:
    with pytest.raises(BadField) as raised:
        read('{"authorization":"Bearer secret\\n"}')
    assert "secret" not in str(raised.value)


def test_the_length_of_an_error_does_not_depend_on_the_name() -> None:
    for text in (f'{{"{"x" * 10_000} ":"v"}}', f'{{"{"x" * 10_000}":"\\n"}}', f'{{"{"x" * 10_000}":[]}}'):
        with pytest.raises(BadField) as raised:
            read(text)
        assert len(str(raised.value)) < 200


def test_headers_from_other_sources_are_checked_alike() -> None:
    assert validate_headers([("A", "b")], "here") == {"a": "b"}
    with pytest.raises(BadField, match=r"^here\.A: "):
        validate_headers([("A", "\n")], "here")


HOP_BY_HOP = ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"]
PROXIES = ["proxy-authorization", "proxy-authenticate", "proxy-connection", "proxy-anything"]
SOCKETS = ["sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions"]
OURS = ["host", "content-length", "expect", "accept-encoding"]
SETTINGS = ["cf-aig-authorization", "cf-aig-max-attempts", "cf-aig-anything", "cf-cache-ttl", "cf-skip-cache"]


@pytest.mark.parametrize("name", [*HOP_BY_HOP, *PROXIES, *SOCKETS, *OURS, *SETTINGS])
def test_headers_for_this_hop_or_the_bridge_are_not_forwarded(name: str) -> None:
    assert forwarded_headers({name: "x", "x-other": "y"}) == {"x-other": "y"}


KEYS = ["authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"]
NEARLY = ["cf-ray", "cf-aigx", "proxy", "hosts", "content-encoding", "accept", "connections", "x-forwarded-for"]


@pytest.mark.parametrize("name", [*KEYS, *NEARLY, "content-type", "user-agent", "anthropic-version"])
def test_other_headers_are_forwarded(name: str) -> None:
    assert forwarded_headers({name: "x"}) == {name: "x"}


@pytest.mark.parametrize("listed", ["x-hop", "X-HOP", "close, X-Hop", " x-hop ,keep-alive", "x-hop,", ",,x-hop"])
def test_headers_listed_by_connection_are_not_forwarded(listed: str) -> None:
    assert forwarded_headers({"connection": listed, "x-hop": "1", "x-other": "2"}) == {"x-other": "2"}


def test_the_size_of_headers_counts_names_and_values() -> None:
    check_size({"ab": "cde", "f": ""}, 2, 6, "headers")
    with pytest.raises(TooLarge, match=r"^headers: 6 bytes"):
        check_size({"ab": "cde", "f": ""}, 2, 5, "headers")
    with pytest.raises(TooLarge, match=r"^headers: 2 headers"):
        check_size({"ab": "cde", "f": ""}, 1, 6, "headers")


# Bytes that are not UTF-8, in the form in which aiohttp passes them on.

LATIN_1 = b"caf\xe9".decode("utf-8", "surrogateescape")


def test_a_forwarded_header_must_be_utf_8() -> None:
    with pytest.raises(BadField, match=r"^headers\.x-title: the value is not valid UTF-8"):
        request_headers([("X-Title", LATIN_1)], "headers")


@pytest.mark.parametrize("name", ["Cookie", "Referer", "X-Forwarded-User"])
def test_a_header_that_is_not_forwarded_may_be_latin_1(name: str) -> None:
    assert request_headers([(name, LATIN_1), ("x-a", "é")], "headers") == {name.lower(): "café", "x-a": "é"}


@pytest.mark.parametrize("name", ["cf-aig-max-attempts", "cf-aig-authorization", "user-agent", "x-amzn-bedrock-trace"])
def test_headers_of_clients_name_no_proxy(name: str) -> None:
    assert not names_a_proxy([name])


@pytest.mark.parametrize("name", ["cf-ray", "x-forwarded-port", "fly-region", "true-client-ip", "x-amzn-trace-id"])
def test_a_header_that_proxies_add_names_a_proxy(name: str) -> None:
    assert names_a_proxy(["host", name])
