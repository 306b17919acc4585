"""The sampler inside vLLM: each row is drawn for as the torch engine would, whatever happens to the batch around it."""

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.engine import Sequence
from shared.engine.sampling.draw import Draw
from shared.engine.sampling.endings import ends_of
from shared.engine.sampling.masks import Masks
from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.sequence import Run
from shared.engine.vllm_engine.inside.batch import Added, Batch, Troubles
from shared.engine.vllm_engine.inside.languages import Languages
from shared.engine.vllm_engine.inside.rows import Row
from shared.errors import BadRequest
from shared.messages import Constraint, Sampling, Stopping
from shared.text.matching import Grammars
from shared.text.tokenizer import ByteTokenizer
from tests.draws import sample
from tests.unit.vllm_engine.vllm_batch import EOS, UNSAID, Asked, VllmBatch

VOCABULARY: Final = 128
CPU = resolve("cpu")
GRAMMARS = Grammars(ByteTokenizer(), VOCABULARY)
DEAD_END = Constraint("regex", "[ab]{2}中")
"""Of 中's bytes there are none below 128."""
LONG = Stopping(max_tokens=1000)
DEAF = Stopping(max_tokens=1000, ignore_eos=True)
KINDS: Final[list[tuple[Stopping, dict[str, Any]]]] = [
    (LONG, {"temperature": 0.0}),
    (LONG, {"seed": 1}),
    (LONG, {"temperature": 0.7, "top_p": 0.6, "seed": 2}),
    (LONG, {"top_k": 3, "min_p": 0.1, "seed": 3, "choice": 1}),
    (LONG, {"temperature": 0.0, "repetition_penalty": 1.7, "presence_penalty": 0.4}),
    (LONG, {"frequency_penalty": 1.5, "seed": 4}),
    (LONG, {"temperature": 0.0, "logit_bias": {3: 9.0, 7: -9.0}}),
    (Stopping(max_tokens=1000, min_tokens=3), {"temperature": 0.0, "logit_bias": {3: 50.0}}),
    (LONG, {"constraint": Constraint("regex", "([a-c]{2}-)+x"), "seed": 5}),
    (LONG, {"constraint": Constraint("regex", "[ab]{3}"), "temperature": 0.0}),
    (DEAF, {"constraint": Constraint("regex", "[ab]{2}"), "seed": 6}),
    (LONG, {"constraint": DEAD_END, "seed": 7}),
    (DEAF, {"constraint": DEAD_END, "seed": 8}),
    (Stopping(max_tokens=1000, min_tokens=4), {"constraint": Constraint("regex", "[a-z]+"), "seed": 9}),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def languages() -> Iterator[Languages]:
    made = Languages("", VOCABULARY)
    yield made
    made.close()


@pytest.fixture
def troubles() -> Troubles:
    return deque()


def batch(languages: Languages, troubles: Troubles | None = None) -> Batch:
    return Batch(CPU, VOCABULARY, languages.compiles, deque() if troubles is None else troubles)


@pytest.fixture
def sampler(languages: Languages, troubles: Troubles) -> Iterator[Batch]:
    """Whatever the test looks for has been taken out of `troubles` at its end."""
    yield batch(languages, troubles)
    assert not troubles


def asked(kind: int = 1, key: str = "k", generated: tuple[int, ...] = ()) -> Asked:
    stopping, sampling = KINDS[kind]
    return Asked(Sequence(key, [50, 51, 51, 52, *generated], 4, Sampling(**sampling), stopping))


def expected(one: Asked, logits: torch.Tensor) -> int | None:
    """What the torch engine makes of the same tokens; None where the sampler is not asked."""
    tokens, sequence = one.tokens, one.sequence
    if one.told is None:
        return None
    stop = 3 if not sequence.stopping.ignore_eos else UNSAID
    constraint = sequence.sampling.constraint
    whole = Sequence("k", tokens, sequence.prompt_tokens, sequence.sampling, sequence.stopping)
    try:
        matcher = GRAMMARS.matcher(constraint, tokens[4:]) if constraint is not None else None
    except BadRequest:
        return stop
    run = Run(whole, matcher=matcher, ends=ends_of(sequence.stopping, EOS))
    run.computed = len(tokens)
    bound = run.bound()
    allowed = Masks().allowed({} if bound is None else {0: bound})
    if allowed.refused or (matcher is not None and matcher.over):
        return stop
    banned = run.banned() if matcher is None else ()
    draw = Draw(sequence.sampling, len(tokens), run.history, banned, allowed.rows.get(0))
    return sample(logits[None].clone(), [draw], CPU)[0].token_id


def step(vllm: VllmBatch, sampler: Batch, number: int) -> list[int | None]:
    """Draw once; what is left of each row is compared with what is expected."""
    logits = 3 * torch.randn((len(vllm.rows), VOCABULARY), generator=torch.Generator().manual_seed(number))
    before = logits.clone()
    sampler.apply(logits)
    drawn: list[int | None] = []
    for one, row, was in zip(vllm.rows, logits, before, strict=True):
        if not {3, UNSAID}.isdisjoint(one.output):  # vLLM may run it once more after its end, and throws that away
            drawn.append(None)
            continue
        token = expected(one, was)
        drawn.append(token)
        if token is None:
            assert torch.equal(row, was)
        else:
            assert torch.isfinite(row).nonzero().flatten().tolist() == [token]
            assert row.argmax() == token
    return drawn


place = st.integers(0, 5)
changes = st.tuples(
    st.sets(place, max_size=3),
    st.lists(st.integers(0, len(KINDS) - 1), max_size=3),
    st.lists(st.tuples(place, place), max_size=2),
    st.sets(place, max_size=2),  # whose draw is thrown away: its prompt is not complete
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=st.lists(changes, min_size=1, max_size=8))
def test_each_row_is_served_by_its_own_state_whatever_the_batch_goes_through(
    languages: Languages, story: list[tuple[set[int], list[int], list[tuple[int, int]], set[int]]]
) -> None:
    sampler = batch(languages)
    vllm = VllmBatch(sampler)
    away: list[Asked] = []
    for number, (leaving, kinds, swaps, partial) in enumerate(story):
        coming = [asked(kind) for kind in kinds]
        if away and number % 2:
            coming.append(away.pop())  # preempted, and back with what it had generated
        away += vllm.change([index for index in leaving if index < len(vllm.rows)], coming, swaps)
        for index, (one, token) in enumerate(zip(vllm.rows, step(vllm, sampler, number), strict=True)):
            if index not in partial:
                one.output.append(token if token is not None else 60)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_text_continued_at_every_point_is_the_whole(languages: Languages, kind: int) -> None:
    def drawn(generated: tuple[int, ...], count: int) -> list[int]:
        sampler = batch(languages)
        vllm = VllmBatch(sampler)
        one = asked(kind, generated=generated)
        vllm.change(coming=[one])
        for number in range(len(generated), len(generated) + count):
            logits = 3 * torch.randn((1, VOCABULARY), generator=torch.Generator().manual_seed(number))
            sampler.apply(logits)
            one.output.append(int(logits.argmax()))
            if one.output[-1] in (3, UNSAID):
                break
        return one.output

    whole = drawn((), 10)
    for done in range(1, len(whole)):
        assert drawn(tuple(whole[:done]), 10 - done) == whole[done:]


def test_a_batch_that_wants_nothing_is_not_even_looked_at(sampler: Batch) -> None:
    vllm = VllmBatch(sampler)
    vllm.change(coming=[asked(0) for _ in range(50)])
    sampler.apply(None)  # type: ignore[arg-type]
    vllm.change(coming=[asked(1)])
    vllm.change(leaving=[50])
    sampler.apply(None)  # type: ignore[arg-type]


def test_tokens_that_come_late_or_are_taken_back_are_followed(sampler: Batch) -> None:
    vllm = VllmBatch(sampler)
    late = [asked(5), asked(8), asked(8)]
    for one in late:
        one.output += [97, -1]  # drawn, but still on its way from the device
    vllm.change(coming=late)
    for one in late:
        one.output[-1] = 98
    step(vllm, sampler, 0)
    for one in late:
        one.output.append(45)
    step(vllm, sampler, 1)
    for one in late:
        del one.output[1:]
    step(vllm, sampler, 2)


def test_a_token_at_which_only_vllm_stops_is_no_part_of_a_text_while_others_can_come(sampler: Batch) -> None:
    vllm = VllmBatch(sampler)
    any_text = Constraint("lark", "start: /(.|\\n)+/")
    eager = {"constraint": any_text, "logit_bias": {UNSAID: 99.0, UNSAID - 1: 50.0}, "temperature": 0.0}
    vllm.change(coming=[Asked(Sequence("k", [50, 51], 2, Sampling(**eager), DEAF))])
    logits = torch.zeros((1, VOCABULARY))
    sampler.apply(logits)
    assert logits.argmax() == UNSAID - 1


def test_a_row_that_cannot_be_served_ends_alone_and_is_reported_once(
    sampler: Batch, troubles: Troubles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follow = Row.follow

    def fails(row: Row) -> None:
        if row.wanted.key == "bad":
            raise RuntimeError("no")
        follow(row)

    monkeypatch.setattr(Row, "follow", fails)
    vllm = VllmBatch(sampler)
    vllm.change(coming=[asked(1), asked(1, "bad"), asked(8)])
    for number in range(3):
        logits = torch.randn((3, VOCABULARY), generator=torch.Generator().manual_seed(number))
        before = logits.clone()
        sampler.apply(logits)
        assert logits[1].argmax() == 3
        for place_, one in ((0, vllm.rows[0]), (2, vllm.rows[2])):
            assert logits[place_].argmax() == expected(one, before[place_])
    assert troubles.pop() == ("bad", "RuntimeError('no')")
    assert len(caplog.records) == 1


def test_a_row_that_nothing_ends_is_left_as_it_is_and_reported(sampler: Batch, troubles: Troubles) -> None:
    vllm = VllmBatch(sampler)
    endless = Asked(Sequence("endless", [50, 51], 2, Sampling(seed=1), DEAF))
    vllm.change(coming=[endless])
    endless.output.append(-1)
    logits = torch.zeros((1, VOCABULARY))
    sampler.apply(logits)
    assert not logits.any()
    assert troubles.pop()[0] == "endless"


def test_a_request_that_makes_no_sense_is_reported_and_disturbs_nobody(sampler: Batch, troubles: Troubles) -> None:
    vllm = VllmBatch(sampler)
    vllm.change(coming=[asked(1)])
    sampler.update([], [Added(1, {"baton": {"key": "k"}}, [1], [])], [])
    step(vllm, sampler, 0)
    assert "missing" in troubles.pop()[1]


def test_an_output_that_is_no_number_stays_none(sampler: Batch) -> None:
    vllm = VllmBatch(sampler)
    vllm.change(coming=[asked(1), asked(8), asked(4), asked(1)])
    logits = torch.randn((4, VOCABULARY), generator=torch.Generator().manual_seed(0))
    last = expected(vllm.rows[3], logits[3])
    logits[:3] = math.nan
    sampler.apply(logits)
    assert logits[:3].isnan().any(1).all()
    assert logits[3].argmax() == last


def test_without_a_tokenizer_a_constrained_row_ends_and_the_others_do_not() -> None:
    without = Languages(None, VOCABULARY)
    troubles: Troubles = deque()
    sampler = batch(without, troubles)
    vllm = VllmBatch(sampler)
    vllm.change(coming=[asked(8), asked(1)])
    logits = torch.randn((2, VOCABULARY), generator=torch.Generator().manual_seed(0))
    free = expected(vllm.rows[1], logits[1])
    sampler.apply(logits)
    assert logits.argmax(1).tolist() == [3, free]
    assert not troubles
    without.close()
