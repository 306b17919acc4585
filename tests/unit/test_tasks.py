"""Tasks have an owner that awaits them."""

import asyncio
import logging

import pytest

from shared.errors import Draining, Overloaded
from shared.tasks import Tasks, unbroken, within


async def test_close_cancels_and_awaits_every_task() -> None:
    tasks, cleaned = Tasks("owner"), []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(name)

    _ = tasks.spawn(work("a"), name="a")
    _ = tasks.spawn(work("b"), name="b")
    await asyncio.sleep(0)
    assert (len(tasks), tasks.names) == (2, ["a", "b"])
    assert await tasks.close() == []
    assert sorted(cleaned) == ["a", "b"]
    assert await tasks.close() == []


async def test_a_failure_is_logged_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []
    tasks = Tasks("owner", on_failure=lambda name, error: told.append((name, str(error))))

    async def fail() -> None:
        raise ValueError("broken")

    with caplog.at_level(logging.ERROR), pytest.raises(ValueError, match="broken"):
        await tasks.spawn(fail(), name="doomed")
    await asyncio.sleep(0)
    assert told == [("doomed", "broken")]
    assert tasks.failures == 1
    assert "task failed" in caplog.text
    assert len(tasks) == 0


async def test_a_cancelled_task_is_no_failure() -> None:
    tasks = Tasks("owner")
    task = tasks.spawn(asyncio.sleep(60), name="sleeper")
    task.cancel()
    await asyncio.wait({task})
    assert tasks.failures == 0


async def test_a_full_or_closed_set_refuses_and_leaves_no_coroutine_unawaited() -> None:
    tasks = Tasks("owner", limit=1)
    _ = tasks.spawn(asyncio.sleep(60), name="first")
    with pytest.raises(Overloaded, match="1 tasks, its limit"):
        tasks.spawn(asyncio.sleep(60), name="second")
    await tasks.close()
    with pytest.raises(Draining, match="closing"):
        tasks.spawn(asyncio.sleep(60), name="third")


async def test_a_task_that_ignores_its_cancellation_is_named(caplog: pytest.LogCaptureFixture) -> None:
    tasks, release = Tasks("owner"), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = tasks.spawn(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    assert await tasks.close(timeout_s=0.02) == ["stubborn"]
    assert "ignore their cancellation" in caplog.text
    release.set()
    await task


async def test_a_task_may_close_the_set_it_belongs_to() -> None:
    tasks = Tasks("owner")

    async def closer() -> list[str]:
        return await tasks.close(timeout_s=1)

    assert await tasks.spawn(closer(), name="closer") == []


async def test_a_cancellation_that_gets_lost_is_repeated() -> None:
    tasks, swallowed = Tasks("owner"), 0

    async def forgetful() -> None:
        nonlocal swallowed
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed += 1
        await asyncio.Event().wait()

    _ = tasks.spawn(forgetful(), name="forgetful")
    await asyncio.sleep(0)
    assert await tasks.close(timeout_s=10) == []
    assert swallowed == 1


async def test_work_that_loses_its_cancellation_ends_in_time_all_the_same() -> None:
    lost = []

    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost.append(1)
                if len(lost) > 2:
                    raise

    with pytest.raises(TimeoutError):
        await within(0.05, deaf())
    assert len(lost) == 3


async def test_work_that_is_in_time_gives_what_it_gives() -> None:
    async def add(one: int, other: int) -> int:
        await asyncio.sleep(0)
        return one + other

    assert await within(5, add(1, 2)) == 3
    with pytest.raises(TypeError):
        await within(5, add(1, "2"))  # type: ignore[arg-type]


async def test_unbroken_work_ends_before_its_cancellation_is_heard() -> None:
    steps: list[str] = []

    async def work() -> str:
        for step in ("one", "two", "three"):
            await asyncio.sleep(0)
            steps.append(step)
        return "done"

    assert await unbroken(work()) == "done"
    steps.clear()
    task = asyncio.ensure_future(unbroken(work()))
    await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["one", "two", "three"]


async def test_unbroken_work_that_fails_says_so_unless_it_was_cancelled() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await unbroken(fail())
    task = asyncio.ensure_future(unbroken(fail()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
