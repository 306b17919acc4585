"""Sampling: each parameter by what it does to the tokens, and draws that depend on (seed, choice, position) alone."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from shared.engine.sampling.draw import Draw
from shared.engine.sampling.masks import Bits
from shared.engine.sampling.penalties import History
from shared.engine.sampling.randomness import uniforms
from shared.engine.torch_engine.device import resolve
from shared.messages import Sampling
from tests.draws import Drawn, sample

CPU = resolve("cpu")
LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0, 0.5, 1.5])


def draw(
    logits: torch.Tensor = LOGITS, *, history: History | None = None, banned: tuple[int, ...] = (), **sampling: Any
) -> Drawn:
    return sample(logits[None].clone(), [Draw(Sampling(**sampling), 5, history, banned)], CPU)[0]


def frequencies(number: int, logits: torch.Tensor = LOGITS, **sampling: Any) -> dict[int, float]:
    draws = [Draw(Sampling(**{"seed": 3, **sampling}), position) for position in range(number)]
    counts = Counter(drawn.token_id for drawn in sample(logits.repeat(number, 1), draws, CPU))
    return {token: count / number for token, count in counts.items()}


def assert_distributed(got: dict[int, float], expected: torch.Tensor, number: int) -> None:
    assert set(got) <= {token for token, p in enumerate(expected.tolist()) if p > 0}
    for token, p in enumerate(expected.tolist()):
        assert abs(got.get(token, 0.0) - p) <= 5 * math.sqrt(p * (1 - p) / number) + 1e-9, token


def test_uniforms_are_pinned_so_that_old_and_new_engines_draw_alike() -> None:
    assert uniforms(0, 0, 0) == (0.13870936632156372, 0.9872828125953674)
    assert uniforms(-1, 0, 1) == uniforms((1 << 64) - 1, 0, 1)


def test_uniforms_differ_by_seed_choice_and_position_and_fill_the_interval() -> None:
    numbers = {uniforms(s, c, p) for s in range(12) for c in range(12) for p in range(12)}
    assert len(numbers) == 12**3
    for column in zip(*numbers, strict=True):
        bins = Counter(int(u * 8) for u in column)
        assert sorted(bins) == list(range(8))
        assert sum((n - 216) ** 2 / 216 for n in bins.values()) < 29.9  # chi squared, 7 degrees, p = 1e-4


def test_temperature_zero_takes_the_likeliest() -> None:
    assert draw(temperature=0.0).token_id == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    got = frequencies(4000, temperature=temperature)
    assert_distributed(got, torch.softmax(LOGITS / temperature, -1), 4000)


def _top_k(p: torch.Tensor) -> torch.Tensor:
    return torch.where(p >= p.topk(3).values[-1], p, 0.0)


def _top_p(p: torch.Tensor) -> torch.Tensor:
    ordered = p.sort(descending=True)
    kept = ordered.indices[(ordered.values.cumsum(0) - ordered.values) < 0.7]
    return torch.zeros_like(p).scatter(0, kept, p[kept])


def _top_k_then_p(p: torch.Tensor) -> torch.Tensor:
    p = _top_k(p)
    return _top_p(p / p.sum())


def _min_p(p: torch.Tensor) -> torch.Tensor:
    return torch.where(p >= 0.3 * p.max(), p, 0.0)


@pytest.mark.parametrize(
    ("parameters", "filtered"),
    [
        ({"top_k": 3}, _top_k),
        ({"top_p": 0.7}, _top_p),
        ({"top_k": 3, "top_p": 0.7}, _top_k_then_p),
        ({"min_p": 0.3}, _min_p),
    ],
)
def test_filters_leave_the_tokens_they_should_in_proportion(
    parameters: dict[str, Any], filtered: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    expected = filtered(torch.softmax(LOGITS, -1))
    assert_distributed(frequencies(4000, **parameters), expected / expected.sum(), 4000)


@pytest.mark.parametrize("top_p", [0.5, pytest.param(0.97, marks=pytest.mark.long), 0.9999])
def test_top_p_is_exact_on_a_large_flat_vocabulary(top_p: float) -> None:
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 0.1  # needs more than any shortcut sorts
    ordered = torch.softmax(logits.double(), -1).sort(descending=True)
    kept = set(ordered.indices[(ordered.values.cumsum(0) - ordered.values) < top_p].tolist())
    tokens = set(frequencies(1000, logits, top_p=top_p))
    assert tokens <= kept
    assert len(tokens) > 0.15 * len(kept)


@pytest.mark.parametrize(
    "parameters", [{"top_p": 0.0}, {"top_k": 1}, {"min_p": 1.0}, {"min_p": 7.0}, {"temperature": 1e-30}]
)
def test_the_strictest_filters_are_greedy(parameters: dict[str, Any]) -> None:
    assert set(frequencies(50, **parameters)) == {0}


def test_a_negative_top_k_is_off_as_zero_is() -> None:
    assert frequencies(200, top_k=-1, top_p=0.9) == frequencies(200, top_k=0, top_p=0.9)


def test_a_draw_is_the_same_in_any_batch_and_beside_any_neighbour() -> None:
    others: list[dict[str, Any]] = [{"temperature": 0.0}, {"top_p": 0.5, "seed": 9}, {"top_k": 2}, {"logprobs": 2}]
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(40, 700, generator=generator)
    draws = [Draw(Sampling(**{"seed": row, **others[row % 4]}), row) for row in range(40)]
    together = sample(logits.clone(), draws, CPU)
    alone = [sample(logits[row : row + 1].clone(), [one], CPU)[0] for row, one in enumerate(draws)]
    assert together == alone


def test_choice_and_position_change_the_draw_and_nothing_else_does() -> None:
    logits = torch.zeros(1000)
    base = Sampling(seed=4)
    tokens = [
        sample(logits[None].clone(), [Draw(s, p)], CPU)[0].token_id
        for s, p in ((base, 1), (base, 1), (base, 2), (Sampling(seed=4, choice=1), 1), (Sampling(seed=5), 1))
    ]
    assert tokens[0] == tokens[1]
    assert len(set(tokens)) == 4


def test_bias_and_bans_move_the_choice() -> None:
    assert draw(temperature=0.0, logit_bias={4: 10.0}).token_id == 4
    assert draw(temperature=0.0, logit_bias={0: -100.0}).token_id == 6
    assert draw(temperature=0.0, banned=(0, 6)).token_id == 1
    assert draw(temperature=0.0, banned=(4,), logit_bias={4: 100.0}).token_id == 0


def test_penalties_count_prompt_and_generated_tokens_as_they_should() -> None:
    def penalised(tokens: list[int], prompt: int, **sampling: Any) -> int:
        return draw(temperature=0.0, history=History(tokens, prompt), **sampling).token_id

    assert penalised([0], 1, repetition_penalty=3.0) == 6  # 2.0 / 3 < 1.5: the prompt counts
    assert penalised([0], 1, presence_penalty=2.0) == 0  # the prompt does not count
    assert penalised([3, 0], 1, presence_penalty=2.0) == 6
    assert penalised([3, 0], 1, frequency_penalty=0.4) == 0
    assert penalised([3, 0, 0], 1, frequency_penalty=0.4) == 6
    negative = torch.tensor([-1.0, -1.5])
    assert draw(negative, temperature=0.0, history=History([0], 1), repetition_penalty=2.0).token_id == 1


def test_a_history_grows_as_one_made_whole() -> None:
    grown = History([5, 6, 5], 2)
    grown.add(5)
    grown.add(8)
    whole = History([5, 6, 5, 5, 8], 2)
    assert (grown.ids, grown.counts) == (whole.ids, whole.counts)
    assert (grown.ids.tolist(), grown.counts.tolist()) == ([5, 6, 8], [2, 0, 1])


def test_logprobs_are_of_the_model_itself_whatever_the_sampling() -> None:
    expected = torch.log_softmax(LOGITS, -1)
    drawn = draw(temperature=0.3, logit_bias={4: 50.0}, logprobs=2, top_k=1)
    assert drawn.token_id == 4
    assert drawn.alternatives is not None
    assert drawn.alternatives.logprob == pytest.approx(expected[4].item(), abs=1e-6)
    assert [token for token, _ in drawn.alternatives.top] == [0, 6]
    assert [p for _, p in drawn.alternatives.top] == pytest.approx(expected[[0, 6]].tolist(), abs=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_logprobs_are_the_same_to_the_bit_alone_and_beside_others(threads: int) -> None:
    torch.set_num_threads(threads)
    logits = torch.randn((6, 100_003), generator=torch.Generator().manual_seed(3)) * 3
    logits -= torch.logsumexp(logits, -1, keepdim=True)  # so that the last bits of the sum are to be seen
    draws = [Draw(Sampling(logprobs=2, temperature=0.0), 5)] * 6
    together = [drawn.alternatives for drawn in sample(logits.clone(), draws, CPU)]
    for row, expected in enumerate(together):
        assert sample(logits[row : row + 1].clone(), draws[:1], CPU)[0].alternatives == expected


def test_logprobs_zero_reports_the_token_alone_and_none_reports_nothing() -> None:
    drawn = draw(temperature=0.0, logprobs=0)
    assert drawn.alternatives is not None
    assert drawn.alternatives.top == []
    assert draw(temperature=0.0).alternatives is None


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_output_that_is_no_number_is_reported_instead_of_a_token(temperature: float) -> None:
    logits = torch.stack([LOGITS, LOGITS])
    logits[0, 3] = math.nan
    drawn = sample(logits, [Draw(Sampling(temperature=temperature, seed=1), 1) for _ in range(2)], CPU)
    assert drawn[0].token_id == -1
    assert drawn[1].token_id >= 0


def bits(*tokens: int, size: int = 8) -> Bits:
    row = np.zeros(size, np.uint8)
    for token in tokens:
        row[token >> 3] |= 1 << (token & 7)
    return row


def test_what_a_constraint_does_not_allow_is_never_drawn_and_the_rest_keeps_its_proportions() -> None:
    number = 4000
    draws = [Draw(Sampling(seed=3), position, allowed=bits(1, 4, 6)) for position in range(number)]
    counts = Counter(drawn.token_id for drawn in sample(LOGITS.repeat(number, 1), draws, CPU))
    expected = torch.full_like(LOGITS, -math.inf)
    expected[[1, 4, 6]] = LOGITS[[1, 4, 6]]
    assert_distributed({token: count / number for token, count in counts.items()}, expected.softmax(-1), number)


def test_a_constraint_of_one_row_leaves_the_others_as_they_are_and_logprobs_are_the_models() -> None:
    plain = [Draw(Sampling(seed=row, temperature=row % 2, logprobs=7), 5) for row in range(40)]
    some = [Draw(one.sampling, 5, allowed=bits(3, 5)) if row % 3 == 0 else one for row, one in enumerate(plain)]
    free = sample(LOGITS.repeat(40, 1), plain, CPU)
    for row, drawn in enumerate(sample(LOGITS.repeat(40, 1), some, CPU)):
        if row % 3:
            assert drawn == free[row]
            continue
        assert drawn.token_id in {3, 5}
        assert drawn.alternatives is not None
        assert drawn.alternatives.top == free[row].alternatives.top  # type: ignore[union-attr]
        assert drawn.alternatives.logprob == pytest.approx(LOGITS.log_softmax(-1)[drawn.token_id].item())


@pytest.mark.parametrize(
    "asked", [{"temperature": 0.0}, {"top_k": 2}, {"top_p": 0.1}, {"min_p": 1.0}, {"logit_bias": {0: 100.0, 3: -100.0}}]
)
def test_other_parameters_choose_among_what_is_allowed(asked: dict[str, Any]) -> None:
    history = History([3, 3], 1)
    for seed in range(20):
        asking = Sampling(seed=seed, repetition_penalty=5.0, **asked)
        (drawn,) = sample(LOGITS[None].clone(), [Draw(asking, 5, history, allowed=bits(3))], CPU)
        assert drawn.token_id == 3
