"""Known secrets are found in linear time whatever their number, and also where only a part is echoed."""

import json
import time
from base64 import b64encode

import pytest

from bridge.redact.known_secrets import MAX_SECRET_CHARS, MAX_SECRETS, KnownSecrets
from bridge.relay.summary import SentSecrets as Carried
from bridge.services.secret_scrubbing import known_secrets_of, scrub_reason
from bridge.tapes.exchange import ReceivedHead, RecordedExchange, SentRequest, tape_exchange
from bridge.tapes.file import StreamEnd, TapeEnding
from bridge.tapes.socket_exchange import SessionRedactor

KEY = "sk-proj-Zq81xvTnW30bLp5Kd92mRf"


def secrets(count: int) -> list[str]:
    return [f"secret-{number:05d}-of-many" for number in range(count)]


def test_the_maximum_number_of_secrets_is_found() -> None:
    known = KnownSecrets(secrets(MAX_SECRETS))
    body = " ".join(secrets(MAX_SECRETS)).encode()
    assert not known.has_too_many
    assert set(known.mask(body)) == set(b"* ")


def test_the_whole_body_is_masked_if_there_are_too_many_secrets() -> None:
    known = KnownSecrets(secrets(MAX_SECRETS + 1))
    assert known.has_too_many
    assert known.mask(b"a body without any") == b"*" * 18
    assert KnownSecrets(["a" * MAX_SECRET_CHARS + "1", "b" * 9]).mask(b"x") == b"*"


def test_the_longest_secrets_are_masked_in_headers() -> None:
    known = KnownSecrets([*secrets(MAX_SECRETS), KEY])
    assert known.mask_line(f"got {KEY}".encode()) == b"got " + b"*" * len(KEY)


def test_the_beginning_of_a_token_is_masked_wherever_it_was_cut_off() -> None:
    text = f'{{"error":"Incorrect API key provided: {KEY[:20]}…","code":1}}'.encode()
    masked = KnownSecrets([KEY]).mask(text)
    assert (len(masked), KEY[:9].encode() in masked) == (len(text), False)
    assert json.loads(masked)["code"] == 1


def test_the_common_beginning_of_a_providers_keys_is_not_masked() -> None:
    text = b"an OpenAI key begins with sk-proj-, an Anthropic key with sk-ant-api03-"
    assert KnownSecrets([KEY, "sk-ant-api03-9s8d7f6g5h4j3k2l1"]).mask(text) == text


def test_a_text_that_begins_like_a_secret_is_not_masked() -> None:
    text = b"https://example.com/this/is/public"
    assert KnownSecrets(["https://example.com/this/is/private?a=b"]).mask(text) == text


@pytest.mark.parametrize("ends", ['\\"', "\\n", "é", "\\u0026"])
def test_json_stays_json_where_a_masked_part_ends_before_an_escape(ends: str) -> None:
    secret = 'a-long-enough-secret-"ê&-and-so-on-until-it-has-more-characters-than-one-needs-1'
    text = '"' + json.dumps(secret, ensure_ascii=False)[1:-1][:70] + ends + '"'
    json.loads(KnownSecrets([secret]).mask(text.encode()))


@pytest.mark.parametrize("shift", range(3))
def test_a_secret_in_base64_is_found(shift: int) -> None:
    coded = b64encode(b"x" * shift + KEY.encode() + b"yz")
    assert KnownSecrets([KEY]).mask(coded) != coded


def test_the_longest_of_several_matching_secrets_is_masked() -> None:
    nested = ["password-1", "password-123", "password-12345"]
    assert KnownSecrets(nested).mask(b"password-12345 password-123 password-1!") == b"*" * 14 + b" " + b"*" * 12 + (
        b" " + b"*" * 10 + b"!"
    )


HOSTILE = {
    "one secret of one letter": (["a" * 40 + "b"], "a"),
    "secrets of one letter": (["a" * (20 + number) + "b" for number in range(64)], "a"),
    "long secrets of one letter": (["a" * 15_000 + f"b{number}" for number in range(4)], "a"),
    "secrets within each other": (["a1" * (3 + number) for number in range(64)], "a1"),
    "sixty-four secrets": (secrets(64), "secret-0"),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_twice_the_text_takes_a_search_at_most_three_times_as_long(hostile: tuple[list[str], str]) -> None:
    text, unit = hostile
    known = KnownSecrets(text)
    body = (unit * (1 << 17))[: 1 << 17].encode()
    assert any(_cpu_s(known, body) <= 3 * _cpu_s(known, body[: 1 << 16]) + 0.02 for _ in range(5))


def test_sixty_four_secrets_take_a_search_no_longer_than_a_few_times_as_long_as_four() -> None:
    body = json.dumps(["some words that stand in a body " * 8] * 128).encode()
    few, many = KnownSecrets(secrets(8)), KnownSecrets(secrets(64))
    assert any(_cpu_s(many, body) <= 5 * _cpu_s(few, body) + 0.02 for _ in range(5))


def _cpu_s(known: KnownSecrets, body: bytes) -> float:
    began = time.thread_time()
    known.mask(body)
    return time.thread_time() - began


# Sources of secrets.


def exchange(
    headers: list[tuple[str, str]], body: bytes, answer: bytes, answered: list[tuple[str, str]]
) -> RecordedExchange:
    sent = SentRequest("POST", "https://api.example.com/v1/chat", headers, body)
    return RecordedExchange(sent, ReceivedHead(200, answered, 1), [(2, answer)], TapeEnding(end=StreamEnd.EOF))


def test_a_long_header_of_one_letter_is_parsed_in_linear_time() -> None:
    """A quadratic pattern would need more than ten seconds for each."""
    began = time.thread_time()
    tape_exchange(exchange([("x-api-key", "a" * 60_000)], b"{}", b"{}", [("set-cookie", "a" * 60_000)]))
    known_secrets_of((Carried({"x-api-key": "a" * 32_000, "x-secret": "?" * 32_000}, "?" * 8_000, None),))
    assert time.thread_time() - began < 5


def test_thousands_of_secret_fields_mask_the_bodies_of_their_exchange() -> None:
    body = json.dumps([{"key": f"value-{number:04d}-of-key-fields"} for number in range(6_000)]).encode()
    tape = tape_exchange(exchange([], body, b"value-0001", []))
    assert set(tape.request.body) == set(tape.chunks[0].data) == {ord("*")}


def test_header_values_with_thousands_of_parts_mask_the_summary_of_the_event() -> None:
    headers = {"x-api-key": ":".join(f"{number:06d}" for number in range(4_000))}
    known = known_secrets_of(tuple(Carried(headers | {"x-secret": f"{step:07d}"}, "", None) for step in range(5)))
    assert known.has_too_many
    assert scrub_reason("the provider said 000001", known) == "*" * 24


def test_a_session_that_names_too_many_secrets_masks_its_messages() -> None:
    redactor = SessionRedactor(SentRequest("GET", "wss://api.example.com/v1", [], b""))
    for number in range(MAX_SECRETS + 1):
        redactor.text(json.dumps({"api_key": f"value-{number:04d}"}).encode())
    assert set(redactor.text(b'{"a": 1}')) == {ord("*")}
