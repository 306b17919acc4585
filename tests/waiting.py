"""Waiting for a condition on the running loop; the deadline is for a hang, never for the verdict."""

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Wait until `condition` holds, or fail naming what did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"within {seconds} s it did not happen that {what}"
        await asyncio.sleep(0.005)
