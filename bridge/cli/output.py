"""Prints the answer of `bridge call`: its text as it streams, its JSON, its bytes, or every frame."""

import json
from typing import TextIO

from bridge.client import Failure, Frame, Metadata
from bridge.formats.text import text_of
from bridge.logs.terminal import is_terminal, json_text, readable


class Printer:
    """Writes the answer of an event to `out` and messages about it to `err`."""

    def __init__(self, out: TextIO, err: TextIO, *, frames: bool) -> None:
        for stream in (out, err):
            if hasattr(stream, "reconfigure"):
                # An answer may contain characters that the terminal's encoding lacks.
                stream.reconfigure(errors="replace")
        self._out, self._err = out, err
        self._frames = frames
        self._is_terminal = is_terminal(out)
        self._ends_line = True
        self._printed = False

    def show(self, frame: Frame) -> None:
        if self._frames:
            self._bytes((json_text(frame.raw) if self._is_terminal else frame.raw) + b"\n")
        elif frame.error is None:
            self._answer(frame)

    def end_line(self) -> None:
        """End an unfinished line on a terminal."""
        if not self._ends_line and self._is_terminal:
            self._write("\n")

    def conclude(self, last: Frame) -> None:
        """Print the warnings and the error of the last frame."""
        for warning in last.metadata.warnings:
            self._report(f"warning: {warning}")
        if last.error is not None:
            self._fault(last.error, last.metadata)
        elif not self._printed:
            self._report("the answer has no text; --frames shows its frames")

    def _answer(self, frame: Frame) -> None:
        if frame.type == "created" and frame.metadata.restarted:
            self.end_line()
            self._report(f"the stream broke; step {frame.metadata.step} starts again")
        if not frame.has_response:
            return
        content = frame.content
        if isinstance(content, bytes):
            self._binary(content)
        elif (text := text_of(content)) is not None:
            self._text(text)
        elif frame.type == "created":
            self._text(json.dumps(content, ensure_ascii=False, indent=2) + "\n")

    def _text(self, text: str) -> None:
        if text:
            self._write(readable(text) if self._is_terminal else text)

    def _binary(self, data: bytes) -> None:
        if not self._is_terminal:
            self._bytes(data)
        elif not self._printed:
            self._printed = True
            self._report("the answer is binary: redirect it to a file")

    def _fault(self, error: Failure, metadata: Metadata) -> None:
        when = f" after {error.retry_after_ms} ms" if error.retry_after_ms is not None else ""
        retryable = f"retryable{when}" if error.retryable else "not retryable"
        self._report(f"error {error.code} ({error.source}, {retryable}): {error.message}")
        for attempt in metadata.attempts:
            self._report(f"  step {attempt.step}, {attempt.provider}: {attempt.code} {attempt.reason}")

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

    def _report(self, line: str) -> None:
        self._err.write(readable(line) + "\n")
        self._err.flush()
