"""`bridge tapes`: what it prints, and with which exit code it ends."""

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from bridge.cli.tapes.commands import app
from bridge.tapes.file import StreamEnd, TapeHead, write_tape
from bridge.tapes.folder import TapeFolder
from tests.support.paths import FIXTURES
from tests.support.tapes import tape

REALTIME = FIXTURES / "realtime"
IMPORTS = FIXTURES / "imports"


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def tapes(tmp_path: Path) -> Path:
    """Two whole tapes."""
    folder = TapeFolder(tmp_path / "tapes")
    folder.keep(tape(b"data: {}\n\n", b"\xff", url="https://api.example.com/v1/chat?n=1"))
    folder.keep(tape(method="GET", url="https://other.example.com/x", body=b"", head=None, end=StreamEnd.RESET))
    return folder.path


def test_list_has_a_line_for_each_tape(tapes: Path) -> None:
    result = run("list", tapes)
    assert result.exit_code == 0
    chat, other = f"{tapes}/api.example.com/000001-POST-chat.jsonl", f"{tapes}/other.example.com/000002-GET-x.jsonl"
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["file", "method", "URL", "status", "chunks", "ms", "ending"],
        [chat, "POST", "https://api.example.com/v1/chat?n=1", "200", "2", "400", "eof"],
        [other, "GET", "https://other.example.com/x", "none", "0", "200", "reset"],
    ]


def test_list_names_what_cannot_be_read_and_shows_the_rest(tapes: Path) -> None:
    (tapes / "no.jsonl").write_text("{}\n")
    TapeFolder(tapes).begin(tape().request)
    result = run("list", tapes)
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 3)
    assert "no.jsonl:1: Object missing required field" in result.stderr
    assert "was cut" in result.stderr


def test_show_prints_the_request_and_every_chunk(tapes: Path) -> None:
    result = run("show", tapes / "api.example.com" / "000001-POST-chat.jsonl")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "POST https://api.example.com/v1/chat?n=1",
        r'  "{\"model\":\"small\",\"messages\":[{\"role\":\"user\",\"content\":\"Say hello\"}]}"',
        "     100 ms  200",
        "  content-type: text/plain",
        r'     200 ms  "data: {}\n\n"',
        "     300 ms  1 bytes",
        "     400 ms  eof",
    ]


def test_show_body_prints_the_body_unchanged(tapes: Path) -> None:
    result = run("show", "--body", tapes / "api.example.com" / "000001-POST-chat.jsonl")
    assert (result.exit_code, result.stdout_bytes) == (0, b"data: {}\n\n\xff")


def test_show_lets_no_tape_move_the_cursor(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    head = TapeHead(status=200, headers=[("x", "\x1b[2J\x9b")], ms=0)
    write_tape(file, tape("\x1b[2J\x9bé".encode(), head=head))
    result = run("show", file)
    assert (result.exit_code, "é" in result.stdout) == (0, True)
    assert all(char.isprintable() or char == "\n" for char in result.stdout)


@pytest.mark.parametrize("command", [["show"], ["show", "--body"]])
def test_show_reports_an_invalid_tape(tmp_path: Path, command: list[str]) -> None:
    result = run(*command, tmp_path / "none.jsonl")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Cannot be read" in result.stderr


def test_check_is_content_with_tapes_that_may_be_kept(tapes: Path) -> None:
    result = run("check", tapes)
    assert (result.exit_code, result.output) == (0, "2 tapes, 0 faults\n")


@pytest.mark.parametrize(
    ("body", "answer", "fault"),
    [
        (b"{}", b'{"error":"no such key: sk-abcdefgh12345678"}', "holds a credential in a body"),
        (b'{"api_key":"abc"}', b"{}", "holds a credential in a body"),
    ],
)
def test_check_finds_secrets(tapes: Path, body: bytes, answer: bytes, fault: str) -> None:
    write_tape(tapes / "bad.jsonl", tape(answer[:20], answer[20:], body=body))
    result = run("check", tapes)
    assert (result.exit_code, result.stdout) == (1, "3 tapes, 1 faults\n")
    assert result.stderr == f"{tapes}/bad.jsonl: {fault}\n"


def test_check_finds_faults_of_the_format_and_recordings_that_were_cut(tapes: Path) -> None:
    (tapes / "cut.jsonl").write_text('{"tape":1,"request":{"method":"GET","url":"https://h"}}\n')
    (tapes / "torn.jsonl").write_text('{"tape":1,"requ')
    part = TapeFolder(tapes).begin(tape().request)
    result = run("check", tapes)
    assert (result.exit_code, result.stdout) == (1, "5 tapes, 3 faults\n")
    assert f"{tapes}/cut.jsonl: line 1: " in result.stderr
    assert f"{tapes}/torn.jsonl: line 1: " in result.stderr
    assert f"{part}: " in result.stderr
    assert "recording was cut" in result.stderr


@pytest.mark.parametrize("command", ["list", "check"])
@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_folder_without_tapes_is_reported(tmp_path: Path, command: str, name: str) -> None:
    result = run(command, tmp_path / name)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith(f"{tmp_path / name}: No tape found")


def test_import_names_its_tapes_and_what_they_are_for(tmp_path: Path) -> None:
    result = run("import", IMPORTS / "gzip.yaml", IMPORTS / "plain.json", "--to", tmp_path / "tapes")
    assert result.exit_code == 0
    assert result.stdout.split() == [str(path) for path in sorted((tmp_path / "tapes").rglob("*.jsonl"))]
    assert len(result.stdout.split()) == 4
    assert "Review imported tapes" in result.stderr
    assert run("check", tmp_path / "tapes").exit_code == 0


def test_import_reports_skipped_entries_and_continues(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("[]")
    result = run("import", tmp_path / "other", IMPORTS / "browser.har", "--to", tmp_path / "tapes")
    assert (result.exit_code, len(result.stdout.split())) == (1, 2)
    assert f"{tmp_path}/other: " in result.stderr
    assert "neither a VCR cassette nor a HAR archive" in result.stderr
    assert "entry 3 skipped: it is a WebSocket" in result.stderr


def test_import_of_nothing_gives_no_advice_on_tapes(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("[]")
    result = run("import", tmp_path / "other", "--to", tmp_path / "tapes")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Review imported tapes" not in result.stderr


def test_import_reports_a_missing_file(tmp_path: Path) -> None:
    result = run("import", tmp_path / "none.yaml", "--to", tmp_path / "tapes")
    assert result.exit_code == 1
    assert f"{tmp_path}/none.yaml: No such file or directory" in result.stderr


# Tapes of realtime sessions.


def test_list_has_a_line_for_each_session() -> None:
    result = run("list", REALTIME)
    rows = [line.split(maxsplit=6) for line in result.stdout.splitlines()[1:]]
    assert result.exit_code == 0
    assert [(Path(row[0]).relative_to(REALTIME).as_posix(), row[1], *row[3:]) for row in rows] == [
        ("cartesia/tts.jsonl", "WEBSOCKET", "101", "5", "290", "closed by the client with 1000"),
        ("deepgram/listen.jsonl", "WEBSOCKET", "101", "10", "705", "closed by the provider with 1000"),
        ("elevenlabs/agent.jsonl", "WEBSOCKET", "101", "11", "2300", "closed by the client with 1000"),
        ("google-ai-studio/live-turn.jsonl", "WEBSOCKET", "101", "7", "760", "closed by the client with 1000"),
        ("openai/refused-401.jsonl", "WEBSOCKET", "401", "0", "95", "refused"),
        ("openai/text-turn.jsonl", "WEBSOCKET", "101", "20", "812", "closed by the client with 1000"),
    ]


def test_show_prints_the_messages_of_a_session_with_their_senders() -> None:
    lines = run("show", REALTIME / "google-ai-studio" / "live-turn.jsonl").stdout.splitlines()
    assert lines[0].startswith("WEBSOCKET wss://generativelanguage.googleapis.com/ws/google.ai.")
    assert lines[1:3] == ["  x-goog-api-key: [redacted]", "     160 ms  101"]
    assert lines[4] == r'     301 ms  provider  binary  "{\"setupComplete\":{}}"'
    assert lines[-1] == "     760 ms  closed by the client with 1000"
    listen = run("show", REALTIME / "deepgram" / "listen.jsonl").stdout.splitlines()
    assert listen[4] == "     131 ms  client    binary  320 bytes"
    refused = run("show", REALTIME / "openai" / "refused-401.jsonl").stdout.splitlines()
    assert refused[2] == "      95 ms  401"
    assert refused[-2].startswith(r'  "{\"error\":{\"message\":')
    assert refused[-1] == "      95 ms  refused"


def test_show_body_prints_the_messages_of_the_provider() -> None:
    printed = run("show", "--body", REALTIME / "google-ai-studio" / "live-turn.jsonl").stdout_bytes
    assert printed.startswith(b'{"setupComplete":{}}{"serverContent":')
    assert b"client" not in printed


def test_check_finds_what_is_wrong_with_a_session(tmp_path: Path) -> None:
    assert run("check", REALTIME).output == "6 tapes, 0 faults\n"
    text = (REALTIME / "cartesia" / "tts.jsonl").read_text()
    (tmp_path / "key.jsonl").write_text(text.replace("Hello, bridge.", "sk-0123456789abcdefghij"))
    (tmp_path / "cut.jsonl").write_text(text.rpartition("\n{")[0] + "\n")
    result = run("check", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "2 tapes, 2 faults\n")
    assert "key.jsonl: holds a credential" in result.stderr
    assert "cut.jsonl: line 7: " in result.stderr
