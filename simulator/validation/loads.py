"""The loads that a real cluster and the simulated one both serve. A load says everything: arrivals, fleet, settings.

Times are so large that a developer's machine adds little to them: prompts of hundreds of milliseconds, steps of fifty.
Traces are read where they are; a load that needs none is there always.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from math import ceil
from typing import Any, Final

from simulator.workload.arrival import Arrival
from simulator.workload.files import traces_folder
from simulator.workload.mixing import within
from simulator.workload.reading import MOONCAKE_BLOCK, read_trace
from simulator.workload.synthetic import fixed, lognormal, poisson, workload

CONV: Final = "azure-llm-2023/AzureLLMInferenceTrace_conv.csv"
SYNTHETIC: Final = "mooncake-fast25/synthetic_trace.jsonl"
LENGTHS: Final = (200, 1600)
"""Tokens of the prompts by which costs are calibrated."""
BEGIN_S: Final = 2400.0
"""Of the Azure trace: its last twenty minutes, on which nothing was tuned."""
BLOCK: Final = 16
"""Tokens that one block of 512 is shrunk to."""
WARM_UP: Final = tuple(Arrival(2.0 * burst, 200, 4) for burst in range(3) for _ in range(12))
"""Requests before a load, not counted, in bursts, so that each worker has some: what runs first is late."""
WARM_S: Final = 8.0
"""From the first of them to the load's begin."""
OPTIONS: Final[dict[str, Any]] = {
    "prefill_ms": [0, 0.2, 20],
    "prefill_batch": 1,
    "decode_step_ms": 50,
    "decode_seq_ms": 1,
    "max_num_seqs": 16,
    "kv_bytes_per_token": 64,
    "max_model_len": 8192,
    "block_size": BLOCK,
}


class NoTraces(Exception):
    """Raised where a load's trace is not there."""

    def __init__(self) -> None:
        super().__init__("this load is cut from a trace: set BATON_TRACES to the traces' folder")


@dataclass(frozen=True, slots=True)
class Load:
    """Requests, and the fleet that serves them. `arrivals` makes them anew, the same each time. May raise NoTraces."""

    name: str
    title: str
    arrivals: Callable[[], list[Arrival]]
    prefills: int
    decodes: int
    prefill_slots: int = 8
    queue_s: float = 30.0
    options: dict[str, Any] = field(default_factory=lambda: dict(OPTIONS))  # of the sim engine


def _trace(name: str) -> Iterator[Arrival]:
    folder = traces_folder()
    if folder is None:
        raise NoTraces
    return read_trace(folder / name)


def _cut(arrivals: Iterable[Arrival], longest: int, answers: float) -> list[Arrival]:
    """Prompts up to so many tokens, answers divided by so much."""
    return [
        Arrival(one.at, min(longest, one.input_tokens), max(2, round(one.output_tokens / answers))) for one in arrivals
    ]


def shrunk(arrival: Arrival, answers: float) -> Arrival:
    """A Mooncake request with `BLOCK` tokens for each of its blocks, fewer for a partial last one."""
    last = arrival.input_tokens - MOONCAKE_BLOCK * (len(arrival.blocks) - 1)
    tokens = BLOCK * (len(arrival.blocks) - 1) + max(1, ceil(last * BLOCK / MOONCAKE_BLOCK))
    return Arrival(arrival.at, tokens, max(2, round(arrival.output_tokens / answers)), arrival.blocks)


def _azure() -> list[Arrival]:
    return _cut(within(_trace(CONV), BEGIN_S, BEGIN_S + 60.0), 4000, 4.0)


def _synthetic() -> list[Arrival]:
    return [shrunk(one, 4.0) for one in within(_trace(SYNTHETIC), 60.0, 120.0)]


def _drawn(rate: float, seconds: float, seed: int) -> list[Arrival]:
    lengths = lognormal((900.0, 2500.0), (25.0, 90.0), most=4000)
    drawn = workload(poisson(rate, seconds, seed=seed), lengths, seed=seed)
    return [Arrival(one.at, one.input_tokens, max(2, one.output_tokens)) for one in drawn]


def _busy() -> list[Arrival]:
    """As many with short prompts as with long ones."""
    return [
        Arrival(one.at, tokens, 16)
        for one, tokens in zip(workload(poisson(6.0, 60.0, seed=7), fixed(1, 1), seed=7), cycle(LENGTHS), strict=False)
    ]


CALIBRATION: Final = Load("busy", "Two lengths in turn", _busy, 2, 2)
LOADS: Final = (
    Load("azure", "Azure conversations", _azure, 2, 2),
    Load(
        "prefixes",
        "Mooncake synthetic, shared beginnings",
        _synthetic,
        2,
        2,
        prefill_slots=1,  # a prompt that is accepted is computed: the sim engine looks its beginning up at that moment
        options={**OPTIONS, "prefill_ms": [0, 0.8, 20], "enable_prefix_cache": True},
    ),
    Load("full", "More than two prefills can take", lambda: _drawn(9.5, 45.0, 1), 2, 3, prefill_slots=2, queue_s=4.0),
    Load("drawn", "Three prefills, lengths drawn", lambda: _drawn(9.0, 45.0, 2), 3, 3),
)
BY_NAME: Final = {load.name: load for load in (*LOADS, CALIBRATION)}
