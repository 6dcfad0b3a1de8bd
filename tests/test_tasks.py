"""Tasks that somebody holds: none is left running, and none fails unheard."""

import asyncio
import logging

import pytest

from bridge.tasks import Tasks
from tests.support.clock import turns


class Work:
    """What a task does, and whether it gave back what it took."""

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
    await turns()
    assert work.has_begun
    assert "event 7" in {task.get_name() for task in asyncio.all_tasks()}
    work.gate.set()
    await tasks.wait_all()
    assert work.has_ended


async def test_to_end_all_is_to_cancel_them_and_to_wait_until_they_are_gone() -> None:
    tasks, works = Tasks(), [Work() for _ in range(3)]
    for work in works:
        tasks.start(work(), "work")
    await turns()
    await tasks.cancel_all()
    assert all(work.has_ended for work in works)
    assert len(asyncio.all_tasks()) == 1


async def test_one_that_has_not_begun_begins_so_that_it_gives_back_what_it_owns() -> None:
    tasks, work = Tasks(), Work()
    tasks.start(work(), "work")
    await tasks.cancel_all()
    assert (work.has_begun, work.has_ended) == (True, True)


async def test_to_wait_is_not_to_cancel() -> None:
    tasks, work = Tasks(), Work()
    tasks.start(work(), "work")
    waiting = asyncio.create_task(tasks.wait_all())
    await turns()
    assert not waiting.done()
    work.gate.set()
    await waiting
    assert work.has_ended


async def test_with_no_tasks_there_is_nothing_to_wait_for() -> None:
    await Tasks().wait_all()
    await Tasks().cancel_all()


async def test_a_failure_is_logged_with_the_task_s_name_and_harms_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks, failing, other = Tasks(), Work(), Work()
    tasks.start(failing(ValueError("oops")), "event 7")
    tasks.start(other(), "event 8")
    failing.gate.set()
    with caplog.at_level(logging.ERROR, "bridge.tasks"):
        await turns()
    [record] = caplog.records
    assert record.getMessage() == "task event 7 failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert not other.has_ended
    await tasks.cancel_all()


async def test_a_task_that_was_cancelled_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    tasks.start(Work()(), "work")
    await tasks.cancel_all()
    assert caplog.records == []
