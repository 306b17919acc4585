"""The block allocator and the prefix index."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.engine.torch_engine.blocks import Blocks, digests

SIZE = 4


def test_allocation_is_all_or_nothing_and_never_hands_out_block_zero() -> None:
    blocks = Blocks(3)
    assert sorted(blocks.allocate(3) or []) == [1, 2, 3]
    assert blocks.allocate(1) is None
    assert blocks.allocate(0) == []
    assert blocks.free == 0


def test_a_digest_names_the_whole_prefix_and_partial_blocks_have_none() -> None:
    first = list(digests([1, 2, 3, 4, 5, 6, 7, 8, 9], SIZE))
    assert len(first) == 2
    assert list(digests([1, 2, 3, 4, 5, 6, 7, 8], SIZE)) == first
    other = list(digests([9, 2, 3, 4, 5, 6, 7, 8], SIZE))
    assert other[1] != first[1]  # the same four tokens after another beginning
    assert list(digests([1, 2, 3, 4], SIZE, salt=b"tenant")) != first[:1]


def test_a_released_prefix_is_found_again_and_counts_as_free() -> None:
    blocks = Blocks(4)
    names = list(digests(range(8), SIZE))
    held = blocks.allocate(2) or []
    for block, name in zip(held, names, strict=True):
        blocks.publish(block, name)
    blocks.release(held)
    assert blocks.free == 4
    assert blocks.match(names) == held
    assert blocks.free == 2


def test_eviction_takes_the_longest_unused_prefix_from_its_end() -> None:
    blocks = Blocks(4)
    old, new = list(digests(range(8), SIZE)), list(digests(range(100, 108), SIZE))
    for names in (old, new):
        held = blocks.allocate(2) or []
        for block, name in zip(held, names, strict=True):
            blocks.publish(block, name)
        blocks.release(held)
    assert blocks.allocate(1) is not None
    assert len(blocks.match(old)) == 1
    assert len(blocks.match(new)) == 2


def test_of_equal_blocks_the_first_stays_indexed_and_the_other_is_freed() -> None:
    blocks = Blocks(2)
    name = next(iter(digests(range(SIZE), SIZE)))
    first, second = blocks.allocate(2) or []
    blocks.publish(first, name)
    blocks.publish(second, name)
    blocks.release([second])
    blocks.release([first])
    assert blocks.cached == 1
    assert blocks.match([name]) == [first]


class Machine(RuleBasedStateMachine):
    """Random users that share, publish and release; a model of who holds what is kept beside."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Blocks(12)
        self.held: list[tuple[list[int], list[int]]] = []  # tokens, blocks

    @rule(letters=st.lists(st.integers(0, 1), min_size=1, max_size=5), tail=st.integers(1, SIZE))
    def begin(self, letters: list[int], tail: int) -> None:
        tokens = [letter for letter in letters for _ in range(SIZE)] + [7] * tail
        names = list(digests(tokens, SIZE))
        found = self.blocks.match(names[: (len(tokens) - 1) // SIZE])
        free = self.blocks.free
        taken = self.blocks.allocate(-(-len(tokens) // SIZE) - len(found))
        if taken is None:
            assert free < -(-len(tokens) // SIZE) - len(found)
            self.blocks.release(found)
            return
        mine = found + taken
        for others, theirs in self.held:
            shared = set(mine) & set(theirs)
            for block in shared:  # shared only where both have the same tokens up to there
                place = mine.index(block)
                assert theirs.index(block) == place
                assert others[: (place + 1) * SIZE] == tokens[: (place + 1) * SIZE]
        for block, name in zip(mine, names, strict=False):
            self.blocks.publish(block, name)
        self.held.append((tokens, mine))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        _, mine = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.blocks.release(mine)

    @invariant()
    def every_block_is_in_one_state_and_none_is_lost(self) -> None:
        self.blocks.check()
        assert self.blocks.free == 12 - len({block for _, mine in self.held for block in mine})


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBlocksUnderRandomUse = Machine.TestCase
