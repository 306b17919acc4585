"""Strategies by concurrency: configured ranges, learnt bands, and neither flaps at an edge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.policy.steering.bands import MOST_STRATEGIES, Bands, band

# ScaleLLM figure 8: tokens/s of 8 GPUs by concurrency, each as it is printed there
FIGURE_8 = {
    "tp8": {1: 186, 2: 337, 4: 586, 8: 1058, 16: 1909, 32: 3269, 64: 4744, 128: 5269, 256: 4846, 512: 4546},
    "tp4": {1: 173, 2: 325, 4: 595, 8: 1041, 16: 1805, 32: 3268, 64: 5754, 128: 8273, 256: 7295, 512: 7275},
    "tp2": {1: 147, 2: 283, 4: 530, 8: 920, 16: 1491, 32: 2623, 64: 4852, 128: 9147, 256: 15792, 512: 17047},
}
LEARNT = dict.fromkeys(FIGURE_8, (0, 0))


def serve(bands: Bands, streams: int, seconds: int, now: float) -> tuple[tuple[str, ...], float]:
    """Let all streams go to whatever is preferred, and report what that does."""
    order: tuple[str, ...] = ()
    for _ in range(seconds):
        now += 1.0
        order = bands.prefer(streams, now)
        bands.observe(order[0], streams, FIGURE_8[order[0]][1 << band(streams)], now)
    return order, now


def test_bands_are_powers_of_two() -> None:
    assert [band(streams) for streams in (0, 1, 2, 3, 4, 7, 8, 1023, 1024)] == [0, 0, 1, 1, 2, 2, 3, 9, 10]


def test_what_is_learnt_is_what_the_paper_measured_at_each_concurrency() -> None:
    bands, now = Bands(LEARNT), 0.0
    for streams in (1, 16, 64, 512, 256, 64, 2, 128):
        order, now = serve(bands, streams, 120, now)
        best = max(FIGURE_8.values(), key=lambda measured: measured[streams])[streams]
        assert FIGURE_8[order[0]][streams] >= best / 1.1, streams
        assert set(order) == set(FIGURE_8)


def test_once_learnt_it_does_not_change_without_a_reason() -> None:
    bands, now = Bands(LEARNT), 0.0
    _, now = serve(bands, 512, 200, now)
    firsts = set()
    for _ in range(200):
        order, now = serve(bands, 512, 1, now)
        firsts.add(order[0])
    assert firsts == {"tp2"}


def test_a_strategy_that_cannot_be_better_is_not_tried() -> None:
    bands = Bands({"a": (0, 0), "b": (0, 0)})
    for now in range(20):
        bands.observe("a", 64, 6400.0, float(now))
        bands.observe("b", 16, 160.0, float(now))  # ten a stream: no more with 64
    assert bands.prefer(64, 20.0) == ("a", "b")
    assert bands.speed("b", 64, 20.0) == pytest.approx(10.0)


def test_one_that_does_not_hold_all_streams_is_judged_by_what_it_does_of_all() -> None:
    bands, now = Bands({"small": (0, 0), "large": (0, 0)}), 0.0
    for _ in range(6):
        now += 1.0
        bands.observe("large", 256, 2560.0, now)
        bands.observe("small", 32, 640.0, now)  # 20 a stream, but it has no room for more
    assert bands.prefer(256, now)[0] == "small"
    for _ in range(60):
        now += 1.0
        first = bands.prefer(256, now)[0]
        bands.observe("small", 32, 640.0, now)
        bands.observe("large", 224, 2240.0, now)
    assert first == "large"


def test_configured_ranges_hold_with_some_slack_at_their_edges() -> None:
    bands = Bands({"tp8": (0, 64), "tp4": (64, 512), "tp2": (512, 0)})
    firsts = [bands.prefer(streams, 10.0 * now)[0] for now, streams in enumerate((1, 60, 65, 70, 75, 60, 50, 9999))]
    assert firsts == ["tp8", "tp8", "tp8", "tp8", "tp4", "tp4", "tp8", "tp2"]
    assert bands.prefer(9999, 100.0) == ("tp2", "tp4", "tp8")


def test_the_first_one_stays_for_a_while() -> None:
    bands = Bands({"tp8": (0, 64), "tp4": (64, 0)})
    assert [bands.prefer(streams, now)[0] for streams, now in ((10, 0.0), (500, 4.9), (500, 5.0))] == [
        "tp8",
        "tp8",
        "tp4",
    ]


def test_nonsense_is_ignored_and_strategies_are_bounded() -> None:
    bands = Bands({})
    assert bands.prefer(10, 0.0) == ()
    for streams, rate in ((0.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (float("nan"), 1.0), (1.0, float("inf"))):
        bands.observe("a", streams, rate, 0.0)
    assert bands.prefer(10, 0.0) == ()
    for number in range(2 * MOST_STRATEGIES):
        bands.observe(f"s{number}", 1.0, 1.0, 0.0)
    assert len(bands.prefer(1, 0.0)) == MOST_STRATEGIES


@given(
    asked=st.lists(st.integers(0, 100_000), max_size=30),
    seen=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 1e6), st.floats(0, 1e9)), max_size=30),
)
def test_every_strategy_is_named_once_whatever_was_seen(asked: list[int], seen: list[tuple[str, float, float]]) -> None:
    bands, now = Bands({"a": (0, 0), "b": (8, 64), "c": (0, 0)}), 0.0
    for number, streams in enumerate(asked):
        now += 3.0
        if number < len(seen):
            bands.observe(*seen[number], now)
        assert sorted(bands.prefer(streams, now)) == ["a", "b", "c"]
