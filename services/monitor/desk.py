"""What the buttons of our page ask for: carried out here where we lead, else passed on. Decides nothing."""

from collections.abc import Callable

from services.monitor.dashboard.figures import DrainOrder, Order
from services.monitor.orders import ANSWER_S, Orders
from shared.lifecycle import Instance
from shared.messages import Done, Drain, Rejected, Told
from shared.policy.fleet.events import DrainAsked, Event


class Desk:
    """Takes the page's orders."""

    def __init__(
        self, instance: Instance, orders: Orders, leading: Callable[[], bool], feed: Callable[[Event], None]
    ) -> None:
        self._instance = instance
        self._orders = orders
        self._leading = leading
        self._feed = feed

    async def place(self, order: Order) -> Told | Rejected:
        """Have an order carried out. Raises BatonError when the monitor that leads does not answer."""
        if isinstance(order, DrainOrder):
            return await self._drain(order.instance)
        return await self._orders.place(order)

    async def _drain(self, instance: str) -> Told | Rejected:
        if self._leading():
            self._feed(DrainAsked(instance))  # it leaves the map first
        control = self._instance.subjects.control(instance)
        order = Drain(self._instance.config.fleet.drain_s)
        answer: Done | Rejected = await self._instance.bus.request(
            control, order, Done | Rejected, timeout_s=ANSWER_S, what="answer"
        )
        if isinstance(answer, Rejected):
            return answer
        return Told(self._instance.id, f"{instance} finishes what it holds and leaves")
