"""Clients of the soak: many events on one WebSocket, or requests over HTTP; some cancel, leave or stop reading."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import orjson
from aiohttp import WSMsgType

from tests.support.raw_client import HasUrl, RawClient, frame, open_websocket
from tests.support.raw_http import GATEWAY, HttpClient, connect_http
from tests.support.soak.bodies import FORMATS
from tests.support.soak.checks import LEFT, EventCheck, Violation
from tests.support.soak.plans import EventPlan, SessionPlan
from tests.support.soak.provider import Ledger

SESSION_S = 60.0
"""Longest duration of a session. All its timeouts, retries and pauses need a fraction of it."""


class ClientSession:
    """Runs the events of one plan, one after the other or at the same time, and counts their outcomes."""

    def __init__(self, server: HasUrl, ledger: Ledger, plan: SessionPlan, outcomes: Counter[str]) -> None:
        self._server, self._ledger, self._plan = server, ledger, plan
        self._outcomes = outcomes
        self._open: dict[int, EventCheck] = {}

    async def run(self) -> None:
        """Run the session to its end. Raises Violation, also if an event does not end in time."""
        with ExitStack() as kept:
            for plan in self._plan.events:
                if plan.is_cached:  # a later event of the family may get a response played for an earlier one
                    self._ledger.begin(plan)
                    kept.callback(self._ledger.end, plan)
            await self._run()

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(SESSION_S):
                await (self._over_http() if self._plan.over_http else self._on_socket())
        except TimeoutError:
            self._first_open().fail(f"one of {len(self._open)} events without an end")
        except (asyncio.IncompleteReadError, ConnectionError) as lost:
            self._first_open().fail(f"the bridge closed the connection: {lost!r}")

    def abandon(self) -> None:
        """Forget the events that are open after a violation."""
        for check in self._open.values():
            self._outcomes["abandoned"] += 1
            self._ledger.end(check.plan)
        self._open.clear()

    def _first_open(self) -> EventCheck:
        for check in self._open.values():
            return check
        raise Violation(f"the connection was lost without an open event: {self._plan}")

    def _begin(self, plan: EventPlan) -> EventCheck:
        check = EventCheck(plan, self._ledger.begin(plan))
        self._open[plan.number] = check
        return check

    def _end(self, check: EventCheck) -> None:
        kind = "http" if self._plan.over_http else "socket"
        self._outcomes[f"{kind} {check.outcome}"] += 1
        self._outcomes["restarts"] += check.restarts
        del self._open[check.plan.number]
        self._ledger.end(check.plan)
        check.check_outcome()

    def _end_all_left(self) -> None:
        for check in list(self._open.values()):
            check.outcome = LEFT
            self._end(check)

    # A WebSocket

    async def _on_socket(self) -> None:
        plan, frames = self._plan, 0
        waiting = iter(plan.events)
        async with open_websocket(self._server, receive_bytes=plan.receive_bytes) as client:
            await self._send_more(client, waiting)
            while self._open:
                if plan.leave is not None and frames >= plan.leave_after:
                    await leave(client, plan.leave)
                    break
                if frames == plan.pause_after:
                    await asyncio.sleep(plan.pause_s)
                await self._receive(client)
                frames += 1
                await self._send_more(client, waiting)
            else:
                await client.send(frame(b"\x03\xe8", WSMsgType.CLOSE))
                if await client.close_code() != 1000:
                    raise Violation(f"frames after the last event: {plan}")
        self._end_all_left()

    async def _send_more(self, client: RawClient, waiting: Iterator[EventPlan]) -> None:
        while len(self._open) < self._plan.window and (plan := next(waiting, None)) is not None:
            check = self._begin(plan)
            create = {"type": "universal.create", "eventId": plan.number, "request": plan.request()}
            await client.send_json(create)
            if plan.cancel_after == 0:
                await self._cancel(client, plan)
            elif plan.cancel_delay_s is not None:
                asyncio.get_running_loop().call_later(plan.cancel_delay_s, self._cancel_later, client, check)

    async def _receive(self, client: RawClient) -> None:
        message = await client.receive_json()
        number = message["metadata"].get("eventId")
        check = self._open.get(number)
        if check is None:
            raise Violation(f"a frame of no open event: {str(message)[:600]}")
        check.receive(message)
        if check.outcome:
            self._end(check)
        elif check.frames == check.plan.cancel_after:
            await self._cancel(client, check.plan)

    async def _cancel(self, client: RawClient, plan: EventPlan) -> None:
        await client.send_json({"type": "universal.cancel", "eventId": plan.number})

    def _cancel_later(self, client: RawClient, check: EventCheck) -> None:
        if check.plan.number in self._open:
            message = {"type": "universal.cancel", "eventId": check.plan.number}
            client.write(frame(orjson.dumps(message)))

    # HTTP

    async def _over_http(self) -> None:
        waiting = list(reversed(self._plan.events))
        while waiting:
            async with connect_http(self._server, receive_bytes=self._plan.receive_bytes) as client:
                while waiting and await self._request(client, waiting.pop()):
                    pass
            self._end_all_left()

    async def _request(self, client: HttpClient, plan: EventPlan) -> bool:
        """Send one request. Return True if the connection can be used for another."""
        check = self._begin(plan)
        own = {"cf-aig-event-id": str(plan.number)}
        if plan.number in self._plan.native:
            path = f"{GATEWAY}/{plan.steps[0].slug}/{FORMATS[plan.steps[0].kind][1]}"
            await client.send_request("POST", path, plan.native_request(), own | plan.headers(0) | _settings(plan))
        else:
            await client.send_request("POST", GATEWAY, orjson.dumps(plan.request()), own)
        if self._leaves(plan):
            await self._leave_http(client, plan)
            return False
        if self._plan.pause_after is not None:
            await asyncio.sleep(self._plan.pause_s)
        result = await client.read_response()
        check.receive_http(result)
        self._end(check)
        return result.is_complete

    def _leaves(self, plan: EventPlan) -> bool:
        is_chosen = self._plan.leave is not None and plan is self._plan.events[self._plan.leave_after]
        return is_chosen or plan.is_cancelled

    async def _leave_http(self, client: HttpClient, plan: EventPlan) -> None:
        """Close the connection at once, after a while, or after the head of the response."""
        if plan.cancel_delay_s is not None:
            await asyncio.sleep(plan.cancel_delay_s)
        elif plan.cancel_after:
            await client.read_head()
        await leave(client.raw, self._plan.leave if self._plan.leave in {"reset", "fin"} else "fin")


async def leave(client: RawClient, way: str) -> None:
    match way:
        case "reset":
            client.reset()
        case "fin":
            client.send_eof()
            await client.read_to_end()
        case "close frame":
            await client.send(frame(b"\x03\xe8", WSMsgType.CLOSE))
            await client.close_code()
        case "half a frame":
            await client.send(frame(b"x" * 1000)[:500])
        case _:
            await client.send(frame(b"x", 3))
            await client.close_code()


def _settings(plan: EventPlan) -> dict[str, str]:
    return {
        "cf-aig-max-attempts": str(plan.config["maxAttempts"]),
        "cf-aig-retry-delay": str(plan.config["retryDelay"]),
    }
