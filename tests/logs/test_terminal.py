"""Untrusted text reaches a terminal without harmful characters."""

import csv
import io
import json
from pathlib import Path

import orjson
import pytest

from bridge.cli.logs import actions
from bridge.cli.tapes import show
from bridge.logs.terminal import json_text, one_line, readable
from bridge.services.request_log.reader import LogFilter
from bridge.services.request_log.table import RequestTable
from bridge.tapes.file import TapeHead, write_tape
from tests.support.log_rows import row
from tests.support.tapes import tape

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
CONTROLS = "".join(map(chr, (*range(9), *range(11, 32), *range(127, 160))))
HARMFUL = CONTROLS + BIDI + "\u2028\u2029"
NASTY = f"a{HARMFUL}b"
WORDS = "naïve 日本語\u3000\u05e9\u05dc\u05d5\u05dd \N{WOMAN}\u200d\N{PERSONAL COMPUTER} 1\u00a0000"


def harm_in(shown: str | bytes) -> set[str]:
    return set(shown if isinstance(shown, str) else shown.decode()) & set(HARMFUL)


def test_a_line_has_an_escape_for_each_harmful_character() -> None:
    assert not harm_in(one_line(NASTY + "\n\t"))
    assert one_line("a\x1b[2J\u202e\ud800\n") == "a\\x1b[2J\\u202e\\ud800\\n"
    assert one_line("plain \u05e9\u05dc\u05d5\u05dd") == "plain \u05e9\u05dc\u05d5\u05dd"


def test_a_text_keeps_its_lines_and_the_words_of_any_script() -> None:
    assert readable(f"{WORDS}\n\t{WORDS}") == f"{WORDS}\n\t{WORDS}"
    assert readable(NASTY) == "a" + "\ufffd" * len(HARMFUL) + "b"
    assert readable("\ud800") == "\ufffd"


def test_json_stays_the_same_json() -> None:
    value = {NASTY: [NASTY, WORDS, "\n"]}
    shown = json_text(json.dumps(value, ensure_ascii=False).encode())
    assert not harm_in(shown)
    assert orjson.loads(shown) == value
    plain = orjson.dumps({"a": WORDS})
    assert json_text(plain) is plain
    assert json_text(b'{"a":"\xff"}').decode() == '{"a":"\ufffd"}'


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("bridge.cli.tapes.show", "bridge.cli.logs.actions"):
        monkeypatch.setattr(f"{module}.is_terminal", lambda _: True)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("command", [show.table, show.show, show.body, show.check])
def test_a_tape_does_not_harm_the_terminal_it_is_shown_on(
    command: object, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    file = tmp_path / f"{NASTY.replace(chr(0), '').replace('/', '')}.jsonl"
    head = TapeHead(status=200, headers=[(NASTY, NASTY)], ms=0)
    write_tape(file, tape(NASTY.encode(), head=head, method=NASTY, url=f"https://h/{BIDI}\x9b", body=NASTY.encode()))
    command(file)  # type: ignore[operator]  # one of the four
    out, err = capsysbinary.readouterr()
    assert out
    assert not harm_in(out + err)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.db"
    log = RequestTable(path)
    nasty = json.dumps({"a": NASTY}, ensure_ascii=False)
    log.append([row(model=NASTY, event_id=NASTY, metadata=nasty, request_head=NASTY, reason=NASTY)], {})
    log.close()
    return path


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_export_does_not_harm_the_terminal_it_is_shown_on(
    form: str, log: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert actions.export(log, LogFilter(), None, form) == 0
    out, _ = capsysbinary.readouterr()
    assert out
    assert not harm_in(out.replace(b"\r\n", b"\n"))


def test_a_shown_row_does_not_harm_the_terminal(log: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert actions.show(log, row().id) == 0
    assert not harm_in(capsysbinary.readouterr().out)


def test_an_export_to_a_file_is_what_was_stored(log: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert actions.export(log, LogFilter(), None, "jsonl") == 0
    assert orjson.loads(capsysbinary.readouterr().out)["model"] == NASTY


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_a_spreadsheet_runs_no_cell_of_an_export(
    begin: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    cell = f'{begin}HYPERLINK("https://x")'
    log = RequestTable(tmp_path / "log.db")
    log.append([row(model=cell, event_id="-1", reason="1=1", request_head=cell, cost=-0.5)], {})
    log.close()
    assert actions.export(tmp_path / "log.db", LogFilter(), None, "csv") == 0
    [found] = csv.DictReader(io.StringIO(capsysbinary.readouterr().out.decode(), newline=""))
    assert (found["model"], found["request_head"], found["event_id"]) == (f"'{cell}", f"'{cell}", "'-1")
    assert (found["reason"], found["cost"]) == ("1=1", "-0.5"), "what is no formula stays as it is"
