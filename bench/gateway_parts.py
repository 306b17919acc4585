"""The processes around the gateway in its benchmark: `python -m bench.gateway_parts PART ...` runs one of them.

`source` stands for the fleet; the clients are in `gateway_clients.py`, what the gateway is compared with in
`gateway_floors.py`. None of them shares code with the gateway's token path.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import uvloop

from bench.gateway_clients import hold, load, short
from bench.gateway_floors import floor, reply, sink, worker
from shared.bus import Delivery
from shared.config import FleetSettings, Nats
from shared.messages import (
    Accepted,
    Finish,
    Finished,
    Frame,
    Group,
    HandedOff,
    Member,
    PrefillRequest,
    Request,
    Role,
    ScenarioMap,
    State,
    Status,
    decode,
)
from shared.nats_bus import NatsBus
from shared.subjects import Subjects
from shared.tasks import Tasks

EPOCH = (1, 1)
HEARTBEAT_S = FleetSettings().heartbeat_s
SCENARIO = "chat"


@dataclass(slots=True)
class Live:
    """One stream of a gateway."""

    stream: int
    attempt: int
    index: int
    last: int
    prompt_tokens: int


class Source:
    """A prefill and a decode without a model: accepts every offer, then one frame per step for all streams.

    Each token's text is the time of its sending. A request for one token is answered at once, as a prefill does.
    """

    def __init__(self, bus: NatsBus, rate: float) -> None:
        self.bus, self.rate = bus, rate
        self.subjects = Subjects()
        self.tasks = Tasks("source")
        self.live: dict[str, dict[int, Live]] = {}  # by gateway

    async def run(self) -> None:
        """Serve for ever."""
        await self.bus.subscribe(self.subjects.prefill(SCENARIO, "p1"), self.on_offer)
        for name in ("p1", "d1"):
            await self.bus.subscribe(self.subjects.presence(name), lambda _: None)
        beat = self.tasks.spawn(self.beat(), name="beat")
        due = time.monotonic()
        while not beat.done():
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for gateway, live in self.live.items():
                if live:
                    await self.step(gateway, live)
        beat.result()

    async def beat(self) -> None:
        """Be seen as a fleet of two."""
        number = 0
        while True:
            number += 1
            group = Group("g1", [Member("p1", EPOCH)], [Member("d1", EPOCH)])
            await self.bus.publish(self.subjects.map(SCENARIO), ScenarioMap(SCENARIO, number, EPOCH, [group]))
            for name, role in (("p1", Role.PREFILL), ("d1", Role.DECODE)):
                status = Status(name, EPOCH, role, State.READY, SCENARIO, "g1", 100_000, 100_000, number=number)
                await self.bus.publish(self.subjects.status(SCENARIO, name), status)
            await asyncio.sleep(HEARTBEAT_S)

    def on_offer(self, delivery: Delivery) -> None:
        """Accept, and put the stream among those that step."""
        request = decode(delivery.data, PrefillRequest).request
        _ = self.tasks.spawn(self.accept(delivery, request), name="accept")

    async def accept(self, delivery: Delivery, request: Request) -> None:
        """Answer and hand off at once."""
        await self.bus.respond(delivery, Accepted(request.request_id, request.attempt, "p1", EPOCH))
        last = request.stopping.max_tokens
        live = Live(request.stream, request.attempt, request.generated, last, request.prompt_tokens)
        if last == 1:
            await self.step(request.gateway, {live.stream: live}, "p1")
            return
        handed = HandedOff(request.stream, request.request_id, request.attempt, "d1", EPOCH)
        await self.bus.publish(self.subjects.frames(request.gateway), handed, traced=False)
        self.live.setdefault(request.gateway, {})[request.stream] = live

    async def step(self, gateway: str, live: dict[int, Live], instance: str = "d1") -> None:
        """Publish the next token of every stream in one message."""
        these = list(live.values())
        words = f" {time.monotonic_ns()}"
        ended = [one for one in these if one.index + 1 >= one.last]
        frame = Frame(
            instance,
            EPOCH,
            [one.stream for one in these],
            [one.attempt for one in these],
            [one.index for one in these],
            [1000 + one.index % 50_000 for one in these],
            [words] * len(these),
            [Finished(one.stream, one.attempt, Finish.LENGTH, one.last, one.prompt_tokens) for one in ended],
        )
        await self.bus.publish(self.subjects.frames(gateway), frame, traced=False)
        for one in these:
            one.index += 1
        for one in ended:
            del live[one.stream]


async def source(options: argparse.Namespace) -> None:
    """Be the fleet."""
    bus = await NatsBus.open(Nats(url=options.nats), service="decode")
    await Source(bus, options.rate).run()


PARTS: dict[str, Callable[[argparse.Namespace], Awaitable[None]]] = {
    "source": source,
    "load": load,
    "short": short,
    "hold": hold,
    "floor": floor,
    "sink": sink,
    "reply": reply,
    "worker": worker,
}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--nats", default="")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pid", type=int, default=0, help="the process that is measured")
    parser.add_argument("--source", type=int, default=0, help="the source's process, whose CPU is told too")
    parser.add_argument("--key", default="", help="the API key to send")
    parser.add_argument("--model", default=SCENARIO)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--prompt", type=int, default=16, help="characters of the prompt")
    parser.add_argument("--stream", action="store_true", help="ask for a stream, in short answers too")
    parser.add_argument("--idle", action="store_true", help="hold connections without a request")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=50.0)
    options = parser.parse_args()
    uvloop.run(PARTS[options.part](options))


if __name__ == "__main__":
    main()
