"""How `bridge call` shows an answer: its text as it comes, else its JSON, else its bytes; or every frame as it is."""

import base64
import json
from typing import Any, Final, TextIO

from bridge.client import Frame
from bridge.wire.texts import text_of

_CONTROLS: Final = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"
}
"""An answer is a stranger's text: on a terminal it must not move the cursor, or write to the clipboard."""


class Printer:
    """Writes an event's answer to `out`, and what there is to say about it to `err`."""

    def __init__(self, out: TextIO, err: TextIO, *, frames: bool) -> None:
        for stream in (out, err):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # an answer may hold what the terminal's encoding does not
        self._out, self._err = out, err
        self._frames = frames
        self._is_terminal = out.isatty()
        self._ends_line = True
        self._printed = False

    def show(self, frame: Frame) -> None:
        if self._frames:
            self._bytes(frame.raw + b"\n")
        elif frame.error is None:
            self._answer(frame)

    def end_line(self) -> None:
        """Whatever comes next begins on a line of its own."""
        if not self._ends_line and self._is_terminal:
            self._write("\n")

    def conclude(self, last: Frame) -> None:
        """What the event's last frame says, beside the answer."""
        for warning in last.metadata.get("warnings", ()):
            self._say(f"warning: {warning}")
        if last.error is not None:
            self._fault(last.error, last.metadata.get("attempts", ()))
        elif not self._printed:
            self._say("no text came; --frames shows what did")

    def _answer(self, frame: Frame) -> None:
        if frame.type == "created" and frame.metadata.get("restarted"):
            self.end_line()
            self._say(f"the stream broke; step {frame.metadata.get('step')} begins anew")
        if "response" not in frame.value:
            return
        if frame.value.get("encoding") == "base64":
            self._binary(base64.b64decode(str(frame.response)))
        elif (text := text_of(frame.response)) is not None:
            self._text(text)
        elif frame.type == "created":
            self._text(json.dumps(frame.response, ensure_ascii=False, indent=2) + "\n")

    def _text(self, text: str) -> None:
        if text:
            self._write(text.translate(_CONTROLS) if self._is_terminal else text)

    def _binary(self, data: bytes) -> None:
        if not self._is_terminal:
            self._bytes(data)
        elif not self._printed:
            self._printed = True
            self._say("the answer is no text: send it to a file")

    def _fault(self, error: dict[str, Any], attempts: list[dict[str, Any]]) -> None:
        pause_ms = error.get("retryAfterMs")
        when = f" after {pause_ms} ms" if pause_ms is not None else ""
        retryable = f"retryable{when}" if error.get("retryable") else "not retryable"
        self._say(f"error {error.get('code')} ({error.get('source')}, {retryable}): {error.get('message')}")
        for attempt in attempts:
            reason = f"{attempt.get('code')} {attempt.get('reason')}"
            self._say(f"  step {attempt.get('step')}, {attempt.get('provider')}: {reason}")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
        self._printed = True
        self._ends_line = text.endswith("\n")

    def _bytes(self, data: bytes) -> None:
        self._out.flush()
        self._out.buffer.write(data)
        self._out.buffer.flush()
        self._printed = True

    def _say(self, line: str) -> None:
        self._err.write(line.translate(_CONTROLS) + "\n")
        self._err.flush()
