"""The scheduler: chunks, the running batch, preemption, and where blocks go."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.engine.torch_engine.blocks import Blocks
from shared.engine.torch_engine.scheduler import Plan, Scheduler
from shared.engine.torch_engine.sequence import Run
from shared.errors import BadRequest, Overloaded
from tests.torch_rig import sequence

SIZE = 4


def scheduler(blocks: int = 8, *, places: int = 8, chunk: int = 8, cache: bool = True) -> Scheduler:
    return Scheduler(Blocks(blocks), block_size=SIZE, max_sequences=places, chunk=chunk, prefix_cache=cache)


def prompt(key: str, length: int, first: int = 0) -> Run:
    return Run(sequence(key, list(range(first, first + length))), memoryview(bytearray(1)))


def spans(plan: Plan) -> list[tuple[str, int, int]]:
    return [(chunk.run.key, chunk.start, chunk.stop) for chunk in plan.chunks]


def test_prompts_share_a_steps_tokens_first_come_first_served() -> None:
    s = scheduler()
    for key, length in (("a", 10), ("b", 3), ("c", 4)):
        s.add_prefill(prompt(key, length, first=100 * ord(key)))
    plan = s.schedule()
    assert spans(plan) == [("a", 0, 8)]
    s.advance(plan)
    plan = s.schedule()
    assert spans(plan) == [("a", 8, 10), ("b", 0, 3), ("c", 0, 3)]
    assert [chunk.completes for chunk in plan.chunks] == [True, True, False]
    s.advance(plan)
    assert spans(s.schedule()) == [("c", 3, 4)]


def test_a_second_prompt_starts_after_the_cached_prefix_but_computes_one_token_at_least() -> None:
    s = scheduler()
    for key, length in (("a", 8), ("b", 8), ("c", 9)):
        s.add_prefill(prompt(key, length))
        plan = s.schedule()
        assert spans(plan) == [(key, {"a": 0, "b": 4, "c": 8}[key], length)]
        s.advance(plan)
        s.drop(key)
    assert s.blocks.free == 8


def test_without_the_prefix_cache_nothing_is_shared() -> None:
    s = scheduler(cache=False)
    for key in "ab":
        s.add_prefill(prompt(key, 8))
        plan = s.schedule()
        assert spans(plan) == [(key, 0, 8)]
        s.advance(plan)


def test_a_prompt_without_room_is_refused_and_leaves_nothing() -> None:
    s = scheduler(blocks=2)
    with pytest.raises(Overloaded):
        s.add_prefill(prompt("a", 9))
    assert (s.blocks.free, len(s)) == (2, 0)
    s = scheduler(places=1)
    s.add_prefill(prompt("a", 1))
    with pytest.raises(Overloaded):
        s.add_prefill(prompt("b", 1))
    with pytest.raises(BadRequest):
        s.add_prefill(prompt("a", 1))


def test_out_of_blocks_the_youngest_decoding_sequence_is_pushed_out() -> None:
    s = scheduler(blocks=4, cache=False)
    runs = {key: Run(sequence(key, [1, 2, 3, 4, 5])) for key in "abcd"}
    for key, computed in (("a", 3), ("b", 3), ("c", 4)):
        s.add_decode(runs[key], computed)
    assert s.blocks.free == 0
    plan = s.schedule()
    assert ([run.key for run in plan.decodes], plan.preempted, plan.fresh) == (["a", "b", "c"], [], [])
    s.advance(plan)
    plan = s.schedule()
    assert [run.key for run in plan.decodes] == ["a", "b"]
    assert [run.key for run in plan.preempted] == ["c"]
    assert sorted(plan.fresh) == sorted([runs["a"].blocks[-1], runs["b"].blocks[-1]])
    assert (len(s), s.blocks.free) == (2, 0)


def test_a_sequence_alone_that_needs_more_than_there_is_pushes_itself_out() -> None:
    s = scheduler(blocks=1)
    s.add_decode(Run(sequence("a", [1, 2, 3, 4])), 3)
    s.advance(s.schedule())
    plan = s.schedule()
    assert [run.key for run in plan.preempted] == ["a"]
    assert not plan
    assert s.blocks.free == 1


def test_fresh_blocks_are_those_that_will_be_read_beyond_what_is_written() -> None:
    s = scheduler()
    run = prompt("a", 10)
    s.add_prefill(run)
    plan = s.schedule()
    assert plan.fresh == [run.blocks[-1]]
    s.advance(plan)
    assert s.schedule().fresh == []


class Machine(RuleBasedStateMachine):
    """Random traffic through prefill and decode, with releases at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.s = scheduler(blocks=10, places=5, chunk=6)
        self.number = 0
        self.runs: dict[str, Run] = {}

    def key(self) -> str:
        self.number += 1
        return str(self.number)

    @rule(length=st.integers(1, 20), first=st.integers(0, 1))
    def prefill(self, length: int, first: int) -> None:
        run, free = prompt(self.key(), length, first), self.s.blocks.free
        try:
            self.s.add_prefill(run)
        except Overloaded:
            assert self.s.blocks.free == free
            return
        self.runs[run.key] = run

    @rule(length=st.integers(2, 20))
    def insert(self, length: int) -> None:
        run, free = Run(sequence(self.key(), list(range(length)))), self.s.blocks.free
        try:
            self.s.add_decode(run, length - 1)
        except Overloaded:
            assert self.s.blocks.free == free
            return
        self.runs[run.key] = run

    @rule()
    def step(self) -> None:
        plan = self.s.schedule()
        assert sum(chunk.stop - chunk.start for chunk in plan.chunks) <= 6
        for run in plan.preempted:
            assert not run.blocks
            del self.runs[run.key]
        for run in plan.decodes:
            assert len(run.blocks) * SIZE > run.computed
        self.s.advance(plan)
        for run in plan.decodes:
            run.tokens.append(1)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.runs)))
        self.s.drop(key)
        self.s.drop(key)
        del self.runs[key]

    @invariant()
    def blocks_are_conserved_and_only_full_prompt_blocks_are_shared(self) -> None:
        self.s.blocks.check()
        assert len(self.s) == len(self.runs)
        held = {block for run in self.runs.values() for block in run.blocks}
        assert self.s.blocks.free == 10 - len(held)
        private = [block for run in self.runs.values() for block in run.blocks[run.published :]]
        assert len(private) == len(set(private))

    def teardown(self) -> None:
        for key in self.runs:
            self.s.drop(key)
        assert self.s.blocks.free == 10


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSchedulerUnderRandomTraffic = Machine.TestCase
