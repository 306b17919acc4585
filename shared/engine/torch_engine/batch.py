"""One step laid out as arrays: which tokens at which positions, where their keys and values go, what each sees.

Owns the order of rows: decoding sequences by length, then the chunks in the plan's order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shared.engine.torch_engine.architecture import LayerKind
from shared.engine.torch_engine.attention import Geometry, Part, Span
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.sequence import Run


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of `Model.forward`. `samples` says whose next token each of the rows `sampled` decides."""

    tokens: Tensor  # [rows]
    positions: Tensor  # [rows]
    token_rows: Tensor  # [2 * layers, rows], see Cache.token_rows
    parts: dict[LayerKind, list[Part]]
    sampled: Tensor | None  # [samples] rows; None: all of them, in order
    samples: list[Run]


def lay_out(plan: Plan, kinds: tuple[LayerKind, ...], cache: Cache, geometry: Geometry, device: Device) -> Batch:
    """The arrays of a plan."""
    decodes = sorted(plan.decodes, key=lambda run: run.computed)  # equal padded lengths side by side
    spans = [Span(run.computed, run.computed + 1, run.blocks) for run in decodes]
    chunks = [Span(chunk.start, chunk.stop, chunk.run.blocks) for chunk in plan.chunks]
    tokens = [run.tokens[run.computed] for run in decodes]
    samples, rows = list(decodes), list(range(len(decodes)))
    for chunk in plan.chunks:
        tokens += chunk.run.tokens[chunk.start : chunk.stop]
        if chunk.completes:
            samples.append(chunk.run)
            rows.append(len(tokens) - 1)
    size = cache.layout.block_tokens
    positions = np.concatenate([np.arange(span.start, span.stop) for span in (*spans, *chunks)])
    blocks = np.concatenate([np.array(_written(span, size), np.int64) for span in (*spans, *chunks)])
    columns = device.upload(torch.from_numpy(np.stack((np.array(tokens), positions, blocks, positions % size))))
    return Batch(
        tokens=columns[0],
        positions=columns[1],
        token_rows=cache.token_rows(columns[2], columns[3]),
        parts={kind: geometry.parts(kind, spans, chunks) for kind in kinds},
        sampled=None if len(rows) == len(tokens) else device.upload(torch.tensor(rows, dtype=torch.int64)),
        samples=samples,
    )


def _written(span: Span, block_size: int) -> list[int]:
    """The block of each position of the span."""
    return [span.blocks[position // block_size] for position in range(span.start, span.stop)]
