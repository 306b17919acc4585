"""The sim engine's text depends on every byte of the KV it holds, on seed and choice, and on nothing else."""

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.engine.sim_engine.chain import (
    PRINTABLE,
    Vocabulary,
    absorb,
    compute,
    oracle,
    read_rows,
    row_number,
    write_rows,
)
from shared.messages import Sampling

VOCABULARY = Vocabulary(PRINTABLE, {257}, 0)
TOKENS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40)
WIDTHS = st.integers(8, 70)
DRAWN = Sampling(seed=3)


def wanted() -> bool:
    return True


def rows_of(tokens: list[int], width: int, spare: int = 0) -> bytearray:
    buffer = bytearray(b"\xa5" * (len(tokens) * width + spare))
    write_rows(memoryview(buffer), compute(tokens)[0], width, wanted)
    return buffer


def text_from(state: int, position: int) -> list[int]:
    drawn = []
    for place in range(position, position + 24):
        drawn.append(VOCABULARY.draw(state, place, DRAWN))
        state = absorb(state, row_number(state, drawn[-1]))
    return drawn


@given(TOKENS, WIDTHS, st.integers(0, 30))
def test_what_was_written_is_read_back_and_the_rest_is_zero(tokens: list[int], width: int, spare: int) -> None:
    buffer = rows_of(tokens, width, spare)
    assert read_rows(memoryview(buffer), len(tokens), width, wanted) == compute(tokens)[1]
    assert not any(buffer[len(tokens) * width :])


@settings(max_examples=300)
@given(TOKENS, WIDTHS, st.data())
def test_one_damaged_byte_changes_the_text(tokens: list[int], width: int, data: st.DataObject) -> None:
    buffer = rows_of(tokens, width)
    place = data.draw(st.integers(0, len(buffer) - 1))
    buffer[place] ^= data.draw(st.integers(1, 255))
    state = read_rows(memoryview(buffer), len(tokens), width, wanted)
    assert text_from(state, len(tokens)) != oracle(tokens, 24, DRAWN, VOCABULARY)


@given(st.lists(st.integers(0, 300), min_size=2, max_size=20, unique=True), st.data())
def test_a_lost_a_stale_and_a_misplaced_row_each_change_the_text(tokens: list[int], data: st.DataObject) -> None:
    width = 16
    good = bytes(rows_of(tokens, width))
    one, other = data.draw(st.lists(st.integers(0, len(tokens) - 1), min_size=2, max_size=2, unique=True))
    stale = bytes(rows_of(tokens[::-1], width))
    for row in (bytes(width), stale[one * width :][:width], good[other * width :][:width]):
        bad = bytearray(good)
        bad[one * width : (one + 1) * width] = row
        if bad == good:
            continue
        state = read_rows(memoryview(bad), len(tokens), width, wanted)
        assert text_from(state, len(tokens)) != oracle(tokens, 24, DRAWN, VOCABULARY)


@given(TOKENS, st.integers(0, 23))
def test_a_continued_text_goes_on_as_it_would_have(tokens: list[int], done: int) -> None:
    whole = oracle(tokens, 24, DRAWN, VOCABULARY)
    assert oracle(tokens + whole[:done], 24 - done, DRAWN, VOCABULARY) == whole[done:]


@given(TOKENS, st.integers(), st.integers())
def test_any_seed_and_choice_can_be_used(tokens: list[int], seed: int, choice: int) -> None:
    drawn = oracle(tokens, 4, Sampling(seed=seed, choice=choice), VOCABULARY)
    assert set(drawn) <= set(PRINTABLE)


def test_the_text_of_a_prompt_never_changes() -> None:
    """Pinned: fleets of two versions continue each other's requests."""
    drawn = bytes(oracle(list(b"The quick brown fox"), 24, DRAWN, VOCABULARY))
    greedy = bytes(oracle(list(b"The quick brown fox"), 24, Sampling(temperature=0), VOCABULARY))
    assert (drawn, greedy) == (b"Q9Dz5XSn44RQ00L8P3c6.SFD", b" 45npgmh.RB0Nv925cFlgATY")


def test_the_end_of_the_text_comes_as_often_as_asked() -> None:
    one_in = 10
    ending = Vocabulary(PRINTABLE, {257}, one_in)
    drawn = [ending.draw(state, 0, DRAWN) for state in range(2000)]
    assert 2000 / one_in * 0.6 < drawn.count(257) < 2000 / one_in * 1.4
    assert 257 not in [ending.draw(state, 0, DRAWN, barred={257}) for state in range(2000)]


def test_barred_tokens_are_not_drawn_while_there_are_others() -> None:
    barred = frozenset(PRINTABLE[:-1])
    assert {VOCABULARY.draw(state, 0, DRAWN, barred) for state in range(50)} == {PRINTABLE[-1]}
    assert VOCABULARY.draw(1, 0, DRAWN, frozenset(PRINTABLE)) in PRINTABLE


def test_the_drawn_token_is_the_likeliest_of_its_alternatives() -> None:
    assert VOCABULARY.likeliest(PRINTABLE[-1], 3) == [PRINTABLE[-1], PRINTABLE[0], PRINTABLE[1]]
    assert VOCABULARY.likeliest(257, 1) == [257]


def test_what_nobody_wants_is_not_written_to_the_end() -> None:
    buffer = memoryview(bytearray(100 * 8))
    write_rows(buffer, list(range(1, 101)), 8, lambda: False)
    assert not any(buffer)
