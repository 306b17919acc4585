"""The clusters of the fleet's benchmark: the sim engine with the timings of an accelerator, at a pace for two cores.

A prompt takes 0.3 ms a token, one after another per prefill; a step of a decode takes 20 ms and 0.3 ms more for each
sequence in it. That is about what a 70B model on eight accelerators does, with the batch cut so that six to twelve
instances can be run by the machine of a developer. Everything else is the product as it is.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.faults.cluster import Cluster, cluster

TIMINGS: Final[dict[str, object]] = {
    "prefill_ms": [0, 0.3, 5],
    "prefill_batch": 1,
    "decode_step_ms": 20,
    "decode_seq_ms": 0.3,
    "max_num_seqs": 16,
    "kv_bytes_per_token": 64,
    "max_model_len": 8192,
}


@asynccontextmanager
async def fleet(options: dict[str, object] | None = None, **counts: Any) -> AsyncIterator[Cluster]:  # noqa: ANN401
    """Start a cluster in a folder of its own. `options`: of the engine; the rest as in `tests.faults.cluster`."""
    with tempfile.TemporaryDirectory() as folder:
        async with cluster(Path(folder), options={**TIMINGS, **(options or {})}, **counts) as started:
            yield started
