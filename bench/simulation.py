"""What an event and a request cost the simulator in processor time, at 100 to 10,000 instances: the baseline is 100.

The fleet and the load are those of `python -m simulator scale`; `million` there is the run of a million requests.
"""

import gc
import time
from itertools import islice
from typing import Final

from bench.table import Row
from simulator.cluster.simulation import Simulation
from simulator.experiments.scale import SIZES, arrivals, spec
from simulator.measures.tally import Tally

SEED: Final = 8
REQUESTS: Final = 20_000
"""At least; and enough that the fleet's batches fill: five simulated seconds."""
FILLING: Final = 12
"""Requests per instance."""
TURNS: Final = 2


def rows() -> list[Row]:
    """The sizes in turn, the best of some turns each."""
    events: dict[int, float] = {}
    requests: dict[int, float] = {}
    for _ in range(TURNS):
        for size in SIZES:
            each, whole = measured(size)
            events[size] = min(each, events.get(size, each))
            requests[size] = min(whole, requests.get(size, whole))
    few = SIZES[0]
    found = []
    for size in SIZES[1:]:
        found.append(Row(f"an event at {size:,} instances", events[size], "us", f"{few} instances", events[few]))
        found.append(Row(f"a request at {size:,} instances", requests[size], "us", f"{few} instances", requests[few]))
    return found


def measured(size: int) -> tuple[float, float]:
    """Microseconds of processor time per event and per request, the fleet's beginning left out."""
    gc.collect()
    simulation = Simulation(spec(size), Tally())
    simulation.run(0.01)  # maps and first statuses
    requests = max(REQUESTS, FILLING * size)
    simulation.feed(islice(arrivals(SEED, size), requests))
    before, begin = simulation.clock.happened, time.process_time()
    simulation.run()
    seconds = time.process_time() - begin
    return 1e6 * seconds / (simulation.clock.happened - before), 1e6 * seconds / requests
