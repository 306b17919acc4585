"""Baton's draws as a logits processor of vLLM: built by vLLM, in each rank that has logits.

With it a request that is continued elsewhere, by whichever engine, draws what it would have drawn. Only the face that
vLLM wants; what is done is `batch`'s. Needs vLLM's first model runner: the second has processors of another kind.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from shared.engine.vllm_engine.inside.batch import Added, Batch, Moved, Troubles
from shared.engine.vllm_engine.inside.languages import Languages
from shared.engine.vllm_engine.inside.line import tell
from shared.engine.vllm_engine.notes import Troubled

TOKENIZER: Final = "tokenizer"
"""In kv_connector_extra_config: the path of a tokenizer.json, empty where tokens are bytes."""
TROUBLES: Final[Troubles] = deque(maxlen=256)
"""What this process could not draw, for whoever can tell the worker: see Batch."""


@dataclass(frozen=True, slots=True)
class _Place:
    """See shared.engine.sampling.place.Place."""

    pins: bool
    where: torch.device
    sampling_rows: int

    def upload(self, host: torch.Tensor) -> torch.Tensor:
        return (host.pin_memory() if self.pins else host).to(self.where, non_blocking=self.pins)


class BatonSampler(LogitsProcessor):  # type: ignore[misc]  # vLLM's types are not looked at
    """See vllm.v1.sample.logits_processor.LogitsProcessor."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ANN401, FBT001
        transfer = vllm_config.kv_transfer_config
        extra = {} if transfer is None else transfer.kv_connector_extra_config
        vocabulary = vllm_config.model_config.get_vocab_size()
        languages = Languages(extra.get(TOKENIZER), vocabulary)
        on_cpu = device.type == "cpu"
        place = _Place(is_pin_memory and not on_cpu, device, 16 if on_cpu else 64)
        self._batch = Batch(place, vocabulary, languages.compiles, TROUBLES)

    def is_argmax_invariant(self) -> bool:
        """No: it must run for all rows, since for vLLM all are greedy."""
        return False

    def update_state(self, batch_update: Any) -> None:  # noqa: ANN401  BatchUpdate or None
        """Follow vLLM's batch. Called before each step."""
        if batch_update is None:
            return
        self._batch.update(
            batch_update.removed,
            [
                Added(index, params.extra_args, prompt or [], output)
                for index, params, prompt, output in batch_update.added
            ],
            [
                Moved(source, target, direction is MoveDirectionality.SWAP)
                for source, target, direction in batch_update.moved
            ],
        )

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw, and leave what is drawn. Called in each step, `logits` [batch, vocabulary], float32."""
        self._batch.apply(logits)
        while TROUBLES:
            tell(Troubled(*TROUBLES.popleft()))
        return logits
