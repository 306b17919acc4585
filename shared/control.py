"""Orders to one instance over NATS: drain, take a role, reload. Owns the answer that each gets; performs none."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from shared.bus import Delivery
from shared.errors import BadRequest, BatonError
from shared.instance import Instance
from shared.messages import AssignRole, Done, Drain, Rejected, Reload, Reloaded, ToInstance, decode
from shared.stopping import Stopping, checked_drain


@runtime_checkable
class Assignable(Protocol):
    """A service that can be given a role: standby, prefill, decode."""

    async def assign(self, order: AssignRole) -> None:
        """Accept the role, again if need be; becoming it happens later. Raises BatonError to refuse."""
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
        if isinstance(self._service, Assignable):
            await self._service.assign(order)
        elif not self._instance.already(order):  # else it is repeated because its answer was lost
            raise BadRequest(f"{self._instance.id} is a {self._instance.role.value}, and takes no other role")

    def _drain(self, seconds: float) -> Callable[[], None]:
        checked_drain(seconds)
        return lambda: self._stopping.ask("drained by order", drain_s=seconds)
