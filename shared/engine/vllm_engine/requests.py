"""Sequences as vLLM's requests, and its answers as ours. The one place that knows the fields of both."""

import time
from pathlib import Path
from typing import Any, Final

from shared.engine import Alternatives
from shared.engine.vllm_engine.draws import KEY, stop_token_ids, wanted
from shared.engine.vllm_engine.held import Held
from shared.engine.vllm_engine.notes import Transfer

LORA_NAME: Final = "baton"


class Requests:
    """Makes requests of one model. `lora` is the adapter that all of them use; for `unsaid_id` see `draws`."""

    def __init__(self, eos_ids: frozenset[int], lora: str = "", unsaid_id: int | None = None) -> None:
        from vllm.lora.request import LoRARequest  # noqa: PLC0415

        self._eos_ids = eos_ids
        self._unsaid_id = unsaid_id
        self._lora = LoRARequest(LORA_NAME, 1, str(Path(lora))) if lora else None

    def make(self, held: Held, transfer: Transfer, context: int) -> Any:  # noqa: ANN401  vLLM's EngineCoreRequest
        """A prompt whose KV goes to the transfer's range, or a sequence whose KV is there."""
        from vllm import SamplingParams  # noqa: PLC0415
        from vllm.v1.engine import EngineCoreRequest  # noqa: PLC0415

        sequence = held.sequence
        left = min(sequence.stopping.max_tokens - held.generated, context - held.length)
        extra: dict[str, Any] = {"kv_transfer_params": transfer.params(sends=held.prefills)}
        draw = wanted(sequence, self._eos_ids, self._unsaid_id)
        if draw is not None:
            extra[KEY] = draw
        stops = stop_token_ids(sequence, self._eos_ids, self._unsaid_id)
        held.forced = next((token for token in stops if token not in held.ends), None)
        return EngineCoreRequest(
            request_id=held.number,
            prompt_token_ids=sequence.tokens,
            mm_features=None,
            sampling_params=SamplingParams(
                temperature=0.0,  # what is drawn is our sampler's business
                max_tokens=1 if held.prefills else max(1, left),
                ignore_eos=True,
                stop_token_ids=[] if held.prefills else stops,
                logprobs=sequence.sampling.logprobs,
                detokenize=False,
                extra_args=extra,
            ),
            pooling_params=None,
            arrival_time=time.time(),
            lora_request=self._lora,
            cache_salt=None,
            data_parallel_rank=None,
        )


def cached_tokens(output: Any) -> int:  # noqa: ANN401  vLLM's EngineCoreOutput
    """Of a prompt, how many tokens vLLM found in its own prefix cache."""
    stats = output.prefill_stats
    return int(stats.num_local_cached_tokens) if stats is not None else 0


def alternatives(output: Any, most: int, place: int) -> Alternatives | None:  # noqa: ANN401  vLLM's EngineCoreOutput
    """The log probabilities of one of an output's tokens. vLLM puts the drawn token first, then the likeliest ones."""
    found = output.new_logprobs
    if found is None:
        return None
    ids, values = found.logprob_token_ids[place], found.logprobs[place]
    top = zip(ids[1 : most + 1].tolist(), values[1 : most + 1].tolist(), strict=True)
    return Alternatives(float(values[0]), list(top))
