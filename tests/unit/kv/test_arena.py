"""Staging memory: ranges never overlap, nothing is lost, the memory is sealed."""

import fcntl
import mmap
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from shared.errors import Overloaded, TooLarge
from shared.kv.arena import Arena, Ranges

SIZE, ALIGNMENT = 64 * 16, 16


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class RangesUnderUse(RuleBasedStateMachine):
    """Takes and gives back at random, and keeps its own account of who holds which byte."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.ranges = Ranges(SIZE, ALIGNMENT)
        self.owned: dict[int, int] = {}

    @rule(target=taken, nbytes=st.integers(1, SIZE))
    def take(self, nbytes: int) -> int | None:
        free_before = self.ranges.free
        start = self.ranges.take(nbytes)
        rounded = self.ranges.rounded(nbytes)
        fitting = [low for low, high in free_before if high - low >= rounded]
        assert start == (fitting[0] if fitting else None), "first fit, and no refusal while a part is long enough"
        if start is not None:
            assert start % ALIGNMENT == 0
            assert rounded - ALIGNMENT < nbytes <= rounded
            self.owned[start] = start + rounded
        return start

    @rule(start=consumes(taken))
    def give_back(self, start: int | None) -> None:
        if start is not None:
            self.ranges.give_back(start)
            del self.owned[start]

    @invariant()
    def every_byte_is_free_or_has_one_owner(self) -> None:
        parts = sorted([*self.ranges.free, *self.owned.items()])
        assert [edge for part in parts for edge in part][1:-1:2] == [start for start, _ in parts][1:]
        assert (parts[0][0], parts[-1][1]) == (0, SIZE)
        assert self.ranges.held_bytes == sum(stop - start for start, stop in self.owned.items())

    @invariant()
    def free_neighbours_have_grown_together(self) -> None:
        free = self.ranges.free
        assert all(before[1] < after[0] for before, after in pairwise(free))


TestRangesUnderUse = RangesUnderUse.TestCase
TestRangesUnderUse.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def test_giving_back_what_nobody_holds_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Ranges(SIZE, ALIGNMENT).give_back(0)


def test_a_range_is_exactly_as_long_as_asked_for_and_its_own() -> None:
    arena = Arena(8 * mmap.PAGESIZE)
    first, second = arena.reserve(100), arena.reserve(mmap.PAGESIZE + 1)
    assert (len(first.view), len(second.view)) == (100, mmap.PAGESIZE + 1)
    first.view[:] = b"a" * 100
    second.view[:] = bytes(mmap.PAGESIZE + 1)
    assert bytes(first.view) == b"a" * 100
    assert arena.in_use == 3 * mmap.PAGESIZE
    first.release()
    second.release()
    assert arena.in_use == 0
    arena.close()


def test_a_second_release_does_nothing_even_when_another_holds_the_range_by_then() -> None:
    arena = Arena(mmap.PAGESIZE)
    first = arena.reserve(1)
    first.release()
    second = arena.reserve(1)
    first.release()
    assert arena.in_use == mmap.PAGESIZE
    with pytest.raises(ValueError, match="released"):
        _ = first.view
    second.release()
    arena.close()


def test_a_full_arena_is_overloaded_and_one_too_small_says_so() -> None:
    arena = Arena(2 * mmap.PAGESIZE)
    held = arena.reserve(mmap.PAGESIZE)
    with pytest.raises(Overloaded, match=str(mmap.PAGESIZE + 1)):
        arena.reserve(mmap.PAGESIZE + 1)
    with pytest.raises(TooLarge, match=str(2 * mmap.PAGESIZE + 1)):
        arena.reserve(2 * mmap.PAGESIZE + 1)
    held.release()
    arena.reserve(2 * mmap.PAGESIZE).release()
    arena.close()


def test_the_lowest_free_memory_is_used_again_first() -> None:
    arena = Arena(64 * mmap.PAGESIZE)
    for _ in range(10):
        staging = arena.reserve(3 * mmap.PAGESIZE)
        assert staging.offset == 0
        staging.release()
    arena.close()


def test_closing_twice_or_with_a_view_alive_is_fine_and_gives_the_descriptors_back() -> None:
    before = _descriptors()
    arena = Arena(mmap.PAGESIZE)
    view = arena.reserve(10).view
    arena.close()
    arena.close()
    view[:] = b"still mine"
    assert bytes(view) == b"still mine"
    view.release()
    del arena
    assert _descriptors() == before


def test_touching_brings_pages_into_being_and_changes_nothing() -> None:
    arena = Arena(8 << 20)
    arena.touch(1 << 40)
    staging = arena.reserve(8 << 20)
    assert not any(staging.view[:: mmap.PAGESIZE])
    staging.release()
    arena.close()
    arena.touch(1)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd")
def test_whoever_gets_the_descriptor_can_neither_shrink_nor_write_the_memory() -> None:
    arena = Arena(mmap.PAGESIZE)
    assert arena.fd is not None
    other = os.dup(arena.fd)
    with pytest.raises(PermissionError):
        os.ftruncate(other, 0)
    with pytest.raises(PermissionError):
        os.pwrite(other, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(other, mmap.PAGESIZE)
    with pytest.raises(PermissionError):
        fcntl.fcntl(other, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    staging = arena.reserve(5)
    staging.view[:] = b"still"
    assert os.pread(other, 5, staging.offset) == b"still"
    staging.release()
    os.close(other)
    arena.close()


def test_without_memfd_the_arena_is_anonymous_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    arena = Arena(10)
    assert arena.fd is None
    staging = arena.reserve(10)
    staging.view[:] = b"0123456789"
    staging.release()
    arena.close()


def test_an_arena_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Arena(0)
