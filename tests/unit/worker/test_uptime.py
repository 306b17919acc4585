"""Nothing in a worker grows with what it has done: what is alive after many requests was alive after few."""

import gc
import re
import sys
from collections import Counter

from shared.policy.known import REMEMBERED
from tests.fakes import a_request
from tests.unit.worker.relay import relay
from tests.unit.worker.uptime import Front

STREAMS = 20_000
EACH = 2_000
KEPT = 500
REQUESTS = 300


def alive() -> Counter[str]:
    """Objects that the collector knows, by type."""
    re.purge()  # the memory bus of the tests makes a pattern of each subject
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects())


async def test_twenty_thousand_streams_leave_no_more_alive_than_two_thousand() -> None:
    front = Front(kept=KEPT)
    objects: list[Counter[str]] = []
    blocks: list[int] = []  # of memory: numbers and texts, too, which no collector knows

    def look(served: int) -> None:
        if served % EACH == 0:
            objects.append(alive())
            blocks.append(sys.getallocatedblocks())

    await front.run(STREAMS, look)
    assert len(objects) == STREAMS // EACH
    assert len(front.roster.keeping) == KEPT
    assert front.bus.nbytes > STREAMS
    more = objects[-1] - objects[0]
    assert more.total() < (STREAMS - EACH) / 100, more.most_common(5)
    assert STREAMS - EACH > REMEMBERED  # by then all that is bounded has reached its bound
    assert blocks[-1] - blocks[-2] < EACH / 10


async def test_requests_through_a_whole_relay_leave_nothing_alive() -> None:
    async with relay() as r:
        objects: list[Counter[str]] = []
        for number in range(1, REQUESTS + 1):
            await r.gateway.offer(a_request(request_id=f"r{number}", stream=number))
            await r.run("d1", lambda number=number: bool(r.gateway.endings(number)))  # type: ignore[misc]
            await r.quiet()
            for seen in (
                r.gateway.frames,
                r.gateway.handed_off,
                r.spans,
                r.freed,
                r.hub.passed,
                r.engine("p1").released,
            ):
                seen.clear()
            if number in (REQUESTS // 3, REQUESTS):
                objects.append(alive())
    more = objects[1] - objects[0]
    assert more.total() < REQUESTS / 10, more.most_common(10)
