"""`baton reload`: asks instances to read their configuration again, and tells what each has answered."""

import asyncio
import logging

from services.commands.access import Access
from services.commands.inspection import inspect
from shared.errors import BadRequest, BatonError, DeadlineExceeded, NoCapacity
from shared.messages import Rejected, Reload, Reloaded, State
from shared.nats_bus import NatsBus
from shared.subjects import Subjects

ANSWER_S = 35.0
"""An instance may take half a minute to prepare."""


def reload(access: Access, instance: str | None) -> tuple[list[str], bool]:
    """Reload one instance, or all that are ready: a line for each, and whether all went well. Raises BatonError."""
    ready = [one["id"] for one in inspect(access)["instances"] if one["state"] == State.READY]
    chosen = ready if instance is None else [name for name in ready if name == instance]
    if not chosen:
        who = "instance" if instance is None else f"instance {instance}"
        raise BadRequest(f"There is no {who} that is ready; `baton status` lists those there are.")
    logging.getLogger("shared").setLevel(logging.CRITICAL)  # the command's lines say it
    return asyncio.run(_reload(access, sorted(chosen)))


async def _reload(access: Access, instances: list[str]) -> tuple[list[str], bool]:
    bus = await NatsBus.open(access.nats, service=access.user)
    try:
        answers = await asyncio.gather(*(_ask(bus, access.nats.prefix, name) for name in instances))
    finally:
        await bus.close()
    return [line for line, _ in answers], all(well for _, well in answers)


async def _ask(bus: NatsBus, prefix: str, instance: str) -> tuple[str, bool]:
    subject = Subjects(prefix).control(instance)
    try:
        answer = await bus.request(subject, Reload(), Reloaded | Rejected, timeout_s=ANSWER_S, what="answer")
    except (NoCapacity, DeadlineExceeded) as error:
        return f"{instance} does not answer: {error}", False
    except BatonError as error:
        return f"{instance}: {error}", False
    if isinstance(answer, Rejected):
        return f"{instance} refused, nothing has changed there: {answer.message}", False
    if answer.waiting:
        return f"{instance} has reloaded; at its next start change: {', '.join(answer.waiting)}", True
    return f"{instance} has reloaded", True
