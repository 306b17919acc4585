"""Buses of one kind and the link between them, over memory or a nats-server; a handler that keeps what it hears."""

from collections.abc import Awaitable, Callable

from shared.bus import Bus, Delivery
from shared.nats_bus import NatsBus
from tests.fakes import Hub
from tests.servers import NatsServer
from tests.waiting import until


class Link:
    """Makes buses of one kind and breaks the link between them."""

    def __init__(
        self, open_bus: Callable[[str], Awaitable[Bus]], cut: Callable[[], None], heal: Callable[[], None]
    ) -> None:
        self.cut = cut
        self.heal = heal
        self._open_bus = open_bus
        self._opened: list[Bus] = []

    async def bus(self, service: str = "tests") -> Bus:
        bus = await self._open_bus(service)
        self._opened.append(bus)
        return bus

    async def close(self) -> None:
        for bus in self._opened:
            await bus.close()


def memory_link() -> Link:
    hub = Hub()

    async def open_bus(service: str) -> Bus:
        return hub.bus(service)

    return Link(open_bus, hub.cut, hub.heal)


def nats_link(server: NatsServer) -> Link:
    async def open_bus(service: str) -> Bus:
        return await NatsBus.open(server.settings(), service=service)

    def heal() -> None:
        server.start()

    return Link(open_bus, server.kill, heal)


class Heard:
    """A handler that keeps what it was given, with waiting for a number of messages."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    @property
    def data(self) -> list[bytes]:
        return [delivery.data for delivery in self.deliveries]

    async def count(self, number: int) -> None:
        await until(lambda: len(self.deliveries) >= number, f"{number} messages come")
