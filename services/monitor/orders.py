"""Answers what operators ask of the leading monitor. One that does not lead is silent: one answers, or nobody."""

import logging
from collections.abc import Callable

from shared.bus import Delivery
from shared.errors import BatonError, Code, MalformedMessage
from shared.lifecycle import Instance
from shared.messages import ExplainOrder, Rejected, ScaleOrder, Told, ToMonitor, UpgradeOrder, decode

Order = ScaleOrder | UpgradeOrder | ExplainOrder
Give = Callable[[Order], Told]
"""Carries an order out at once, or has it begun. Raises BatonError to refuse."""

ANSWER_S = 5.0

log = logging.getLogger(__name__)


class Orders:
    """Orders over NATS, and those of our own page. `leading` says whether it is ours to answer."""

    def __init__(self, instance: Instance, leading: Callable[[], bool], give: Give) -> None:
        self._instance = instance
        self._leading = leading
        self._give = give

    def handle(self, delivery: Delivery) -> None:
        """Answer one order of the bus."""
        if not self._leading():
            return
        try:
            order: Order = decode(delivery.data, ToMonitor, "order")
        except MalformedMessage as error:
            log.warning("order refused", extra={"error": str(error)})
            answer: Told | Rejected = self._rejected(error)
        else:
            answer = self._answer(order)
        _ = self._instance.tasks.spawn(self._respond(delivery, answer), name="answer to an order")

    async def place(self, order: Order) -> Told | Rejected:
        """Carry out an order of our own page: here, or at the monitor that leads. Raises BatonError."""
        if self._leading():
            return self._answer(order)
        answer: Told | Rejected = await self._instance.bus.request(
            self._instance.subjects.orders(), order, Told | Rejected, timeout_s=ANSWER_S, what="answer"
        )
        return answer

    def _answer(self, order: Order) -> Told | Rejected:
        try:
            return self._give(order)
        except BatonError as error:
            return self._rejected(error)
        except Exception:
            log.exception("an order failed", extra={"order": repr(order)})
            return Rejected("", 0, self._instance.id, Code.INTERNAL, "the monitor failed; its log says why", False)

    def _rejected(self, error: BatonError) -> Rejected:
        return Rejected("", 0, self._instance.id, error.code, str(error), error.retryable)

    async def _respond(self, delivery: Delivery, answer: Told | Rejected) -> None:
        try:
            await self._instance.bus.respond(delivery, answer)
        except BatonError as error:
            log.warning("an order is not answered", extra={"error": str(error)})
