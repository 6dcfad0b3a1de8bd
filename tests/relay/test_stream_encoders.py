"""Raw runs of long items: bounded frames that never split a character or a secret."""

import base64
import json
from itertools import pairwise

import pytest

from bridge.protocol.frames import EventFrames
from bridge.redact.known_secrets import NO_SECRETS, KnownSecrets
from bridge.relay import stream_encoders
from bridge.relay.stream_encoders import MAX_RUN_BYTES, RawEncoder, RunEncoder

READ_BYTES = 65_536
SECRET = "sk-live-0123456789abcdefABCDEF"
KNOWN = KnownSecrets([SECRET])


def runs_of(body: bytes, read_bytes: int, known: KnownSecrets = NO_SECRETS) -> list[bytes]:
    """Return the runs of a body that is one incomplete item until its end."""
    encoder = RunEncoder(known)
    runs = []
    for start in range(0, len(body), read_bytes):
        pending = min(start + read_bytes, len(body))
        runs += encoder.encode(body[start : start + read_bytes], [], pending)
    return [*runs, *encoder.encode(b"", [], 0)]


@pytest.mark.parametrize("character", ["y", "é", "€", "😀"])
def test_a_long_item_is_cut_into_frames_of_text_that_together_are_the_item(character: str) -> None:
    body = ("x" + character * (5 * MAX_RUN_BYTES // len(character.encode()))).encode()
    encoder = RawEncoder(EventFrames(b"1", compat=False))
    frames = []
    for start in range(0, len(body), READ_BYTES):
        frames += encoder.encode(body[start : start + READ_BYTES], [], start + READ_BYTES)
    frames += encoder.encode(b"", [], 0)
    decoded = [json.loads(bytes(frame)) for frame in frames]
    assert len(frames) >= 5
    assert max(len(run["response"].encode()) for run in decoded) <= MAX_RUN_BYTES + READ_BYTES
    assert {run["encoding"] for run in decoded} == {"text"}
    assert "".join(run["response"] for run in decoded).encode() == body


def test_a_long_item_that_is_no_text_is_cut_into_frames_of_base64() -> None:
    body = b"\xff\x80" * (3 * MAX_RUN_BYTES // 2)
    encoder = RawEncoder(EventFrames(b"1", compat=False))
    frames = [encoder.encode(body[at : at + READ_BYTES], [], at + READ_BYTES) for at in range(0, len(body), READ_BYTES)]
    frames.append(encoder.encode(b"", [], 0))
    decoded = [json.loads(bytes(frame)) for of_read in frames for frame in of_read]
    assert b"".join(base64.b64decode(run["response"]) for run in decoded) == body


@pytest.mark.parametrize("read_bytes", [1, 7, 64])
@pytest.mark.parametrize("known", [KNOWN, KnownSecrets([SECRET, "other-" * 9 + "secret"])])
def test_no_cut_splits_a_secret(read_bytes: int, known: KnownSecrets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_encoders, "MAX_RUN_BYTES", 200)
    secret = SECRET.encode()
    for shift in range(60):
        body = "é".encode().join([b"y" * shift, *[secret + b"z" * 37] * 12, secret[:20], secret])
        runs = runs_of(body, read_bytes, known)
        assert b"".join(runs) == known.mask(body)
        assert len(runs) > 3
        assert secret[8:20] not in b"".join(runs)


def test_too_many_secrets_mask_every_run() -> None:
    known = KnownSecrets([f"secret-number-{count:03}" for count in range(65)])
    body = b"y" * (3 * MAX_RUN_BYTES)
    assert b"".join(runs_of(body, READ_BYTES, known)) == b"*" * len(body)


def test_the_work_of_a_read_does_not_grow_with_the_item() -> None:
    encoder = RunEncoder(KNOWN)
    held = [0]
    for count in range(1, 65):
        encoder.encode(b"y" * READ_BYTES, [], count * READ_BYTES)
        held.append(len(encoder._run))
    assert max(held) <= MAX_RUN_BYTES + READ_BYTES
    assert any(after < before for before, after in pairwise(held))
