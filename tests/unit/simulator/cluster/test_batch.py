"""A run of steps as one event is the same as its steps one by one."""

import random
from dataclasses import dataclass, field

import pytest

from simulator.clock import Clock
from simulator.cluster.batch import Batch
from simulator.cluster.sequences import Prompt, Sequence
from simulator.engine.profile import Profile


@dataclass(frozen=True)
class Straight:
    """Linear in batch and context."""

    fixed: float = 0.01
    each: float = 0.001
    token: float = 1e-5

    def prefill_s(self, new: int, cached: int) -> float:
        return 0.02 + 1e-4 * new

    def step_s(self, batch: int, context: float) -> float:
        return self.fixed + self.each * batch + self.token * context

    def mixed_s(self, new: int, behind: int, batch: int, context: float) -> float:
        return self.prefill_s(new, behind) + self.each * batch + self.token * context


@dataclass
class Ask:
    """One sequence to come."""

    at: float
    tokens: int
    left: int
    leaves: float | None = None


def profile(blocks: int = 1 << 30) -> Profile:
    return Profile("test", Straight(), kv_tokens=16 * blocks, kv_bytes_per_token=1)


def ends_by_steps(asks: list[Ask]) -> dict[int, float]:
    """The reference: one step after another."""
    timing, now, ends = Straight(), 0.0, {}
    waiting = sorted(range(len(asks)), key=lambda number: asks[number].at)
    running: dict[int, list[int]] = {}  # tokens held, tokens left
    while waiting or running:
        gone = [number for number in running if (at := asks[number].leaves) is not None and at <= now]
        for number in gone:
            del running[number]
        while waiting and asks[waiting[0]].at <= now:
            number = waiting.pop(0)
            leaves = asks[number].leaves
            if leaves is None or leaves > now:
                running[number] = [asks[number].tokens, asks[number].left]
        if not running:
            if waiting:
                now = asks[waiting[0]].at
            continue
        now += timing.step_s(len(running), sum(held for held, _ in running.values()))
        for number, state in list(running.items()):
            state[0] += 1
            state[1] -= 1
            if not state[1]:
                ends[number] = now
                del running[number]
    return ends


@dataclass
class Rig:
    """What became of them."""

    clock: Clock = field(default_factory=Clock)
    ends: dict[int, float] = field(default_factory=dict)
    evicted: list[int] = field(default_factory=list)
    sequences: dict[int, Sequence] = field(default_factory=dict)

    def run(self, batch: Batch, asks: list[Ask]) -> None:
        for number, ask in enumerate(asks):
            self.clock.at(ask.at, self.join, batch, number, ask)
            if ask.leaves is not None:
                self.clock.at(ask.leaves, self.leave, batch, number)
        self.clock.run()

    def join(self, batch: Batch, number: int, ask: Ask) -> None:
        sequence = Sequence(ask.tokens, ask.left, lambda: self.over(number), lambda: self.evicted.append(number))
        self.sequences[number] = sequence
        batch.join(sequence)

    def leave(self, batch: Batch, number: int) -> None:
        if number in self.sequences and number not in self.ends:
            batch.leave(self.sequences[number])

    def over(self, number: int) -> None:
        self.ends[number] = self.clock.now


@pytest.mark.parametrize("seed", range(12))
def test_every_sequence_ends_when_it_would_step_by_step(seed: int) -> None:
    rng = random.Random(seed)
    asks = [Ask(rng.uniform(0, 4), rng.randint(1, 900), rng.randint(1, 120)) for _ in range(60)]
    for ask in asks[::7]:
        ask.leaves = ask.at + rng.uniform(0.0, 2.0)
    rig = Rig()
    batch = Batch(rig.clock, profile())
    rig.run(batch, asks)
    expected = ends_by_steps(asks)
    assert rig.ends.keys() == expected.keys()
    assert all(rig.ends[number] == pytest.approx(expected[number], rel=1e-9) for number in expected)
    assert not len(batch)
    assert not batch.busy


def test_a_run_of_steps_is_one_event() -> None:
    rig = Rig()
    rig.run(Batch(rig.clock, profile()), [Ask(0.0, 100, 10_000)])
    assert rig.clock.happened < 5


def test_a_sequence_that_comes_during_a_step_gets_its_first_token_with_the_next() -> None:
    rig = Rig()
    batch = Batch(rig.clock, profile())
    rig.run(batch, [Ask(0.0, 1, 3), Ask(0.001, 1, 1)])
    timing = Straight()
    first = timing.step_s(1, 1)
    assert rig.ends[1] == pytest.approx(first + timing.step_s(2, 3))


def test_the_tokens_of_a_sequence_can_be_counted_at_any_time() -> None:
    rig = Rig()
    batch = Batch(rig.clock, profile())
    sequence = Sequence(10, 50, lambda: None, lambda: None)
    batch.join(sequence)
    seen = []
    for number in range(1, 30):
        rig.clock.at(number * 0.05, lambda: seen.append(batch.generated(sequence)))
    rig.clock.run()
    timing, now, by_steps, number = Straight(), 0.0, [], 0
    for moment in range(1, 30):
        while number < 50 and now + timing.step_s(1, 10 + number) <= moment * 0.05:
            now += timing.step_s(1, 10 + number)
            number += 1
        by_steps.append(number)
    assert seen == by_steps


def test_without_blocks_the_youngest_has_to_go() -> None:
    rig = Rig()
    batch = Batch(rig.clock, profile(blocks=10))  # 160 tokens
    rig.run(batch, [Ask(0.0, 60, 60), Ask(0.001, 60, 60)])
    assert rig.evicted == [1]
    assert list(rig.ends) == [0]
    assert batch.free_blocks == 10


def test_prompts_in_chunks_let_decoding_go_on_and_prompts_alone_do_not() -> None:
    ends = {}
    for alone in (False, True):
        rig = Rig()
        batch = Batch(rig.clock, profile(), chunk=128, alone=alone)
        computed: list[float] = []
        prompt = Prompt(1000, 0, lambda rig=rig, computed=computed: computed.append(rig.clock.now))  # type: ignore[misc]
        rig.clock.at(0.001, batch.compute, prompt)
        rig.run(batch, [Ask(0.0, 10, 4)])
        ends[alone] = rig.ends[0], computed[0]
    assert ends[False][0] < ends[True][0], "beside chunks it gets its tokens"
    assert ends[True][1] < ends[False][1], "alone the prompt is computed sooner"


def test_one_that_stands_still_goes_on_where_it_was() -> None:
    rig = Rig()
    batch = Batch(rig.clock, profile())
    rig.clock.at(0.1, batch.stop)
    rig.clock.at(5.0, batch.go_on)
    rig.run(batch, [Ask(0.0, 1, 20), Ask(1.0, 1, 1)])
    still = Straight()
    whole = ends_by_steps([Ask(0.0, 1, 20)])[0]
    assert 4.9 < rig.ends[0] - whole < 5.0 + 2 * still.step_s(2, 30)
    assert rig.ends[1] > 5.0
