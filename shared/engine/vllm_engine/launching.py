"""The start of vLLM beside the hub: its ranks register while EngineCore waits for them.

Owns the one way out of a start that fails or that nobody waits for any more: nothing of it is left running.
"""

import asyncio

from shared.engine.vllm_engine.core import Core, give_up
from shared.engine.vllm_engine.hub import Hub
from shared.engine.vllm_engine.setup import Setup


async def launched(setup: Setup, hub: Hub, hearing: asyncio.Task[None]) -> Core:
    """Start EngineCore and its ranks; `hearing` runs the hub. Raises ConfigError or EngineFailed (fatal).

    Where the hub could not plan for the ranks, what it raised is the reason, and not that EngineCore did not start.
    """
    starting = asyncio.create_task(asyncio.to_thread(setup.core, hub.address), name="vllm start")
    try:
        await asyncio.wait([starting, hearing], return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _abandon(starting)
        raise
    if hearing.done():
        await _abandon(starting)
        hearing.result()
    return starting.result()


async def _abandon(starting: asyncio.Task[Core]) -> None:
    """End it, whichever way it is going. A thread cannot be cancelled, but without its processes it fails at once."""
    while not starting.done():
        give_up()
        await asyncio.wait([starting], timeout=1.0)  # it may be about to make them
    if not starting.cancelled() and starting.exception() is None:
        await asyncio.to_thread(starting.result().close)
