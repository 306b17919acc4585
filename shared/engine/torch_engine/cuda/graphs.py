"""Decoding steps as CUDA graphs: one launch, whatever the number of layers.

Owns the captured graphs, one for each of some numbers of rows; a step takes the smallest that has room, and its other
rows are padding. Inside are the model, its likeliest tokens, and the handing on of those to the next step.
"""

import logging
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from shared.engine.sampling.likeliest import likeliest
from shared.engine.torch_engine.cuda.present import has_kernels
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.model import Model
from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.view import Batch, Layout, Scores

if TYPE_CHECKING:
    from shared.engine.torch_engine.cuda.paged import FixedStep, PagedLayout

log = logging.getLogger(__name__)

FEW: Final = (1, 2, 4, 8)
STEP: Final = 8
"""From there on, a size is so much or an eighth more than the one before: so little is padding."""


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: Any  # torch.cuda.CUDAGraph
    step: "FixedStep"
    batch: Batch
    logits: Tensor  # [rows, vocabulary]; the next replay overwrites it, as it does the tokens
    greedy: Tensor  # [rows]


class Graphs:
    """For one model and one layout. Construct and run in the thread that owns both. Raises RuntimeError."""

    def __init__(self, model: Model, layout: "PagedLayout", sequences: int) -> None:
        self._model = model
        self._layout = layout
        self._pool = torch.cuda.graph_pool_handle()  # one for all: two graphs never run at once
        self._sizes = sizes(sequences)
        # the largest first: the smaller ones then find room in what it took
        self._captured = {rows: self._capture(rows) for rows in reversed(self._sizes)}

    def run(self, plan: Plan) -> Scores:
        """Compute a plan without chunks. Does not wait for the device."""
        captured = self._captured[self._sizes[bisect_left(self._sizes, len(plan.decodes))]]
        samples = captured.step.fill(plan)
        captured.graph.replay()
        return Scores(captured.logits, samples, captured.batch, captured.greedy)

    def _capture(self, rows: int) -> _Captured:
        step = self._layout.fixed(rows)
        stream = torch.cuda.current_stream()
        aside = torch.cuda.Stream(stream.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(stream)
        with torch.cuda.stream(aside):  # what is made at a first call, kernels above all, is not to be captured
            self._compute(step)
        stream.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # other threads go on
            batch, logits, greedy = self._compute(step)
        return _Captured(graph, step, batch, logits, greedy)

    def _compute(self, step: "FixedStep") -> tuple[Batch, Tensor, Tensor]:
        batch = step.begin()
        logits = self._model.forward(batch)
        greedy = likeliest(logits)
        self._layout.keep(batch, greedy.clamp(min=0))
        return batch, logits, greedy


def sizes(sequences: int) -> list[int]:
    """Numbers of rows to capture, the last one `sequences`. Pure."""
    found = [size for size in FEW if size < sequences]
    size = FEW[-1] + STEP
    while size < sequences:
        found.append(size)
        size += max(STEP, size // 8 // STEP * STEP)
    return [*found, sequences]


@torch.inference_mode()
def capture(model: Model, layout: Layout, device: Device, sequences: int) -> Graphs | None:
    """The graphs, where the layout can be captured. None where that fails, with a warning: steps run without."""
    if not has_kernels(device.where):
        return None
    from shared.engine.torch_engine.cuda.paged import PagedLayout  # noqa: PLC0415  only there is Triton

    if not isinstance(layout, PagedLayout):
        return None
    try:
        return Graphs(model, layout, sequences)
    except RuntimeError as error:
        log.warning("steps run without CUDA graphs", extra={"error": str(error)})
        return None
