"""The folder that is recorded to: names that speak and sort, whole tapes whole, cut ones marked."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from bridge.tapes.file import TapeError, TapeRequest, read_tape
from bridge.tapes.folder import TapeFolder, cut_tapes
from tests.support.tapes import tape


def name_of(folder: Path, method: str, url: str) -> str:
    return TapeFolder(folder).keep(tape(method=method, url=url, body=b"")).relative_to(folder).as_posix()


@pytest.mark.parametrize(
    ("method", "url", "name"),
    [
        ("POST", "https://api.openai.com/v1/chat/completions", "api.openai.com/000001-POST-chat-completions.jsonl"),
        ("GET", "https://api.openai.com/v1/models?key=x", "api.openai.com/000001-GET-models.jsonl"),
        ("POST", "http://127.0.0.1:9000/", "127.0.0.1-9000/000001-POST-root.jsonl"),
        ("POST", "http://[::1]:9000/a", "1-9000/000001-POST-a.jsonl"),
        ("POST", "https://h/v1beta/models/g-2.5:streamX", "h/000001-POST-models-g-2.5-streamX.jsonl"),
        ("POST", "https://h/a/../../b", "h/000001-POST-b.jsonl"),
        ("POST", "https://h/%2e%2e%2f%00/%C3%A9", "h/000001-POST-root.jsonl"),
        ("../X", "https://h/a", "h/000001-X-a.jsonl"),
        ("POST", f"https://h/{'long/' * 40}end", f"h/000001-POST-{'long-' * 12}end.jsonl"),
    ],
)
def test_a_tape_is_named_by_what_was_asked_and_stays_in_its_folder(
    tmp_path: Path, method: str, url: str, name: str
) -> None:
    assert name_of(tmp_path, method, url) == name


def test_names_sort_in_the_order_of_recording_also_after_a_restart(tmp_path: Path) -> None:
    for host in ("b", "a"):
        folder = TapeFolder(tmp_path)
        for path in ("z", "y"):
            folder.keep(tape(url=f"https://{host}/{path}"))
    names = sorted(path.name for path in tmp_path.rglob("*.jsonl"))
    assert names == ["000001-POST-z.jsonl", "000002-POST-y.jsonl", "000003-POST-z.jsonl", "000004-POST-y.jsonl"]


def test_two_processes_never_take_the_same_name(tmp_path: Path) -> None:
    one, other = TapeFolder(tmp_path), TapeFolder(tmp_path)
    first = one.begin(tape().request)
    begun = other.begin(tape().request)
    one.finish(first, tape(b"one"))
    kept = [other.keep(tape(b"other")), one.keep(tape(b"one"))]
    assert len({first.with_suffix(""), begun.with_suffix(""), *kept}) == 4
    assert [read_tape(path).chunks[0].data for path in kept] == [b"other", b"one"]


def test_what_was_begun_and_not_finished_is_marked_by_its_name_and_is_no_tape(tmp_path: Path) -> None:
    folder = TapeFolder(tmp_path)
    whole = folder.keep(tape(b"all"))
    part = folder.begin(tape().request)
    assert cut_tapes(tmp_path) == [part]
    assert [*tmp_path.rglob("*.jsonl")] == [whole]
    with pytest.raises(TapeError, match="was cut"):
        read_tape(part)
    folder.drop(part)
    assert cut_tapes(tmp_path) == []


def test_a_tape_gets_its_name_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up leaves a part under the name of one."""
    folder = TapeFolder(tmp_path)
    part = folder.begin(tape().request)

    def full(_: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("bridge.tapes.folder.os.write", full)
        with pytest.raises(OSError, match="No space"):
            folder.finish(part, tape(b"all"))
        assert [*tmp_path.rglob("*.jsonl")] == []
        assert cut_tapes(tmp_path) == [part]
        with pytest.raises(OSError, match="No space"):
            folder.keep(tape(b"all"))
    assert [*tmp_path.rglob("*.jsonl")] == []


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_tapes_and_the_folders_made_for_them_are_their_owner_s_alone(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        folder = TapeFolder(tmp_path / "tapes")
        folder.keep(tape(b"kept"))
        folder.finish(folder.begin(tape().request), tape(b"finished"))
        folder.begin(tape().request)
    finally:
        os.umask(before)
    modes = {(each.is_dir(), stat.S_IMODE(each.stat().st_mode)) for each in tmp_path.rglob("*")}
    assert modes == {(True, 0o700), (False, 0o600)}


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    TapeFolder(tmp_path).keep(tape(b"kept"))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_removed_folder_is_created_again(tmp_path: Path) -> None:
    folder = TapeFolder(tmp_path / "tapes")
    shutil.rmtree(folder.keep(tape(b"one")).parent)
    with pytest.raises(FileNotFoundError):
        folder.keep(tape(b"two"))
    assert read_tape(folder.keep(tape(b"three"))).chunks[0].data == b"three"


def test_a_folder_that_cannot_be_created_raises_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        TapeFolder(tmp_path / "file" / "tapes")


def test_a_request_s_secret_is_in_no_name(tmp_path: Path) -> None:
    """The folder gets requests whose path has been redacted already; what stands for the secret is no letter."""
    request = TapeRequest.of("POST", "https://h/bot****************/send")
    assert TapeFolder(tmp_path).begin(request).name == "000001-POST-bot-send.jsonl.part"
