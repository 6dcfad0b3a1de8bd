"""Checks that what a client receives of an event is allowed, frame by frame, against what the provider played."""

import base64
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from tests.support.harness import Frame, is_last
from tests.support.raw_http import HttpResult
from tests.support.soak.bodies import TOKEN
from tests.support.soak.plans import EventPlan
from tests.support.soak.plays import ERROR_STATUSES, Play
from tests.support.soak.provider import Family

FAULT_CODES: Final = {*ERROR_STATUSES, 9010, 9012, 9016, 9017, 9019}
TIMEOUT_CODES: Final = {9013, 9014, 9015}
CANCELLED, SKIPPED = 9020, 9023

SUCCESS: Final = "done"
LEFT: Final = "left"
BROKEN: Final = "broken"
"""An HTTP response without its proper end, whose cause the client does not learn."""


class Violation(AssertionError):
    """The bridge has broken a promise. The text names the event, its plan and what was played for it."""


@dataclass(slots=True)
class EventCheck:
    """Checks one event. `outcome` is set by its last frame: `done` or a code; `left` if the client left before."""

    plan: EventPlan
    family: Family
    outcome: str = ""
    frames: int = 0
    play: Play | None = None
    """The response whose items are being received; None before the first item."""
    restarts: int = 0
    _is_started: bool = False
    _step: int | None = None
    _items: int = 0
    _taken: bytearray = field(default_factory=bytearray)
    """The bytes of a raw stream or of audio."""
    _chunks: int = 0
    _last: Frame | None = None

    def receive(self, frame: Frame) -> None:
        """Check the next frame."""
        self.frames += 1
        self._last = frame
        if self.outcome:
            self.fail("a frame after the last", frame)
        if not is_last(frame):
            if frame["type"] == "universal.created":
                self._start(frame)
            else:
                self._take_item(frame)
            return
        self._check_metadata(frame)
        match frame["type"]:
            case "universal.created":
                self._end_in_one_piece(frame)
            case "universal.done":
                self._end_stream(frame)
            case _:
                self._fail_stream(frame)

    def fail(self, why: str, shown: object = None) -> None:
        """Raise Violation."""
        plays = [(play.step, play.fault, play.body.kind, play.status, play.ending) for play in self.family.plays]
        steps = [f"{step.slug}:{step.kind}" for step in self.plan.steps]
        plan = self.plan
        raise Violation(
            f"event {plan.number} (family {plan.family}): {why}\n  steps {steps} config {plan.config} "
            f"cancel {plan.cancel_after} {plan.cancel_delay_s}\n  plays {plays}\n"
            f"  frames {self.frames}, the last {str(shown or self._last)[:600]}"
        )

    def _start(self, frame: Frame) -> None:
        is_restart = frame["metadata"].get("restarted") is True
        if is_restart is not self._is_started:
            self.fail("a second start that is no restart, or a restart of nothing", frame)
        if is_restart and self.plan.config.get("onBreak") != "restart":
            self.fail("a restart that was not requested", frame)
        self.restarts += is_restart
        self._is_started = True
        self._step = int(frame["metadata"]["step"])
        self._forget_items()

    def _forget_items(self) -> None:
        self.play, self._items = None, 0
        self._taken.clear()

    def _take_item(self, frame: Frame) -> None:
        if not self._is_started:
            self.fail("an item before the first frame", frame)
        self._chunks += 1
        response = frame["response"]
        if self.plan.is_raw or self._kind() == "audio":
            self._taken += base64.b64decode(response) if frame.get("encoding") == "base64" else response.encode()
            self._check_prefix()
            return
        self._check_token(orjson.dumps(response).decode(), self._items, frame)
        assert self.play is not None
        items = self.play.body.items
        if self._items >= len(items):
            self.fail("an item after the response's last", frame)
        expected = items[self._items]
        if (response, frame.get("malformed", False)) != (expected.value, expected.is_malformed):
            self.fail(f"item {self._items} is not as sent", frame)
        self._items += 1

    def _kind(self) -> str:
        return "" if self._step is None else self.plan.steps[self._step].kind

    def _check_token(self, text: str, index: int, shown: object) -> None:
        """Find the response that an item belongs to. Fail if it is of another event, response or place."""
        found = TOKEN.findall(text)
        if len(found) != 1:
            self.fail(f"{len(found)} marks in one item", shown)
        family, step, call, number = map(int, found[0])
        if family != self.plan.family:
            self.fail(f"an item of another event, {family}", shown)
        play = self._played(step, call)
        if self.play is None:
            self.play = play
        if play is not self.play or step != self._step:
            self.fail("an item of another response", shown)
        if number != index:
            self.fail(f"item {number} in place of {index}", shown)

    def _played(self, step: int, call: int) -> Play:
        return [play for play in self.family.plays if play.step == step][call]

    def _check_prefix(self) -> None:
        """Check the bytes of a stream against the body as sent."""
        if self.play is None:
            found = TOKEN.search(self._taken.decode(errors="replace"))
            if found is None:
                return
            self._check_token(found[0], 0, bytes(self._taken))
        assert self.play is not None
        if not self.play.body.data.startswith(self._taken):
            self.fail("the bytes of the stream are not as sent", bytes(self._taken[-300:]))

    def _check_metadata(self, frame: Frame) -> None:
        metadata = frame["metadata"]
        if metadata["success"] is ("error" in frame):
            self.fail("neither success nor an error, or both", frame)
        if not self.restarts and metadata["chunks"] != self._chunks:
            self.fail(f"{self._chunks} items, but not by the metadata", frame)

    def _end_stream(self, frame: Frame) -> None:
        if not self._is_started or "error" in frame:
            self.fail("done without a start, or with an error", frame)
        if self.play is None:
            if not any(play.looks_complete and play.body.data.startswith(self._taken) for play in self.family.plays):
                self.fail("done without an item", frame)
        elif not self._is_complete(self.play):
            self.fail(f"done after {self._items} items and {len(self._taken)} bytes, which are not all", frame)
        self.outcome = SUCCESS

    def _is_complete(self, play: Play) -> bool:
        if play.looks_complete:
            return True
        return self._has_all_bytes(play, self._taken) if self._taken else self._has_all_items(play)

    def _has_all_items(self, play: Play) -> bool:
        least = play.body.least
        return least is not None and self._items >= least

    def _has_all_bytes(self, play: Play, taken: bytes | bytearray) -> bool:
        body = play.body
        if body.least is None:
            return False
        least = body.items[body.least - 1].end if body.items else len(body.data)
        return least <= len(taken)

    def _fail_stream(self, frame: Frame) -> None:
        if not self._is_started and frame["error"]["code"] != CANCELLED:
            self.fail("universal.error without a start", frame)
        self._end_with(frame["error"]["code"], frame)

    def _end_in_one_piece(self, frame: Frame) -> None:
        self._step = int(frame["metadata"]["step"])
        self._forget_items()
        response = frame["response"]
        data = base64.b64decode(response) if frame.get("encoding") == "base64" else _bytes_of(response)
        self._check_answer(data, frame, parsed=response if isinstance(response, dict) else None)
        error = frame.get("error")
        if error is None:
            self.outcome = SUCCESS
        else:
            self._end_with(error["code"], frame)

    def _check_answer(self, data: bytes, frame: Frame, parsed: Any) -> None:
        """Check an answer in one piece: the bridge's own error, or one response's body."""
        error = frame.get("error")
        if parsed is not None and parsed.get("name") == "AiGatewayError":
            if error is None or parsed["internalCode"] != error["code"]:
                self.fail("an error body without its error", frame)
            return
        if not data and (error is not None or any(play.looks_complete for play in self.family.plays)):
            return
        found = TOKEN.search(data.decode(errors="replace"))
        if found is None:
            cut = [play for play in self.family.plays if play.looks_complete or error is not None]
            if not any(play.body.data.startswith(data) for play in cut):
                self.fail("an answer that no provider sent", frame)
            return
        self._check_token(found[0], 0, frame)
        assert self.play is not None
        body, is_cut = self.play.body, error is not None or self.play.looks_complete
        if is_cut and body.data.startswith(data.removesuffix("\ufffd".encode())):  # a cut inside a character
            return
        if (parsed != orjson.loads(body.data)) if parsed is not None else (data != body.data):
            self.fail("the answer is not as sent", frame)

    def _end_with(self, code: int, frame: object) -> None:
        self.outcome = str(code)
        if code in FAULT_CODES:
            return
        if code in TIMEOUT_CODES and self.plan.is_quick:
            return
        if code == CANCELLED and self.plan.is_cancelled:
            return
        if code == SKIPPED and self.plan.may_be_skipped:
            return
        self.fail(f"code {code} has no cause", frame)

    def check_outcome(self) -> None:
        """Check the outcome against the responses: one that was sent completely is not lost."""
        plan, plays = self.plan, self.family.plays
        if self.outcome == LEFT or plan.is_cancelled or plan.may_be_skipped or plan.is_cached or plan.is_quick:
            return
        if not plays:
            if self.outcome != "9010":
                self.fail(f"no provider was called, but {self.outcome}")
            return
        last = plays[-1]
        if not last.is_sure:
            return
        if last.status >= 400:
            expected = {str(last.status)}
        elif last.body.least is None:
            expected = {"9017", "503", BROKEN}
        else:
            expected = {SUCCESS}
        if self.outcome not in expected and not self._went_on_to_a_dead_step(last):
            self.fail(f"{self.outcome}, though the last response was sent completely")

    def _went_on_to_a_dead_step(self, last: Play) -> bool:
        """Return True if a step behind the last that was called cannot be connected to."""
        failed = last.status >= 400 or last.body.least is None
        return failed and any(step.slug == "custom-dead" for step in self.plan.steps[last.step + 1 :])

    def receive_http(self, result: HttpResult) -> None:
        """Check an HTTP response, the only frame of an event over HTTP."""
        self.frames += 1
        if result.headers.get("cf-aig-event-id") != str(self.plan.number):
            self.fail("the response to another request", result)
        self._step = int(result.headers["cf-aig-step"])
        if result.status >= 400:
            self._receive_http_error(result)
            return
        found = TOKEN.search(result.body.decode(errors="replace"))
        if found is None:
            empty = not result.is_complete or any(play.looks_complete for play in self.family.plays)
            if not empty or len(result.body) > 200:
                self.fail("an answer that no provider sent", result)
        else:
            self._check_token(found[0], 0, result)
            assert self.play is not None
            if not self.play.body.data.startswith(result.body):
                self.fail("the body is not as sent", result)
            if result.is_complete and not self._is_complete_http(self.play, result.body):
                self.fail("a complete response without all of the body", result)
        self.outcome = SUCCESS if result.is_complete else BROKEN

    def _is_complete_http(self, play: Play, body: bytes) -> bool:
        # JSON in one piece that HTTP says is complete is passed on as it is, though it cannot be parsed.
        is_passed_on = play.is_short and not play.body.is_stream
        return is_passed_on or play.looks_complete or self._has_all_bytes(play, body)

    def _receive_http_error(self, result: HttpResult) -> None:
        parsed: Any = None
        with suppress(orjson.JSONDecodeError):
            parsed = orjson.loads(result.body)
        if isinstance(parsed, dict) and parsed.get("name") == "AiGatewayError":
            self._end_with(parsed["internalCode"], result)
            return
        self._check_answer(result.body, {"error": {"code": result.status}}, parsed)
        self.outcome = str(result.status)


def _bytes_of(response: object) -> bytes:
    if isinstance(response, str):
        return response.encode()
    return b"" if response is None else orjson.dumps(response)
