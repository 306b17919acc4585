"""Conditional local prefill on a small load."""

from simulator.experiments.local import Took, measured

PAIRS = [(300, 100), (1500, 100)]
SPLIT = (1, 2)


def took(load: float, threshold: int, slots: int = 2) -> Took:
    """One small run."""
    return measured(PAIRS, SPLIT, slots, load, threshold, seed=3, number=300)


def test_without_a_threshold_no_prompt_goes_to_a_decode() -> None:
    assert took(1.2, 0).local == 0


def test_only_prompts_below_the_threshold_go_to_a_decode() -> None:
    one = took(1.2, 512)
    assert 0 < one.local <= 0.6 * one.requests
    assert took(1.2, 256).local == 0


def test_under_load_first_tokens_come_sooner_and_streams_pay_for_it() -> None:
    without, with_it = took(1.2, 0), took(1.2, 2048)
    assert with_it.ttft.percentile(99.0) < without.ttft.percentile(99.0)
    assert with_it.tpot.mean > without.tpot.mean
    assert without.requests == with_it.requests


def test_more_slots_leave_less_to_decodes() -> None:
    assert took(0.9, 2048, slots=8).local < took(0.9, 2048, slots=1).local
