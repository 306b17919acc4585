"""What a decoding step of Gemma 3 270M costs, against its batch and against its context, as two charts.

Both have the ideal beside them: the bytes of weights and KV that a step must read, at the memory's measured bandwidth.
"""

from pathlib import Path
from typing import Any, Final

from bench import engine_steps  # isort: skip  before torch: it sets how its threads wait

import torch

from bench.plots import svg
from shared.engine.torch_engine.architecture import read_architecture
from shared.engine.torch_engine.options import read_options
from shared.engine.torch_engine.runner import Runner
from shared.messages import Sampling
from shared.models import resolve

MODEL: Final = "gemma-3-270m"
FORMS: Final = {"bfloat16": ("bfloat16", "none"), "int8 weights": ("bfloat16", "int8")}
BATCHES: Final = (1, 4, 16, 64)
CONTEXTS: Final = (128, 512, 2048, 8192)
SHORT: Final = 128  # tokens, where the batch grows
FEW: Final = 8  # sequences, where the context grows
STEPS: Final = 12
KV_CACHE_MB: Final = 2048
Points = list[list[float]]


def curves() -> dict[str, Any]:
    """The charts, without a place, by the name of their file."""
    path = resolve(MODEL, "torch", {}).path
    if path is None:
        raise RuntimeError(f"{MODEL} has no files")
    speed = engine_steps.bandwidth(torch.device("cpu"))
    by_batch, by_context = [], []
    for name, (dtype, quantization) in FORMS.items():
        batch, context, ideal_batch, ideal_context = _measured(path, dtype, quantization, speed)
        by_batch += [{"name": name, "points": batch}, _ideal(name, ideal_batch)]
        by_context += [{"name": name, "points": context}, _ideal(name, ideal_context)]
    about = f"{torch.get_num_threads()} threads; dashed: reading weights and KV at {speed / 1e9:.1f} GB/s"
    return {
        "gemma-batch": {
            "title": "A decoding step of Gemma 3 270M against its batch",
            "subtitle": f"{about}; contexts of {SHORT}",
            "x": {"label": "sequences", "log": True},
            "y": {"label": "ms"},
            "lines": by_batch,
        },
        "gemma-context": {
            "title": "A decoding step of Gemma 3 270M against its context",
            "subtitle": f"{about}; {FEW} sequences",
            "x": {"label": "tokens of each sequence", "log": True},
            "y": {"label": "ms"},
            "lines": by_context,
        },
    }


def _ideal(name: str, points: Points) -> dict[str, Any]:
    return {"name": f"{name}, ideal", "points": points, "dashed": True, "colour": svg.SOFT}


def _measured(path: Path, dtype: str, quantization: str, speed: float) -> tuple[Points, Points, Points, Points]:
    """By batch, by context, and the ideal of both."""
    given = {"dtype": dtype, "quantization": quantization, "max_num_seqs": max(BATCHES), "kv_cache_mb": KV_CACHE_MB}
    runner = Runner(path, read_options(given), frozenset())
    bits = engine_steps.BITS.get(quantization, 16)
    read = engine_steps.weight_bytes(path, bits, max(bits, 8))
    batch = [[float(rows), _step_ms(runner, rows, SHORT)] for rows in BATCHES]
    context = [[float(tokens), _step_ms(runner, FEW, tokens)] for tokens in CONTEXTS]
    runner.close()
    ideal_batch = [[float(rows), _ms((read + rows * kv_bytes(path, SHORT)) / speed)] for rows in BATCHES]
    ideal_context = [[float(tokens), _ms((read + FEW * kv_bytes(path, tokens)) / speed)] for tokens in CONTEXTS]
    return batch, context, ideal_batch, ideal_context


def _step_ms(runner: Runner, rows: int, context: int) -> float:
    engine_steps.insert(runner, rows, context, Sampling(temperature=0.0))
    best = engine_steps.measure(runner, STEPS).best
    for row in range(rows):
        runner.release(f"{rows}-{row}")
    return _ms(best)


def kv_bytes(path: Path, context: int) -> int:
    """What a step reads of one sequence's KV, which is in bfloat16: of a layer with a window no more than that."""
    model = read_architecture(path)
    seen = sum(min(context, kind.window or context) for kind in model.layers)
    return seen * model.kv_heads * model.head_dim * 2 * 2


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
