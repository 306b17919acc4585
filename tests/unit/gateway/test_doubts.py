"""A stream that is silent or has a gap: a worker is asked before anything is computed again."""

from dataclasses import dataclass, field
from typing import Any, cast

from services.gateway.relay.doubts import AT_ONCE, Doubts
from services.gateway.relay.record import ASK_S, Record
from services.gateway.relay.stalls import Stalls
from shared.bus import BusStats
from shared.config import FleetSettings
from shared.errors import Code
from shared.messages import Claimed, Finish, Finished, Request, Sampling, Stopping, pack_tokens
from shared.policy.dispatch_events import Stalled
from shared.tasks import Tasks
from tests.unit.gateway.test_records import House, finished
from tests.waiting import until


@dataclass
class Workers:
    """Answers as the test wants it."""

    told: dict[str, Claimed] = field(default_factory=dict)
    all_answered: bool = True
    asked: list[dict[str, str]] = field(default_factory=list)

    async def look(self, scenario: str, held: dict[str, str]) -> tuple[dict[str, Claimed], bool]:
        self.asked.append(held)
        return self.told, self.all_answered


@dataclass
class Line:
    """To NATS."""

    connected: bool = True
    stats: BusStats = field(default_factory=BusStats)


def claimed(record: Record, ids: list[int], *, attempt: int = 0, ended: Finished | None = None) -> Claimed:
    tokens = pack_tokens([1, 2, 3, *ids])
    request = Request(record.request_id, attempt, "g", 0, tokens, 3, Sampling(), Stopping(99), 0, 0)
    return Claimed("d1", request, [f"<{one}>" for one in ids], [], ended)


async def asked(house: House, workers: Workers, where: str | None = "d1") -> None:
    tasks = Tasks("test")
    doubts = Doubts(
        house.records, cast(Any, workers), tasks, where=lambda _: where, scenario_of=lambda _: "chat"
    )  # fmt: skip
    assert doubts.ask([house.record]) == []
    await until(lambda: not len(tasks), "the answer is taken in")
    await tasks.close()


async def test_a_token_that_was_lost_on_the_way_is_told_again_and_the_attempt_goes_on() -> None:
    house = House()
    house.frame((0, 0, "a"))
    house.frame((0, 2, "c"))
    await asked(house, Workers({house.record.request_id: claimed(house.record, [100, 101, 102])}))
    assert house.sink.shown == [(0, "a"), (1, "<101>"), (2, "c")]
    assert house.record.ids == [100, 101, 102]
    house.frame((0, 3, "d"), ended=[finished(4)])
    assert house.sink.reason is Finish.LENGTH
    assert ("failed", Code.WORKER_LOST) not in [one[:2] for one in house.heard.said]


async def test_an_ending_that_was_lost_is_told_again() -> None:
    house = House()
    house.frame((0, 0, "a"))
    end = Finished(7, 0, Finish.STOP, 2, 3)
    await asked(house, Workers({house.record.request_id: claimed(house.record, [100, 101], ended=end)}))
    assert house.sink.shown == [(0, "a"), (1, "<101>")]
    assert house.sink.reason is Finish.STOP
    assert len(house.records) == 0


async def test_what_is_told_of_another_attempt_is_nothing() -> None:
    house = House()
    house.frame((0, 0, "a"))
    house.record.still_s = 1.0
    workers = Workers({house.record.request_id: claimed(house.record, [100, 101], attempt=5)}, all_answered=False)
    await asked(house, workers)
    assert house.record.ids == [100]


async def test_a_stream_that_nobody_has_is_given_up_at_once_but_only_when_everybody_has_answered() -> None:
    house = House()
    house.frame((0, 0, "a"))
    house.record.still_s = 1.0
    await asked(house, Workers(all_answered=False))
    assert house.record.speaking
    await asked(house, Workers(all_answered=True))
    assert not house.record.speaking


async def test_nobody_is_asked_for_a_request_that_waits() -> None:
    house, workers = House(), Workers()
    await asked(house, workers, where=None)
    assert workers.asked == []


async def test_all_that_are_silent_are_asked_for_and_whoever_comes_meanwhile_has_the_next_turn() -> None:
    house = House(streams=AT_ONCE + 5)
    workers, tasks = Workers(all_answered=False), Tasks("test")
    doubts = Doubts(
        house.records, cast(Any, workers), tasks, where=lambda _: "d1", scenario_of=lambda _: "chat"
    )  # fmt: skip
    assert doubts.ask(house.all[1:]) == []
    assert doubts.ask([house.record]) == [house.record]
    await until(lambda: not len(tasks), "the answers are taken in")
    assert [len(names) for names in workers.asked] == [AT_ONCE, 4]
    assert doubts.ask([house.record]) == []
    await tasks.close()


def test_silence_is_asked_about_ever_more_seldom_and_at_once_after_the_bus_was_away() -> None:
    house = House()
    house.frame((0, 0, "a"))
    house.record.handed_off = True
    heard: list[float] = []
    stalled: list[Stalled] = []
    now, bus = 0.0, Line()
    stalls = Stalls(
        house.records,
        FleetSettings(progress_s=10.0),
        first_token_s=lambda _: 60.0,
        tell=stalled.append,
        ask=lambda _: heard.append(now) or [],  # type: ignore[func-returns-value]
        bus=cast(Any, bus),
    )
    for step in range(1, 41):
        now, bus.connected = step / 2, not 30 <= step < 36
        bus.stats.reconnects = int(step >= 36)
        stalls.sweep(0.5)
    silence = [at - heard[0] for at in heard]
    assert heard[0] >= ASK_S
    assert silence[:3] == [0.0, 1.0, 3.0]
    assert 18.0 in heard, "as soon as the bus is back"
    assert not any(15.0 <= at < 18.0 for at in heard), "while it is away nobody's silence means anything"
    assert stalled
    assert house.record.speaking, "it may still bring tokens until somebody else is asked"
