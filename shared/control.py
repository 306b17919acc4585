"""Orders to one instance over NATS: drain, take a role, reload. Owns the answer that each gets; performs none."""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from shared.bus import Delivery
from shared.errors import BadRequest, BatonError
from shared.instance import Instance
from shared.messages import AssignRole, Done, Drain, Rejected, Reload, Reloaded, ToInstance, decode
from shared.stopping import Stopping

LONGEST_DRAIN_S = 3600.0


@runtime_checkable
class Assignable(Protocol):
    """A service that can be given a role: standby."""

    async def assign(self, message: AssignRole) -> None:
        """Accept the role; becoming it may happen later. Raises BatonError to refuse."""
        ...


class Control:
    """Orders from the monitor or an operator to this instance."""

    def __init__(self, service: object, instance: Instance, stopping: Stopping) -> None:
        self._service = service
        self._instance = instance
        self._stopping = stopping

    def handle(self, delivery: Delivery) -> None:
        """Answer one order; every one is answered Done, Reloaded or Rejected."""
        _ = self._instance.tasks.spawn(self._answer(delivery), name="control")

    async def _answer(self, delivery: Delivery) -> None:
        answer: Done | Reloaded | Rejected = Done(self._instance.id)
        after: Callable[[], None] | None = None
        try:
            order: ToInstance = decode(delivery.data, ToInstance, "control message")
            match order:
                case Drain(seconds=seconds):
                    after = self._drain(seconds)
                case AssignRole():
                    await self._assign(order)
                case Reload():
                    answer = Reloaded(self._instance.id, await self._instance.reloading.reload())
        except BatonError as error:
            answer = Rejected("", 0, self._instance.id, error.code, str(error), error.retryable)
        await self._instance.bus.respond(delivery, answer)
        if after is not None:
            after()

    async def _assign(self, order: AssignRole) -> None:
        instance = self._instance
        if (instance.role, instance.scenario, instance.group) == (order.role, order.scenario, order.group):
            return  # the order is repeated because its answer was lost; it has been obeyed
        if not isinstance(self._service, Assignable):
            raise BadRequest(f"{self._instance.id} is a {self._instance.role.value}, not a standby")
        await self._service.assign(order)

    def _drain(self, seconds: float) -> Callable[[], None]:
        if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST_DRAIN_S:
            raise BadRequest(f"seconds is {seconds}; give 0 to {LONGEST_DRAIN_S:g}", "seconds")
        return lambda: self._stopping.ask("drained by order", drain_s=seconds)
