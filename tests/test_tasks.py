"""Tasks have an owner: none is left running, and no failure is lost."""

import asyncio
import logging

import pytest

from bridge.tasks import Tasks
from tests.support.clock import run_until_idle


class Work:
    """The work of a task, which records its start and its end."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.has_begun = self.has_ended = False

    async def __call__(self, error: Exception | None = None) -> None:
        self.has_begun = True
        try:
            await self.gate.wait()
            if error is not None:
                raise error
        finally:
            self.has_ended = True


async def test_a_task_has_a_name_and_runs_on_its_own() -> None:
    tasks, work = Tasks(), Work()
    tasks.start(work(), "event 7")
    await run_until_idle()
    assert work.has_begun
    assert "event 7" in {task.get_name() for task in asyncio.all_tasks()}
    work.gate.set()
    await tasks.wait_all()
    assert work.has_ended


async def test_cancel_all_cancels_every_task_and_waits_for_it() -> None:
    tasks, works = Tasks(), [Work() for _ in range(3)]
    for work in works:
        tasks.start(work(), "work")
    await run_until_idle()
    await tasks.cancel_all()
    assert all(work.has_ended for work in works)
    assert len(asyncio.all_tasks()) == 1


async def test_a_task_is_started_before_it_is_cancelled() -> None:
    tasks, work = Tasks(), Work()
    tasks.start(work(), "work")
    await tasks.cancel_all()
    assert (work.has_begun, work.has_ended) == (True, True)


async def test_wait_all_does_not_cancel() -> None:
    tasks, work = Tasks(), Work()
    tasks.start(work(), "work")
    waiting = asyncio.create_task(tasks.wait_all())
    await run_until_idle()
    assert not waiting.done()
    work.gate.set()
    await waiting
    assert work.has_ended


async def test_waiting_without_tasks_returns_at_once() -> None:
    await Tasks().wait_all()
    await Tasks().cancel_all()


async def test_a_failure_is_logged_with_the_name_of_the_task_and_does_not_affect_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks, failing, other = Tasks(), Work(), Work()
    tasks.start(failing(ValueError("oops")), "event 7")
    tasks.start(other(), "event 8")
    failing.gate.set()
    with caplog.at_level(logging.ERROR, "bridge.tasks"):
        await run_until_idle()
    [record] = caplog.records
    assert record.getMessage() == "task event 7 failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert not other.has_ended
    await tasks.cancel_all()


async def test_a_cancelled_task_is_not_logged_as_failed(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    tasks.start(Work()(), "work")
    await tasks.cancel_all()
    assert caplog.records == []
