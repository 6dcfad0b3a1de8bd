"""Client messages: types, event ids, owners of errors; no input raises an exception."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.errors import BadField, BadMessage, TooLarge, UnknownType
from bridge.protocol.messages import Cancel, Create, EventId, MessageLimits, RejectedMessage
from tests.support.messages import create, created, quoted, read, refused

STEP = '{"provider":"openai","endpoint":"chat/completions","query":{}}'


def of_a_query(text: str) -> bytes:
    return create(f'{{"provider":"x","endpoint":"","query":{text}}}')


def identified(text: str) -> str:
    """Return a step that names the event."""
    return f'{{"provider":"openai","endpoint":"","eventId":{text}}}'


# Types.
def test_a_create_starts_an_event() -> None:
    message = created(identified('"my-request"'))
    assert message.event_id == EventId("my-request", b'"my-request"')
    assert [step.provider for step in message.steps] == ["openai"]


def test_a_cancel_names_the_event_to_stop() -> None:
    assert read(b'{"type":"universal.cancel","eventId":"a"}') == Cancel(EventId("a", b'"a"'))


def test_a_type_may_be_written_with_escapes() -> None:
    assert isinstance(read(rb'{"type":"universal\u002ecancel","eventId":1}'), Cancel)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"type":null,"eventId":"a"}',
        '{"type":"universal.Create","eventId":"a"}',
        '{"type":"universal.created","eventId":"a"}',
        '{"type":"","eventId":"a"}',
        '{"type":["universal.create"],"eventId":"a"}',
        '{"type":{"universal.create":1},"eventId":"a"}',
        '{"type":true,"eventId":"a"}',
        '{"type":1e400,"eventId":"a"}',
        f'{{"type":{"9" * 5000},"eventId":"a"}}',
        '{"type":"\\ud83d","eventId":"a"}',
    ],
)
def test_an_unknown_type_is_an_error_of_the_message_with_its_event_id(text: str) -> None:
    message = refused(text.encode())
    assert isinstance(message.error, UnknownType)
    assert not message.owned
    assert message.event_id == (EventId("a", b'"a"') if "eventId" in text else None)
    assert len(str(message.error)) < 160


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nul",
        b"[]",
        b'"universal.create"',
        b"7",
        b"null",
        b"{",
        b'{"type":"universal.create"',
        b'{"type":"universal.create"}{}',
        b"{'type':'universal.create'}",
        b'{"type":"universal.create","x":"\xff"}',
        b'{"type":"universal.create","x":"\xed\xa0\xbd"}',
        b'{"type":"universal.create","x":NaN}',
        b'{"type":"universal.create","x":"\n"}',
        b'{"type":"universal.create","x":007}',
        b'{"type":"universal.create","x":"\\u12"}',
        b'{"type":"universal.create","x":"\\ud83d","y":}',
    ],
)
def test_a_message_that_is_not_an_object_is_an_error_of_the_message(data: bytes) -> None:
    message = refused(data)
    assert isinstance(message.error, BadMessage)
    assert (message.event_id, message.owned) == (None, False)


def test_a_cancel_without_an_event_id_is_an_error_of_the_message() -> None:
    message = refused(b'{"type":"universal.cancel"}')
    assert (type(message.error), message.owned) == (BadField, False)
    assert str(message.error).startswith("eventId: ")


def test_the_later_of_two_equal_members_is_used() -> None:
    assert created(f'{{"provider":"a","endpoint":""}},"request":{STEP}').steps[0].provider == "openai"


# eventIds.
@pytest.mark.parametrize(
    ("request_", "beside", "raw"),
    [
        pytest.param(identified('"in"'), None, '"in"', id="in the request"),
        pytest.param(STEP, '"beside"', '"beside"', id="beside the type"),
        pytest.param(identified('"in"'), '"beside"', '"in"', id="in both: the request's"),
        pytest.param(identified('"both"'), '"both"', '"both"', id="the same in both"),
        pytest.param(identified("null"), '"beside"', '"beside"', id="null in the request"),
        pytest.param(identified('"in"'), "null", '"in"', id="null beside the type"),
        pytest.param(f"[{identified('1')},{identified('2')}]", None, "1", id="in the first element"),
        pytest.param(f"[{STEP},{identified('2')}]", None, "2", id="in the first element that has one"),
        pytest.param(f"[{identified('null')},{identified('2')}]", None, "2", id="null in the first element"),
        pytest.param(f"[{identified('1')}]", '"beside"', '"beside"', id="beside the type before an element's"),
        pytest.param(f'{{"eventId":"in","steps":[{identified("1")}]}}', None, '"in"', id="in the chain"),
        pytest.param(f'{{"steps":[{STEP},{identified("2")}]}}', None, "2", id="in the chain's first step with one"),
        pytest.param(f'{{"steps":[{identified("1")}]}}', '"beside"', '"beside"', id="beside the type of a chain"),
        pytest.param(STEP, None, None, id="nowhere"),
        pytest.param(identified("null"), "null", None, id="null everywhere"),
    ],
)
def test_the_event_id_is_searched_in_this_order(request_: str, beside: str | None, raw: str | None) -> None:
    message = created(request_, **({"eventId": beside} if beside else {}))
    assert (message.event_id and message.event_id.raw.decode()) == raw


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ('"a"', "a"),
        (r'"\u0061"', "a"),
        ('"1"', "1"),
        ("1", 1),
        ("0", 0),
        ("-0", 0),
        ("-7", -7),
        (str(2**90), 2**90),
        ("9" * 256, 10**256 - 1),
        ('"é"', "é"),
        ('"\u2028"', "\u2028"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"\ud83d"', "\ud83d"),
        (r'"\"\\"', '"\\'),
        (r'"\n"', "\n"),
        (quoted("x" * 256), "x" * 256),
        (f'"{"😀" * 256}"', "😀" * 256),
        (quoted("😀" * 256), "😀" * 256),
        ('"null"', "null"),
    ],
)
def test_the_event_id_is_kept_unchanged_and_compared_by_value(raw: str, key: str | int) -> None:
    assert created(STEP, eventId=f"  {raw} ").event_id == EventId(key, raw.encode())


def test_different_lone_surrogates_are_different_ids() -> None:
    first, second = (created(STEP, eventId=rf'"\u{code}"').event_id for code in ("d83d", "d83e"))
    assert first is not None
    assert second is not None
    assert first.key != second.key


@pytest.mark.parametrize(
    "raw",
    [
        '""',
        quoted("x" * 257),
        quoted("😀" * 257),
        "9" * 257,
        "9" * 5000,
        "-" + "9" * 256,
        "1.0",
        "1.5",
        "1e2",
        "1e400",
        "true",
        "false",
        "[]",
        '["a"]',
        '{"a":1}',
        quoted("x" * 100_000),
    ],
)
@pytest.mark.parametrize("type_", ["create", "cancel"])
def test_other_values_are_not_valid_event_ids(type_: str, raw: str) -> None:
    message = refused(f'{{"type":"universal.{type_}","eventId":{raw},"request":{STEP}}}'.encode())
    assert isinstance(message.error, BadField)
    assert str(message.error).startswith("eventId: expected ")
    assert (message.event_id, message.owned) == (None, False)


@pytest.mark.parametrize(
    "rest",
    [
        '"request":null',
        '"request":{"provider":7}',
        '"request":[5]',
        '"request":{"steps":"x"}',
        '"request":{"provider":"x","endpoint":"","headers":{"a":null}}',
        '"request":{"provider":"x","endpoint":"","config":[]}',
    ],
)
def test_an_error_after_a_readable_event_id_belongs_to_the_event(rest: str) -> None:
    message = refused(f'{{"type":"universal.create",{rest},"eventId":"a"}}'.encode())
    assert isinstance(message.error, BadField)
    assert (message.event_id, message.owned) == (EventId("a", b'"a"'), True)


def test_an_error_of_an_event_without_an_id_belongs_to_the_event() -> None:
    message = refused(create("{}"))
    assert (message.event_id, message.owned) == (None, True)


# Limits.
def test_a_message_may_be_as_long_as_the_limit() -> None:
    data = create(identified('"a"'))
    assert isinstance(read(data, limits=MessageLimits(max_message_bytes=len(data))), Create)
    message = refused(data, MessageLimits(max_message_bytes=len(data) - 1))
    assert isinstance(message.error, TooLarge)
    assert (message.event_id, message.owned) == (EventId("a", b'"a"'), True)


@pytest.mark.parametrize(("extra", "is_taken"), [(0, True), (1, False)])
def test_a_message_may_nest_as_deep_as_the_limit(extra: int, is_taken: bool) -> None:
    levels = 512 - 2 + extra  # the message and the request are two
    message = read(create(f'{{"eventId":"a","provider":"x","endpoint":"","query":{"[" * levels}{"]" * levels}}}'))
    if is_taken:
        assert isinstance(message, Create)
    else:
        assert isinstance(message, RejectedMessage)
        assert isinstance(message.error, TooLarge)
        assert (message.event_id, message.owned) == (EventId("a", b'"a"'), True)


@pytest.mark.parametrize("levels", [900, 1_000, 5_000, 1_000_000])
@pytest.mark.parametrize(
    "members",
    [
        '"eventId":"a","provider":"x","endpoint":"","query":{0}',
        '"eventId":"a","config":{{"x":{0}}}',
        '"eventId":"a","steps":[{{"headers":{{"x":{0}}}}}]',
    ],
)
def test_a_message_that_nests_far_too_deep_is_an_error_of_its_event(levels: int, members: str) -> None:
    message = refused(create("{" + members.format("[" * levels + "]" * levels) + "}"))
    assert isinstance(message.error, TooLarge)
    assert (message.event_id, message.owned) == (EventId("a", b'"a"'), True)


def test_an_event_id_after_a_member_that_nests_far_too_deep_is_not_read() -> None:
    deep = "[" * 100_000 + "]" * 100_000  # too deep for every decoder, whose limit depends on Python
    message = refused(f'{{"request":{{"query":{deep}}},"eventId":"a","type":"universal.create"}}'.encode())
    assert (message.event_id, message.owned) == (None, False)


@pytest.mark.parametrize("deep", ["[" * 5_000, '{"a":' * 5_000, "[" * 5_000 + "]" * 5_000])
def test_a_value_that_nests_far_too_deep_is_rejected(deep: str) -> None:
    assert not refused(deep.encode()).owned


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    assert isinstance(read(create(f'{{"provider":"x","endpoint":"","query":"{"[" * 5_000}\\"{"{" * 5_000}"}}')), Create)


@pytest.mark.parametrize("where", ["request", "request.steps"])
def test_a_message_may_have_as_many_steps_as_the_limit(where: str) -> None:
    def chain(count: int) -> str:
        listed = f"[{','.join([STEP] * count)}]"
        return listed if where == "request" else f'{{"steps":{listed}}}'

    assert len(created(chain(32)).steps) == 32
    message = refused(create(chain(33)))
    assert isinstance(message.error, TooLarge)
    assert str(message.error).startswith(f"{where}: more than 32 steps")
    assert message.owned


MEBI = 1 << 20
LONG: dict[str, Callable[[], bytes]] = {
    "brackets in a string": lambda: of_a_query('"' + "[" * (8 * MEBI) + '"'),
    "escapes": lambda: of_a_query('"' + r"\\\n" * (2 * MEBI) + '"'),
    "lone surrogates": lambda: of_a_query('"' + r"\ud83d" * MEBI + '"'),
    "surrogates": lambda: of_a_query('"' + r"\ud83d\ude00" * MEBI + r'\ud83d"'),
    "strings": lambda: of_a_query('["[",' + '"",' * (2 * MEBI) + "1]"),
    "flat brackets": lambda: of_a_query("[" + "[]," * (2 * MEBI) + "1]"),
    "elements": lambda: create("[" + "{}," * (2 * MEBI) + "1]"),
    "numbers for steps": lambda: create("[" + "1," * (4 * MEBI) + "1]"),
    "headers": lambda: create('{"provider":"x","endpoint":"","headers":{' + '"a":1,' * MEBI + '"a":1}}'),
    "config": lambda: create('{"provider":"x","endpoint":"","config":{' + '"a":1,' * MEBI + '"a":1}}'),
    "lists in a config": lambda: create(
        '{"provider":"x","endpoint":"","config":{"backoff":[' + "[]," * (2 * MEBI) + "1]}}"
    ),
    "lists in an eventId": lambda: create('{"provider":"x","endpoint":"","eventId":[' + "[]," * (2 * MEBI) + "1]}"),
    "unknown members": lambda: create('{"provider":"x","endpoint":""' + ',"a":1' * MEBI + "}"),
    "no end": lambda: b'{"a":"' + b'\\"' * (4 * MEBI),
    "depth": lambda: b"[" * (8 * MEBI),
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_message_takes_time_in_proportion_to_its_length(name: str) -> None:
    """The bound is generous: far above the time for 8 MiB, far below that of anything quadratic."""
    data = LONG[name]()
    began_at = time.process_time()
    read(data)
    assert time.process_time() - began_at < 5


TEXTS = st.text(st.characters() | st.sampled_from("\ud83d\ude00\\u"), max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
STEPS = st.fixed_dictionaries(
    {"provider": st.just("openai")},
    optional={
        "eventId": TEXTS | st.integers() | JSON_VALUES,
        "endpoint": st.text(max_size=20) | JSON_VALUES,
        "headers": st.dictionaries(st.text(max_size=8), st.text(max_size=8) | JSON_VALUES, max_size=3) | JSON_VALUES,
        "config": st.dictionaries(st.sampled_from(["maxAttempts", "backoff", "x"]), JSON_VALUES) | JSON_VALUES,
        "query": JSON_VALUES,
        "body": st.text(max_size=8) | JSON_VALUES,
        "encoding": st.sampled_from(["text", "base64"]) | JSON_VALUES,
        "method": st.sampled_from(["GET", "put"]) | JSON_VALUES,
    },
)
REQUESTS = (
    STEPS | st.lists(STEPS, max_size=4) | st.builds(lambda steps: {"steps": steps}, st.lists(STEPS)) | JSON_VALUES
)
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["universal.create", "universal.cancel"]) | JSON_VALUES, "request": REQUESTS},
    optional={"eventId": JSON_VALUES},
)


def check_anything(data: bytes) -> None:
    """Check the properties that hold for every message."""
    match read(data):
        case Create(event_id=event_id, steps=steps):
            assert steps
            assert all(isinstance(step.body, bytes) and step.provider.encode() is not None for step in steps)
        case Cancel(event_id=event_id):
            assert event_id is not None
        case RejectedMessage(error=error, event_id=event_id):
            assert str(error).encode()
    if event_id is not None:
        assert json.loads(event_id.raw) == event_id.key


@given(data=st.binary(max_size=200))
def test_parse_raises_for_no_bytes(data: bytes) -> None:
    check_anything(data)


@given(message=MESSAGES)
@example(message={"type": "universal.create", "request": {"provider": "\ud83d", "eventId": "\ud83d"}})
def test_parse_raises_for_no_values(message: dict[str, Any]) -> None:
    check_anything(json.dumps(message).encode())


@given(message=MESSAGES, data=st.data())
def test_parse_raises_for_no_mutation_of_a_message(message: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(json.dumps(message).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        piece = data.draw(st.binary(max_size=3) | st.sampled_from([b"null", b"[", b"{", b'"', b"\\ud83d", b"1e400"]))
        text[at : at + data.draw(st.integers(0, 3))] = piece
    check_anything(bytes(text))


@given(query=JSON_VALUES, event_id=TEXTS, indent=st.none() | st.integers(0, 3))
def test_query_and_event_id_are_never_re_encoded(query: object, event_id: str, indent: int | None) -> None:
    text, name = json.dumps(query, indent=indent), json.dumps("x" + event_id)
    message = created(f'{{"provider":"x","endpoint":"","query": {text} ,"eventId":{name}}}')
    assert message.event_id == EventId("x" + event_id, name.encode())
    assert message.steps[0].body == text.encode()


@given(query=st.lists(st.text()))
def test_a_query_may_be_any_utf_8(query: list[str]) -> None:
    text = json.dumps(query, ensure_ascii=False)
    assert created(f'{{"provider":"x","endpoint":"","query":{text}}}').steps[0].body == text.encode()


# Byte order marks.


def test_a_byte_order_mark_before_a_message_is_ignored() -> None:
    message = read(b"\xef\xbb\xbf" + create('{"provider":"x","endpoint":"","query":{"a": "\\ud800"}}'))
    assert isinstance(message, Create)
    assert message.steps[0].body == b'{"a": "\\ud800"}'


def test_a_second_byte_order_mark_is_not_json() -> None:
    assert refused(b"\xef\xbb\xbf" * 2 + create("{}")).error.code == 9001
