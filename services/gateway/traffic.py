"""What becomes of a gateway's requests, told to the monitor about each second: counts and times by scenario and group.

Owns the counters, and what is learnt of parallel strategies. Hears of a request when it arrives, gets a worker, brings
its first token and ends; never of a token.
"""

import asyncio
import logging
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from services.gateway.prompts.scenarios import Scenario
from services.gateway.relay.record import Record
from shared.bus import Bus
from shared.errors import BatonError
from shared.messages import FRACTIONS, Epoch, Finished, Traffic
from shared.policy.steering.served import Served
from shared.subjects import Subjects

TELL_S: Final = 1.0
MOST_GROUPS: Final = 1024
"""Of one scenario, in a message."""
_MICRO: Final = 1_000_000

log = logging.getLogger(__name__)


class ScenarioTraffic:
    """The requests of one scenario since the gateway started. Times are of the monotonic clock."""

    def __init__(self, scenario: Scenario) -> None:
        self.arrived = self.refused = self.prompt_tokens = 0
        self.groups: defaultdict[str, Served] = defaultdict(Served)
        self._ttft_s, self._tpot_s = scenario.ttft_s, scenario.tpot_s

    def arrive(self, record: Record) -> None:
        """Count one that asks for a worker for the first time."""
        self.arrived += 1
        self.prompt_tokens += record.prompt_tokens

    def refuse(self, record: Record) -> None:
        """Count one that ended before any worker had it."""
        if not record.taken:
            self.refused += 1

    def take(self, record: Record, now: float) -> None:
        """Note that a worker has it."""
        record.taken = True
        record.held_at = record.held_at or now

    def first_token(self, record: Record, arrived: float, now: float) -> None:
        """Count an attempt's first token; the stream's first one by the time that it took."""
        self.take(record, now)  # the token may overtake the acceptance
        record.first_at = now
        if record.begun_at or record.before >= 0:  # a client has had tokens of it before
            record.begun_at = record.begun_at or now
            return
        record.begun_at = now
        served = self.groups[record.group]
        served.ttft[_bucket((now - arrived) / self._ttft_s)] += 1
        served.ttft_us += int((now - arrived) * _MICRO)

    def finish(self, record: Record, finished: Finished, now: float) -> None:
        """Count a good ending, unless all of it was there before any worker was asked."""
        if not record.group:
            return
        served = self.groups[record.group]
        new = max(0, finished.completion_tokens - record.resumed)
        served.finished += 1
        served.tokens += new
        if record.begun_at and new > 1:
            served.tpot[_bucket((now - record.begun_at) / (new - 1) / self._tpot_s)] += 1
        if record.first_at:
            served.e2e_us += int((now - record.held_at) * _MICRO)
            served.prefill_us += int(max(0.0, record.first_at - record.held_at) * _MICRO)

    def fail(self, record: Record) -> None:
        """Count an attempt that its worker ended badly, or with which it was lost."""
        if record.held_at:
            self.groups[record.group].failed += 1


class TrafficBook:
    """Of all scenarios. `run` is a task of its owner."""

    def __init__(self, scenarios: Iterable[Scenario]) -> None:
        self._of = {scenario.name: ScenarioTraffic(scenario) for scenario in scenarios}
        self._number = 0

    def of(self, scenario: str) -> ScenarioTraffic:
        """Return a scenario's counters."""
        return self._of[scenario]

    def messages(
        self,
        gateway: str,
        epoch: Epoch,
        *,
        waiting: Callable[[str], int],
        open_now: Callable[[str], int],
        listed: Callable[[str], Iterable[str]],
    ) -> list[Traffic]:
        """Say how far all scenarios are. `listed`: the groups that a scenario's map has."""
        self._number += 1
        told = []
        for name, traffic in self._of.items():
            _prune(traffic.groups, set(listed(name)))
            groups = [served.told(group) for group, served in traffic.groups.items() if group]
            told.append(
                Traffic(
                    gateway,
                    epoch,
                    name,
                    self._number,
                    traffic.arrived,
                    traffic.refused,
                    traffic.prompt_tokens,
                    waiting(name),
                    open_now(name),
                    groups[:MOST_GROUPS],
                )
            )
        return told


class TrafficReports:
    """Sends them."""

    def __init__(self, bus: Bus, subjects: Subjects, messages: Callable[[], list[Traffic]]) -> None:
        self._bus = bus
        self._subjects = subjects
        self._messages = messages

    async def run(self, each: Callable[[], None]) -> None:
        """Tell about each second, for ever; `each` is called before."""
        while True:
            await asyncio.sleep(TELL_S)
            each()
            await self.tell()

    async def tell(self) -> None:
        """Tell now. What is not heard is in the next one, too."""
        for message in self._messages():
            try:
                subject = self._subjects.traffic(message.scenario, message.gateway)
                await self._bus.publish(subject, message, traced=False)
            except BatonError as error:
                log.debug("traffic not told", extra={"scenario": message.scenario, "why": str(error)})


def _bucket(fraction: float) -> int:
    return bisect_left(FRACTIONS, fraction)


def _prune(groups: dict[str, Served], listed: set[str]) -> None:
    """Forget groups that are gone, where there were many."""
    for group in [group for group in groups if group not in listed][: max(0, len(groups) - MOST_GROUPS)]:
        del groups[group]
