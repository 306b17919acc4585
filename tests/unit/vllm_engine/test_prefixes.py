"""The guess at vLLM's prefix cache."""

from shared.engine.vllm_engine.prefixes import Prefixes

LONG = list(range(100))


def test_whole_blocks_of_a_known_beginning_are_counted() -> None:
    prefixes = Prefixes(100, 16)
    assert prefixes.count(LONG) == 0
    prefixes.add(LONG)
    assert prefixes.count(LONG) == 96
    assert prefixes.count(LONG[:96]) == 80  # the last token is always computed
    assert prefixes.count([*LONG[:40], 7, 7, 7, *LONG[43:]]) == 32
    assert prefixes.count([1, *LONG]) == 0


def test_the_oldest_is_forgotten_first_and_use_makes_young() -> None:
    prefixes = Prefixes(4, 16)
    first, second, third = ([n] * 33 for n in (1, 2, 3))
    prefixes.add(first)
    prefixes.add(second)
    prefixes.add(first)
    prefixes.add(third)
    assert [prefixes.count(one) for one in (first, second, third)] == [32, 0, 32]


def test_an_engine_without_a_cache_has_nothing() -> None:
    prefixes = Prefixes(0, 16)
    prefixes.add(LONG)
    assert prefixes.count(LONG) == 0
