"""What followers hear of a plan is what the leader's layout sees of it."""

from hypothesis import given
from hypothesis import strategies as st

from shared.engine.torch_engine.blocks import Blocks
from shared.engine.torch_engine.ranks.notes import Forward, for_follower, pack
from shared.engine.torch_engine.ranks.plans import Hearing, Telling
from shared.engine.torch_engine.scheduler import Plan, Scheduler
from shared.engine.torch_engine.sequence import Run
from tests.torch_rig import sequence

Seen = tuple[list[tuple[list[int], int, list[int]]], list[tuple[list[int], int, int, bool, list[int]]], list[int]]


def seen(plan: Plan) -> Seen:
    decodes = [(list(run.tokens), run.computed, list(run.blocks)) for run in plan.decodes]
    chunks = [(list(c.run.tokens), c.start, c.stop, c.completes, list(c.run.blocks)) for c in plan.chunks]
    return decodes, chunks, plan.fresh


def heard(hearing: Hearing, note: Forward) -> Plan:
    told = for_follower(pack(note))
    assert isinstance(told, Forward)
    return hearing.plan(told)


@given(st.lists(st.tuples(st.sampled_from("pppidr"), st.integers(1, 30)), max_size=40))
def test_a_plan_is_heard_as_it_was_made_whatever_came_and_went_before(events: list[tuple[str, int]]) -> None:
    scheduler = Scheduler(Blocks(60), block_size=4, max_sequences=8, chunk=9, prefix_cache=True)
    telling, hearing = Telling(), Hearing()
    for number, (event, size) in enumerate(events):
        if event == "p" and len(scheduler) < 5:
            scheduler.add_prefill(Run(sequence(str(number), list(range(size)))))
        elif event == "i" and len(scheduler) < 5:
            scheduler.add_decode(Run(sequence(str(number), list(range(size + 1)))), size)
        elif event == "d" and number:
            scheduler.drop(str(size % number))
        plan = scheduler.schedule()
        assert seen(heard(hearing, telling.note(plan))) == seen(plan)
        scheduler.advance(plan)
        for run in plan.decodes:
            run.tokens.append(size)
        for chunk in plan.chunks:
            if chunk.completes:
                scheduler.drop(chunk.run.key)


def test_a_decoding_sequence_is_told_its_new_token_and_no_more() -> None:
    scheduler = Scheduler(Blocks(60), block_size=4, max_sequences=8, chunk=9, prefix_cache=True)
    run, telling = Run(sequence("a", list(range(21)))), Telling()
    scheduler.add_decode(run, 20)
    sizes = []
    for token in range(6):
        plan = scheduler.schedule()
        (known,) = telling.note(plan).decodes
        sizes.append((len(known.tokens), len(known.blocks)))
        scheduler.advance(plan)
        run.tokens.append(token)
    assert sizes == [(21, 6), (1, 0), (1, 0), (1, 0), (1, 1), (1, 0)]


def test_nothing_is_kept_of_a_sequence_that_is_gone() -> None:
    telling, hearing = Telling(), Hearing()
    run = Run(sequence("a", [1, 2, 3]))
    heard(hearing, telling.note(Plan(decodes=[run])))
    heard(hearing, telling.note(Plan()))
    assert (telling._told, hearing._runs) == ({}, {})
