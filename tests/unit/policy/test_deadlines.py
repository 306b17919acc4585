"""The table of deadlines against a plain one."""

from hypothesis import given
from hypothesis import strategies as st

from shared.policy.deadlines import SLACK, Deadlines

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 50)),
        st.tuples(st.just("drop"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("due"), st.just(0), st.integers(0, 50)),
        st.tuples(st.just("next"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_deadlines_behave_like_a_plain_table_of_times(steps: list[tuple[str, int, int]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    table: dict[int, float] = {}
    for kind, key, at in steps:
        if kind == "set":
            deadlines.set(key, at)
            table[key] = at
        elif kind == "drop":
            deadlines.drop(key)
            table.pop(key, None)
        elif kind == "due":
            due = sorted(deadlines.due(at))
            assert due == sorted(key for key, when in table.items() if when <= at)
            for gone in due:
                del table[gone]
        assert deadlines.next() == min(table.values(), default=None)
        assert len(deadlines) == len(table)
        assert all(deadlines.get(key) == when for key, when in table.items())


def test_keys_come_due_in_the_order_of_their_times() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for key, at in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        deadlines.set(key, at)
    assert deadlines.due(2.5) == ["a", "b"]


def test_a_million_moves_and_drops_leave_a_small_heap() -> None:
    deadlines: Deadlines[int] = Deadlines()
    for number in range(10_000):
        deadlines.set(number, 1_000_000.0 - number)  # each earlier than the one before
        deadlines.set(0, float(number))
        if number:
            deadlines.drop(number)
    assert len(deadlines._heap) <= SLACK + 4
