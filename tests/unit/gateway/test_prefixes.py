"""The marks of a prompt's beginnings."""

from array import array

from services.gateway.prompts.prefixes import prefix_of
from shared.policy.affinity import BLOCK, MOST, boundary


def packed(*tokens: int) -> bytes:
    return array("I", tokens).tobytes()


def test_a_prompt_shorter_than_a_block_has_no_mark() -> None:
    assert prefix_of(packed(*range(BLOCK - 1))) == ()
    assert len(prefix_of(packed(*range(BLOCK)))) == 1


def test_prompts_share_marks_as_far_as_they_share_whole_blocks() -> None:
    one, other = prefix_of(packed(*range(300))), prefix_of(packed(*range(200), *range(500, 600)))
    assert one[:3] == other[:3]
    assert one[3] != other[3]
    assert prefix_of(packed(*range(640)))[: len(one)] == one


def test_a_block_in_another_place_has_another_mark() -> None:
    first, second = tuple(range(BLOCK)), tuple(range(1000, 1000 + BLOCK))
    assert not set(prefix_of(packed(*first, *second))) & set(prefix_of(packed(*second, *first)))


def test_long_prompts_have_few_marks() -> None:
    prompt = packed(*range(225_000))
    marks = prefix_of(prompt)
    assert len(marks) == sum(boundary(place) <= 225_000 for place in range(MOST)) <= MOST
    assert len(set(marks)) == len(marks)
