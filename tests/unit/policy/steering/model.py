"""A queueing model of one group, request by request: what its workers would count, whatever ratio they have.

A prefill computes its prompts one after another; each keeps its slot until a decode has room. A decode gives all its
sequences a token per step, and a step takes a + c*b seconds. Requests come in a closed loop, or at a rate.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from shared.messages import GroupTraffic, Role, State, Status, Traffic, Work

SLICE_S = 0.2
MICRO = 1_000_000

Draw = Callable[[random.Random], tuple[float, int]]
"""Seconds of a prompt, tokens of its answer."""


def lognormal(mean_prompt_s: float, mean_tokens: float, spread: float = 0.7) -> Draw:
    shift = spread * spread / 2

    def draw(source: random.Random) -> tuple[float, int]:
        prompt = source.lognormvariate(math.log(mean_prompt_s) - shift, spread)
        return prompt, max(1, round(source.lognormvariate(math.log(mean_tokens) - shift, spread)))

    return draw


@dataclass(slots=True)
class Worker:
    """One instance in one of its lives."""

    name: str
    role: Role
    epoch: int
    slots: int
    ready_at: float = 0.0
    prompts: deque[list[float]] = field(default_factory=deque)  # seconds left, tokens of the answer
    kept: deque[int] = field(default_factory=deque)  # computed: tokens of the answer
    batch: list[float] = field(default_factory=list)  # heap of the virtual times at which sequences end
    virtual: float = 0.0  # tokens that each sequence was given since the start
    slot_s: float = 0.0
    busy_s: float = 0.0
    wait_s: float = 0.0
    passed: int = 0
    tokens: float = 0.0
    number: int = 0

    @property
    def used(self) -> int:
        return len(self.prompts) + len(self.kept) + len(self.batch)

    @property
    def free(self) -> int:
        return self.slots - self.used


class Group:
    """Prefills and decodes under a load."""

    def __init__(self, prefills: int, decodes: int, draw: Draw, seed: int = 1) -> None:
        self.draw = draw
        self.step = (0.020, 0.0003)
        self.slots = {Role.PREFILL: 2, Role.DECODE: 16}
        self.outstanding = 0  # of the closed loop
        self.rate = 0.0  # of the open one
        self.done = 0
        self.now = 0.0
        self.waiting = 0.0
        self.workers: list[Worker] = []
        self._source = random.Random(seed)  # noqa: S311
        self._lives = 0
        self._arrived = 0.0
        self._messages = 0
        self.reshape(prefills, decodes)

    def of(self, role: Role) -> list[Worker]:
        return [one for one in self.workers if one.role is role and one.ready_at <= self.now]

    @property
    def settled(self) -> bool:
        return all(one.ready_at <= self.now for one in self.workers)

    def reshape(self, prefills: int, decodes: int) -> None:
        """Flip, add or remove workers; a flipped one serves three seconds later, its requests begin again elsewhere."""
        for role, wanted in ((Role.PREFILL, prefills), (Role.DECODE, decodes)):
            present = [one for one in self.workers if one.role is role]
            for surplus in present[wanted:]:
                self.workers.remove(surplus)
                self.waiting += surplus.used
        for role, wanted in ((Role.PREFILL, prefills), (Role.DECODE, decodes)):
            for _ in range(wanted - sum(one.role is role for one in self.workers)):
                self._lives += 1
                ready = self.now + 3.0 if self.now else 0.0
                self.workers.append(Worker(f"w{self._lives}", role, self._lives, self.slots[role], ready))

    @property
    def in_flight(self) -> float:
        return self.waiting + sum(one.used for one in self.workers)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / SLICE_S)):
            self._slice()

    def _slice(self) -> None:
        come = self.rate * SLICE_S
        if self.outstanding:
            come = max(0.0, self.outstanding - self.in_flight)
        elif come:
            come = float(self._source.random() < come % 1.0) + come // 1.0
        self.waiting += come
        self._arrived += come
        self._offer()
        for prefill in self.of(Role.PREFILL):
            self._compute(prefill)
        for decode in self.of(Role.DECODE):
            self._decode(decode)
        self._hand_over()
        self.now += SLICE_S

    def _offer(self) -> None:
        for prefill in sorted(self.of(Role.PREFILL), key=lambda one: one.used):
            while self.waiting >= 1.0 and prefill.free > 0:
                prompt, tokens = self.draw(self._source)
                prefill.prompts.append([prompt, float(tokens)])
                self.waiting -= 1.0

    def _compute(self, prefill: Worker) -> None:
        left = SLICE_S
        prefill.wait_s += SLICE_S * len(prefill.kept)
        while prefill.prompts and left > 0.0:
            took = min(left, prefill.prompts[0][0])
            prefill.slot_s += took * len(prefill.prompts)
            prefill.busy_s += took
            prefill.prompts[0][0] -= took
            left -= took
            if prefill.prompts[0][0] <= 1e-12:
                prefill.kept.append(int(prefill.prompts.popleft()[1]))
            if self.waiting >= 1.0 and prefill.free > 0:  # a slot never stays free while somebody waits
                self._offer()

    def _decode(self, decode: Worker) -> None:
        count = len(decode.batch)
        if not count:
            return
        given = SLICE_S / (self.step[0] + self.step[1] * count)
        decode.virtual += given
        decode.slot_s += SLICE_S * count
        decode.busy_s += SLICE_S
        decode.tokens += given * count
        while decode.batch and decode.batch[0] <= decode.virtual:
            heapq.heappop(decode.batch)
            decode.passed += 1
            self.done += 1

    def _hand_over(self) -> None:
        decodes = self.of(Role.DECODE)
        for prefill in self.of(Role.PREFILL):
            while prefill.kept and decodes:
                best = max(decodes, key=lambda one: one.free)
                if best.free <= 0:
                    return
                heapq.heappush(best.batch, best.virtual + prefill.kept.popleft())
                prefill.passed += 1

    def messages(self, name: str = "main", scenario: str = "chat") -> Iterator[Status | Traffic]:
        for one in self.workers:
            if one.ready_at > self.now:
                continue
            one.number += 1
            work = Work(
                passed=one.passed,
                slot_us=round(one.slot_s * MICRO),
                busy_us=round(one.busy_s * MICRO),
                wait_us=round(one.wait_s * MICRO),
                tokens=int(one.tokens) if one.role is Role.DECODE else round(one.busy_s * 3000),
            )
            state = Status(one.name, (1, one.epoch), one.role, State.READY, scenario, name, one.slots, one.free)
            yield Status(
                **{field: getattr(state, field) for field in state.__struct_fields__}
                | {"number": one.number, "work": work}
            )
        self._messages += 1
        yield Traffic(
            "gw",
            (1, 1),
            scenario,
            self._messages,
            arrived=round(self._arrived),
            waiting=int(self.waiting),
            open=int(self.in_flight),
            groups=[GroupTraffic(name, finished=self.done)],
        )

    def capable(self, prefills: int, decodes: int, prompt_s: float, tokens: float) -> float:
        """Requests/s that so many can do, by their true times."""
        full = self.slots[Role.DECODE]
        return min(prefills / prompt_s, decodes * full / (self.step[0] + self.step[1] * full) / tokens)
