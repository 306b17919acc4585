"""What is read is what the traces' own page says of them."""

from itertools import islice, pairwise
from math import inf
from statistics import fmean, pstdev

import pytest

from simulator.cluster.cache import PrefixCache
from simulator.workload.arrival import Arrival
from simulator.workload.mixing import times_rate, within
from simulator.workload.reading import read_trace
from simulator.workload.servegen import clients
from tests.unit.simulator.traces import AZURE_CODE, AZURE_CONV, CONVERSATION, SYNTHETIC, trace


def percentile(values: list[int], share: float) -> int:
    return sorted(values)[round(share * (len(values) - 1))]


@pytest.mark.parametrize(
    ("name", "rows", "span", "cv", "inputs", "outputs"),
    [
        (AZURE_CONV, 19_366, 3502, 1.09, (1020, 1155, 14_050), (129, 211, 1000)),
        (AZURE_CODE, 8_819, 3436, 13.15, (1469, 2048, 7437), (13, 28, 1899)),
        (CONVERSATION, 12_031, 3537, 3.03, (6909, 12_035, 126_195), (350, 343, 2000)),
        (SYNTHETIC, 3_993, 1022, 1.01, (11_587, 15_325, 191_378), (69, 149, 893)),
    ],
)
def test_counts_lengths_and_gaps_are_those_of_the_trace(  # noqa: PLR0917
    name: str, rows: int, span: float, cv: float, inputs: tuple[int, int, int], outputs: tuple[int, int, int]
) -> None:
    arrivals = list(read_trace(trace(name)))
    assert len(arrivals) == rows
    assert arrivals[0].at == 0.0
    assert arrivals[-1].at == pytest.approx(span, abs=1)
    gaps = [later.at - one.at for one, later in pairwise(arrivals)]
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(cv, abs=0.02)
    for values, (middle, mean, most) in (
        ([one.input_tokens for one in arrivals], inputs),
        ([one.output_tokens for one in arrivals], outputs),
    ):
        assert percentile(values, 0.5) == pytest.approx(middle, abs=1)
        assert fmean(values) == pytest.approx(mean, abs=1)
        assert max(values) == most


@pytest.mark.parametrize(
    ("name", "every", "distinct", "hits"),
    [(CONVERSATION, 288_500, 182_790, "36.6"), (SYNTHETIC, 121_877, 43_924, "64.0")],
)
def test_an_unbounded_cache_finds_the_blocks_that_are_known_to_be_shared(
    name: str, every: int, distinct: int, hits: str
) -> None:
    cache = PrefixCache(None)
    for arrival in read_trace(trace(name)):
        cache.match(arrival.blocks)
        cache.add(arrival.blocks)
    assert (cache.asked, len(cache), cache.found) == (every, distinct, every - distinct)
    assert f"{100 * cache.found / cache.asked:.1f}" == hits


@pytest.mark.parametrize(
    ("name", "rates"), [(CONVERSATION, (4.4, 11.0, 28.7, 35.5)), (SYNTHETIC, (8.2, 27.9, 57.1, 64.0))]
)
def test_a_bounded_cache_finds_what_least_recently_used_blocks_leave(name: str, rates: tuple[float, ...]) -> None:
    arrivals = list(read_trace(trace(name)))
    for capacity, wanted in zip((1000, 5000, 20_000, 50_000), rates, strict=True):
        cache = PrefixCache(capacity)
        for arrival in arrivals:
            cache.match(arrival.blocks)
            cache.add(arrival.blocks)
        assert 100 * cache.found / cache.asked == pytest.approx(wanted, abs=1.5), capacity


def test_batches_can_be_spread_over_their_three_seconds() -> None:
    arrivals = list(read_trace(trace(CONVERSATION), spread=True))
    assert len({one.at for one in arrivals}) == len(arrivals) == 12_031
    assert arrivals == sorted(arrivals, key=lambda one: one.at)
    assert arrivals == list(read_trace(trace(CONVERSATION), spread=True)), "by a seed"


def bursts(arrivals: list[Arrival], seconds: int) -> float:
    """Variance over mean of the requests in each second."""
    counts = [0] * seconds
    for one in arrivals:
        counts[min(seconds - 1, int(one.at))] += 1
    return pstdev(counts) ** 2 / fmean(counts)


@pytest.mark.parametrize("times", [0.5, 2.5])
def test_a_rate_is_changed_and_its_bursts_are_not_squeezed(times: float) -> None:
    path = trace(AZURE_CONV)
    changed = list(times_rate(lambda: read_trace(path), 3502.0, times, seed=3))
    assert len(changed) == pytest.approx(19_366 * times, rel=0.02)
    assert changed == sorted(changed, key=lambda one: one.at)
    assert changed[-1].at <= 3502
    assert 1.0 < bursts(changed, 3502) < 2.5, "1.39 in the trace"


@pytest.mark.long
def test_servegen_clients_come_as_often_as_their_windows_say() -> None:
    folder = trace("servegen/reason/deepseek-r1")
    hour = list(within(clients(folder, seed=1), 0.0, 3600.0))
    tenants = {one.tenant for one in hour}
    assert 20 < len(tenants) <= 73
    assert 4.3 * 0.5 < len(hour) / 3600 < 42.5
    assert hour == sorted(hour, key=lambda one: one.at)
    again = list(islice(clients(folder, seed=1), 500))
    assert again == hour[:500], "by a seed"
    assert fmean(one.output_tokens for one in hour) > fmean(one.input_tokens for one in hour) * 0.3
    assert max(one.at for one in hour) < inf
