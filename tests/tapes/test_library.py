"""The library: whose turn it is, what an exhausted shelf gives, and which host is meant."""

from pathlib import Path

import pytest

from bridge.tapes.exchange import ReceivedHead, RecordedExchange, SentRequest, tape_exchange
from bridge.tapes.fault_injection import InvalidFault, parse_fault
from bridge.tapes.file import StreamEnd, TapeEnding
from bridge.tapes.library import Library, Miss
from bridge.tapes.matching import Matching, ReplayRequest
from tests.support.tapes import BODY, URL, chunk_data, folder_of, tape

ONE, TWO = tape(b"one"), tape(b"two")
OTHER_URL = "https://other.example.com/v1/chat?b=2&a=1"


def request_of(body: bytes = BODY, url: str = URL, **headers: str) -> ReplayRequest:
    """Underscores in a header's name stand for hyphens."""
    return ReplayRequest.of("POST", url, body, [(name.replace("_", "-"), value) for name, value in headers.items()])


def played(library: Library, times: int, **headers: str) -> list[str]:
    """What so many requests get; `miss` for one that gets nothing."""
    return [_heard(library, request_of(**headers)) for _ in range(times)]


def _heard(library: Library, request: ReplayRequest) -> str:
    try:
        taped = library.take(request)
    except Miss:
        return "miss"
    status = "" if taped.head is None or taped.head.status == 200 else f" {taped.head.status}"
    end = "" if taped.ending.end is StreamEnd.EOF else f" {taped.ending.end.value}"
    return (b"+".join(chunk_data(taped)).decode() if not status else "") + status + end


def test_an_exhausted_shelf_repeats_its_last_tape(tmp_path: Path) -> None:
    assert played(Library(folder_of(tmp_path, ONE, TWO)), 4) == ["one", "two", "two", "two"]


def test_or_it_gives_no_more(tmp_path: Path) -> None:
    library = Library(folder_of(tmp_path, ONE, TWO), exhausted="miss")
    assert played(library, 3) == ["one", "two", "miss"]
    with pytest.raises(Miss) as missed:
        library.take(request_of())
    left, last = str(missed.value).splitlines()
    assert left.endswith(f"POST {URL}")
    assert f"{tmp_path.name}/case-1.jsonl" in last


def test_a_miss_takes_no_turn(tmp_path: Path) -> None:
    library = Library(folder_of(tmp_path, ONE, TWO), exhausted="miss")
    assert _heard(library, request_of(b"{}")) == "miss"
    assert played(library, 2) == ["one", "two"]


def test_tapes_that_the_rules_make_alike_share_a_shelf(tmp_path: Path) -> None:
    tapes = (tape(b"one", body=b'{"user":"a"}'), tape(b"two", body=b'{"user":"b"}'))
    library = Library(folder_of(tmp_path, *tapes), matching=Matching(ignore_json=("$.user",)))
    assert [_heard(library, request_of(body)) for body in (b'{"user":"b"}', b"{}", b'{"user":"c"}')] == [
        "one",
        "two",
        "two",
    ]


def test_what_a_fault_breaks_off_has_not_played(tmp_path: Path) -> None:
    faults = [parse_fault("status:503:first:1"), parse_fault("reset@chunk:1:first:2")]
    library = Library(folder_of(tmp_path, ONE, TWO), exhausted="miss", faults=faults)
    assert played(library, 5) == [" 503 reset", "one reset", "one", "two", "miss"]


def test_what_a_fault_only_delays_has_played(tmp_path: Path) -> None:
    faults = [parse_fault("stall@head:1s"), parse_fault("slow:2x")]
    library = Library(folder_of(tmp_path, ONE, TWO), exhausted="miss", faults=faults)
    assert played(library, 3) == ["one", "two", "miss"]


def test_a_request_asks_for_faults_of_its_own_by_a_header(tmp_path: Path) -> None:
    library = Library(folder_of(tmp_path, ONE))
    assert played(library, 2, x_bridge_fault="reset@chunk:1, slow:2x") == ["one reset", "one reset"]
    assert played(library, 3, x_bridge_fault="status:503:first:2") == [" 503", " 503", "one"]
    assert played(library, 1) == ["one"]


def test_a_header_that_holds_no_fault_is_refused_and_takes_no_turn(tmp_path: Path) -> None:
    library = Library(folder_of(tmp_path, ONE, TWO))
    with pytest.raises(InvalidFault, match="invalid fault 'explode'"):
        library.take(request_of(x_bridge_fault="explode"))
    assert played(library, 1) == ["one"]


def test_the_header_of_faults_is_no_part_of_what_is_matched(tmp_path: Path) -> None:
    library = Library(folder_of(tmp_path, ONE), matching=Matching(match_headers=("x-bridge-fault",)))
    assert played(library, 1, x_bridge_fault="slow:2x") == ["one"]


def test_who_names_no_host_gets_the_tape_of_whichever_has_one(tmp_path: Path) -> None:
    library = Library(folder_of(tmp_path, ONE, tape(b"two", url=OTHER_URL, body=b"{}")))
    assert library.hosts == ["api.example.com", "other.example.com"]
    requests = [request_of(body, "http://any/v1/chat?a=1&b=2")._replace(any_host=True) for body in (BODY, b"{}")]
    assert [_heard(library, request) for request in requests] == ["one", "two"]


def test_who_names_no_host_is_asked_for_it_when_several_answer(tmp_path: Path) -> None:
    library = Library(folder_of(tmp_path, ONE, tape(b"two", url=OTHER_URL)))
    with pytest.raises(Miss) as missed:
        library.take(request_of(url="http://any/v1/chat?a=1&b=2")._replace(any_host=True))
    ambiguous, advice = str(missed.value).splitlines()
    assert "several hosts" in ambiguous
    assert ambiguous.endswith("POST /v1/chat?a=1&b=2")
    assert advice.endswith("x-bridge-host: api.example.com, other.example.com")
    assert [_heard(library, request_of(url=url)) for url in (URL, OTHER_URL)] == ["one", "two"]


def test_a_miss_without_a_host_compares_with_the_tapes_of_all(tmp_path: Path) -> None:
    library = Library(folder_of(tmp_path, ONE))
    with pytest.raises(Miss) as missed:
        library.take(request_of(url="http://any/v1/chat?a=1&b=3")._replace(any_host=True))
    assert str(missed.value).splitlines() == [
        "No tape for POST /v1/chat?a=1&b=3",
        f"The nearest is {tmp_path.name}/case-0.jsonl; sent ≠ taped:",
        '  query.b: "3" ≠ "2"',
    ]
    with pytest.raises(Miss, match=r"No tape for this path; there are tapes for:\n  api\.example\.com/v1/chat"):
        library.take(request_of(url="http://any/v1/chats")._replace(any_host=True))


def test_a_miss_shows_only_differences_that_count(tmp_path: Path) -> None:
    rules = Matching(ignore_query=("b",), ignore_json=("$.model",), match_headers=("x-tenant",))
    library = Library(folder_of(tmp_path, tape(headers={"X-Tenant": "t"})), matching=rules)
    with pytest.raises(Miss) as missed:
        library.take(request_of(BODY.replace(b"small", b"large"), URL.replace("b=2", "b=3"), x_tenant="u"))
    assert str(missed.value).splitlines()[2:] == ['  headers.x-tenant: "u" ≠ "t"']


def test_a_request_matches_the_tape_on_which_its_secrets_are_masked(tmp_path: Path) -> None:
    body = b'{"api_key":"%s","n":1}'
    library = Library(folder_of(tmp_path, tape(b"one", body=body % (b"*" * 16))))
    assert _heard(library, request_of(body % b"0123456789abcdef")) == "one"
    assert _heard(library, request_of(b'{"api_key":"0123456789abcdef","n":2}')) == "miss"


def test_a_request_finds_the_recording_that_was_made_of_it_secrets_and_all(tmp_path: Path) -> None:
    url = "https://api.example.com/v1/chat?key=0123456789abcdef&n=1"
    headers = [("authorization", "Bearer correct-horse-7"), ("content-type", "application/json")]
    body = b'{"note":"I was told correct-horse-7","password":"battery-staple-9"}'
    exchange = RecordedExchange(
        SentRequest("POST", url, headers, body), ReceivedHead(200, [], 1), [(2, b"one")], TapeEnding(end=StreamEnd.EOF)
    )
    recorded = tape_exchange(exchange)
    assert b"horse" not in recorded.request.body
    library = Library(folder_of(tmp_path, recorded), matching=Matching(match_headers=("authorization",)))
    assert _heard(library, ReplayRequest.of("POST", url, body, headers)) == "one"
    assert _heard(library, ReplayRequest.of("POST", url.replace("n=1", "n=2"), body, headers)) == "miss"
