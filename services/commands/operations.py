"""`baton drain`: asks an instance to finish what it holds and leave. Idempotent: one that has left stays left."""

import asyncio
import logging

from services.commands.access import Access
from services.commands.inspection import inspect
from shared.errors import BadRequest, BatonError, DeadlineExceeded, NoCapacity
from shared.messages import Done, Drain, Rejected, State
from shared.nats_bus import NatsBus
from shared.report import InstanceEntry
from shared.subjects import Subjects

ANSWER_S = 5.0
AFTER_DRAIN_S = 20.0
"""What an instance may take to stop, once it has drained."""
GONE = {State.STOPPED, State.FAILED}


def drain(access: Access, instance: str, *, seconds: float | None, wait: bool) -> str:
    """Drain an instance and say what happened. Raises BatonError when it cannot be drained."""
    limit = access.drain_s if seconds is None else seconds
    logging.getLogger("shared").setLevel(logging.CRITICAL)  # the command's one sentence says it
    return asyncio.run(_drain(access, instance, limit, wait=wait))


async def _drain(access: Access, instance: str, seconds: float, *, wait: bool) -> str:
    bus = await NatsBus.open(access.nats, service=access.user)
    subject = Subjects(access.nats.prefix).control(instance)
    try:
        answer = await bus.request(subject, Drain(seconds), Done | Rejected, timeout_s=ANSWER_S, what="answer")
    except NoCapacity:
        record = await _record(access, instance)
        if record is None:
            raise BadRequest(f"There is no instance {instance}; `baton status` lists those there are.") from None
        if record["state"] not in GONE:
            raise NoCapacity(f"{instance} does not listen; it is {record['state']}. Try again in a moment.") from None
        return f"{instance} has left already"
    finally:
        await bus.close()
    if isinstance(answer, Rejected):
        raise BatonError(f"{instance} refused: {answer.message}")
    if not wait:
        return f"{instance} is draining"
    return await _left(access, instance, seconds + AFTER_DRAIN_S)


async def _left(access: Access, instance: str, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            while (record := await _record(access, instance)) is not None and record["state"] not in GONE:  # noqa: ASYNC110  it is in Redis
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise DeadlineExceeded(f"{instance} has not left within {seconds:.0f} s; see `baton status`.") from None
    return f"{instance} has left"


async def _record(access: Access, instance: str) -> InstanceEntry | None:
    report = await asyncio.to_thread(inspect, access)
    return next((one for one in report["instances"] if one["id"] == instance), None)
