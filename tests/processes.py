"""What tests of real processes share: waiting for a condition, looking at a process, reading lines with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import psutil


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition, or fail naming it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"within {seconds} s this did not become true: {what}")
        time.sleep(0.05)


async def becomes(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Wait for an awaited condition, or fail naming it."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"within {seconds} s this did not become true: {what}")
        await asyncio.sleep(0.02)
