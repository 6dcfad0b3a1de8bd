"""Log lines hold one record each, hold no secrets and never block their caller."""

import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from bridge.logs.format import ADOPTED, LOGGER, MAX_TEXT, SILENCED, as_json, as_text, setup
from bridge.logs.handler import LineHandler

SECRET = "sk-abcdefghijklmnopqrstuvwx"  # made up, in the form of a provider's key
NAMES = (LOGGER, *ADOPTED, *SILENCED)

Setup = Callable[..., LineHandler]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def start() -> Iterator[Setup]:
    """Return a `setup` whose changes to the loggers are undone after the test."""
    before = {name: dict(vars(logging.getLogger(name))) for name in NAMES}
    handlers: list[LineHandler] = []

    def run(stream: Any, fmt: str = "json", level: str = "info") -> LineHandler:
        handlers.append(setup(stream, fmt, level))
        return handlers[-1]

    yield run
    for handler in handlers:
        handler.close()
    for name, state in before.items():
        logger = logging.getLogger(name)
        for handler in handlers:
            logger.removeHandler(handler)
        logger.setLevel(state["level"])
        logger.propagate, logger.disabled = state["propagate"], state["disabled"]


def record(message: object, *args: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord(LOGGER, logging.INFO, __file__, 1, message, args, None)
    made.created = 1_767_322_984.0379
    made.fields = fields
    return made


def failed(error: Exception) -> logging.LogRecord:
    made = record("event failed")
    try:
        raise error
    except Exception:
        made.exc_info = sys.exc_info()
    return made


# One line.


def test_a_json_line_holds_time_level_message_and_the_fields_in_that_order() -> None:
    line = as_json(record("event %s", "done", status=200, event_id="my-request", cost=0.5, ok=True, none=None))
    assert line == (
        b'{"time":"2026-01-02T03:03:04.037Z","level":"info","message":"event done",'
        b'"status":200,"event_id":"my-request","cost":0.5,"ok":true,"none":null}\n'
    )


def test_a_text_line_holds_the_same_parts() -> None:
    line = as_text(record("event done", status=200, event_id="my-request", ok=True, why="two words"))
    assert line.decode() == (
        '2026-01-02T03:03:04.037Z INFO    event done status=200 event_id=my-request ok=true why="two words"\n'
    )


def test_a_field_cannot_replace_time_level_or_message() -> None:
    made = record("true")
    made.fields = {"message": "false", "level": "error", "time": "never"}
    line = orjson.loads(as_json(made))
    assert line == {"time": "2026-01-02T03:03:04.037Z", "level": "info", "message": "true"}


@pytest.mark.parametrize("render", [as_json, as_text])
@pytest.mark.parametrize(
    "odd",
    [
        "a\nINFO forged", "\r\n", "\x1b[2J", "\x85\u2028\u2029", "\ud800", "\u202e", "\x00\x7f", '"', "=", "",
        2**70, b"\n", {1: {"\n"}},
    ],
)  # fmt: skip
def test_untrusted_text_stays_within_one_line(render: Callable[..., bytes], odd: object) -> None:
    line = render(record(odd, event_id=odd, **({odd: 1} if isinstance(odd, str) else {})))
    text = line.decode()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    if render is as_json:
        assert set(orjson.loads(line)) >= {"time", "level", "message", "event_id"}
    else:
        assert text[:-1].isprintable()


@pytest.mark.parametrize("render", [as_json, as_text])
@pytest.mark.parametrize(
    "made",
    [
        record(f"refused Bearer {SECRET}"),
        record("refused %s", SECRET),
        record("refused", reason=f"key {SECRET}", nested={"list": [SECRET]}, error=ValueError(SECRET)),
        record("long " * 50 + SECRET),
        failed(ValueError(f"no such key: {SECRET}")),
    ],
)
def test_no_secret_reaches_a_line(render: Callable[..., bytes], made: logging.LogRecord) -> None:
    line = render(made)
    assert SECRET[4:] not in line.decode()
    assert b"redacted" in line


def test_numbers_are_not_redacted() -> None:
    assert orjson.loads(as_json(record("m", n=12345678901234567890, f=1e300)))["n"] == 12345678901234567890


def test_an_exception_is_one_string_of_json_with_its_traceback() -> None:
    line = as_json(failed(ValueError("first\nsecond")))
    assert line.count(b"\n") == 1
    trace = orjson.loads(line)["exception"]
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith("ValueError: first\nsecond\n")


def test_a_traceback_in_text_follows_its_line_behind_a_bar() -> None:
    first, *below = as_text(failed(ValueError("x\n2026-01-01T00:00:00.000Z INFO forged"))).decode().splitlines()
    assert first.endswith("event failed")
    assert below[0] == "  | Traceback (most recent call last):"
    assert below[-1] == "  | 2026-01-01T00:00:00.000Z INFO forged"
    assert all(line.startswith("  | ") for line in below)


def test_a_very_long_text_loses_its_middle() -> None:
    message = orjson.loads(as_json(record("first " + "x " * MAX_TEXT + "last")))["message"]
    assert len(message) < MAX_TEXT + 10
    assert message.startswith("first")
    assert message.endswith("last")


# Setting up.


@pytest.mark.parametrize(
    ("stream", "fmt", "first"),
    [
        (io.StringIO, "auto", "{"),
        (Terminal, "auto", "2"),
        (Terminal, "json", "{"),
        (io.StringIO, "text", "2"),
    ],
)
def test_lines_are_text_on_a_terminal_and_json_elsewhere(
    start: Setup, stream: Callable[[], io.StringIO], fmt: str, first: str
) -> None:
    out = stream()
    handler = start(out, fmt)
    logging.getLogger("bridge.relay").info("hello")
    handler.close()
    assert out.getvalue()[0] == first


def test_lines_below_the_level_are_not_written(start: Setup) -> None:
    out = io.StringIO()
    handler = start(out, level="warning")
    logging.getLogger("bridge.relay").info("quiet")
    logging.getLogger("bridge.relay").warning("loud")
    handler.close()
    assert [orjson.loads(line)["message"] for line in out.getvalue().splitlines()] == ["loud"]


def test_a_second_setup_replaces_the_first(start: Setup) -> None:
    first, second = io.StringIO(), io.StringIO()
    start(first)
    handler = start(second)
    logging.getLogger("bridge").info("hello")
    handler.close()
    assert first.getvalue() == ""
    assert second.getvalue().count("hello") == 1


def test_loggers_that_log_tokens_are_silenced_and_loop_errors_are_written(start: Setup) -> None:
    out = io.StringIO()
    handler = start(out)
    for name in SILENCED:
        logging.getLogger(name).critical("a token")
    logging.getLogger("aiohttp.server").error("unhandled")
    logging.getLogger("asyncio").error("never retrieved")
    handler.close()
    assert [orjson.loads(line)["message"] for line in out.getvalue().splitlines()] == ["unhandled", "never retrieved"]


# Writing.


def test_an_invalid_log_call_is_logged_and_does_not_raise(start: Setup) -> None:
    out = io.StringIO()
    handler = start(out)
    logging.getLogger("bridge").info("%d events", "many")
    handler.close()
    line = orjson.loads(out.getvalue())
    assert (line["message"], line["level"], line["call"]) == ("invalid log call", "error", "'%d events'")
    assert "TypeError" in line["exception"]


def test_all_lines_are_written_in_order_before_the_end(start: Setup) -> None:
    out = io.StringIO()
    handler = start(out)
    for number in range(5000):
        logging.getLogger("bridge").info("%d", number)
    handler.close()
    assert [int(orjson.loads(line)["message"]) for line in out.getvalue().splitlines()] == list(range(5000))


def test_a_line_is_written_without_waiting_for_more(start: Setup) -> None:
    out, into = os.pipe()
    with open(out, "rb") as reader, open(into, "w") as stream:
        start(stream)
        logging.getLogger("bridge").info("hello")
        assert orjson.loads(reader.readline())["message"] == "hello"


def test_a_stalled_reader_loses_the_oldest_lines_which_are_counted() -> None:
    out, into = os.pipe()
    _fill(into)
    with open(out, "rb") as reader, open(into, "w") as stream:
        handler = LineHandler(stream, as_json, capacity=10)
        for number in range(1000):
            handler.handle(record("line", number=number))
        _skip_filling(reader)
        numbers: list[int] = []
        lost = 0
        while not numbers or numbers[-1] != 999:
            line = orjson.loads(reader.readline())
            lost += line.get("lost", 0)
            numbers += [line["number"]] if "number" in line else []
        handler.close()
    assert numbers == sorted(numbers)
    assert len(numbers) + lost == 1000
    assert lost > 0


def test_the_end_waits_a_bounded_time_for_a_stalled_reader() -> None:
    out, into = os.pipe()
    _fill(into)
    with open(out, "rb") as reader:
        with open(into, "w") as stream:
            handler = LineHandler(stream, as_json, closing_s=0.01)
            handler.handle(record("last"))
            handler.close()
            handler.handle(record("too late"))
        _skip_filling(reader)
        assert [orjson.loads(line)["message"] for line in reader] == ["last"]


def test_a_closed_reader_is_not_an_error() -> None:
    out, into = os.pipe()
    os.close(out)
    with open(into, "w") as stream:
        handler = LineHandler(stream, as_json)
        handler.handle(record("hello"))
        handler.close()
    assert "bridge-log" not in [thread.name for thread in threading.enumerate()]


def test_a_process_writes_its_last_lines_and_ends_despite_a_stalled_reader() -> None:
    """The interpreter aborts at exit if a thread holds the lock of its stderr, so the writer holds none."""
    program = (
        "import logging, sys; from bridge.logs.format import setup; setup(sys.stderr, 'json', 'info')\n"
        "for number in range(int(sys.argv[1])): logging.getLogger('bridge').info('line %d', number)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run([*command, "3"], stderr=subprocess.PIPE, check=True, timeout=30)
    assert [orjson.loads(line)["message"] for line in done.stderr.splitlines()] == ["line 0", "line 1", "line 2"]
    with subprocess.Popen([*command, "5000"], stderr=subprocess.PIPE) as stuck:  # nobody reads until it has ended
        assert stuck.wait(30) == 0


def _fill(into: int) -> None:
    os.set_blocking(into, False)
    try:
        while True:
            os.write(into, b"#" * 4096)
    except BlockingIOError:
        os.set_blocking(into, True)


def _skip_filling(reader: io.BufferedReader) -> None:
    while reader.peek(1)[:1] == b"#":
        reader.read(1)
