"""Which sequences vLLM computes for us, and what its steps mean for them.

Pure but for the futures that callers wait on. Owns the places and the counted blocks; sends nothing: whom vLLM shall
compute no longer is an answer.
"""

import asyncio
import itertools
from typing import Any, Final

from shared.engine import EngineInfo, EngineLoad, Prefilled, Sampled, Sequence, Step
from shared.engine.sampling.endings import ends_of
from shared.engine.torch_engine.sequence import check
from shared.engine.vllm_engine.held import Held
from shared.engine.vllm_engine.prefixes import Prefixes
from shared.engine.vllm_engine.requests import alternatives, cached_tokens
from shared.errors import BadRequest, BatonError, Cancelled, EngineFailed, KvRefused, Overloaded

ERROR: Final = 3  # vLLM's FinishReason of a request whose KV could not be loaded


class Book:
    """Of one started engine. `vocabulary` bounds the tokens that vLLM takes."""

    def __init__(self, info: EngineInfo, vocabulary: int, prefixes: Prefixes) -> None:
        self.info = info
        self._vocabulary = vocabulary
        self._prefixes = prefixes
        self._held: dict[str, Held] = {}
        self._by_number: dict[str, Held] = {}
        self._numbers = itertools.count(1)
        self._steps = 0

    def __iter__(self) -> "itertools.chain[Held]":
        return itertools.chain(list(self._held.values()))

    def get(self, key: str) -> Held | None:
        """The sequence that is held under a key."""
        return self._held.get(key)

    def load(self) -> EngineLoad:
        """Now. Blocks are counted as if no two sequences shared any."""
        held = [one for one in self._held.values() if not one.exported]
        taken = sum(self.info.blocks_for(one.length) for one in held)
        return EngineLoad(len(held), max(0, self.info.blocks - taken), self._steps)

    def enter(self, sequence: Sequence, *, prefills: bool) -> Held:
        """Give a sequence its place. Raises BadRequest or Overloaded."""
        info = self.info
        if sequence.key in self._held:
            raise BadRequest(f"the engine already holds a sequence {sequence.key!r}")
        check(sequence, info, self._vocabulary)
        load, needed = self.load(), info.blocks_for(len(sequence.tokens) + 1)
        if load.sequences >= info.max_sequences:
            raise Overloaded(f"all {info.max_sequences} places in the batch are taken")
        if needed > load.free_blocks:
            raise Overloaded(f"{needed} KV blocks are needed and {load.free_blocks} are free")
        first: asyncio.Future[Prefilled] = asyncio.get_running_loop().create_future()
        held = self._held[sequence.key] = Held(sequence, prefills, first, ends_of(sequence.stopping, info.eos_ids))
        return held

    def number(self, held: Held) -> str:
        """Give it the name by which vLLM knows it, which is never used again."""
        held.number = str(next(self._numbers))
        self._by_number[held.number] = held
        return held.number

    def leave(self, held: Held) -> None:
        """Hold it no longer. Whoever waits for its prompt is told; nobody does once that is there."""
        if self._held.get(held.key) is held:
            del self._held[held.key]
        self._by_number.pop(held.number, None)
        held.fail(Cancelled(f"the sequence {held.key!r} was released"))

    def take(self, outputs: Any) -> tuple[Step, list[Held]]:  # noqa: ANN401  vLLM's EngineCoreOutputs
        """What a step brought, and whose decoding ended with it."""
        self._steps += 1
        step, ended = Step(), []
        for output in outputs.outputs:
            held = self._by_number.get(output.request_id)
            if held is None:
                continue
            if output.finish_reason is not None:
                held.finished = True
            if held.released:
                continue
            try:
                ends = self._settle(held, output, step)
            except BatonError as error:
                ends = self._fail(held, error, step)
            if ends:
                ended.append(held)
        return step, ended

    def fail(self, key: str, error: BatonError) -> tuple[Step, list[Held]]:
        """End a sequence that failed inside vLLM, or with an empty key all of them; as `take` answers."""
        step = Step()
        concerned = [held for held in self if key in ("", held.key) and not held.released]
        return step, [held for held in concerned if self._fail(held, error, step)]

    def _settle(self, held: Held, output: Any, step: Step) -> bool:  # noqa: ANN401  vLLM's EngineCoreOutput
        """One sequence's part of a step; whether its decoding ended. Raises what it fails with."""
        if output.finish_reason == ERROR:
            raise KvRefused("length", "vLLM could not load the KV buffer")
        if output.num_nans_in_logits:  # counted where VLLM_COMPUTE_NANS_IN_LOGITS is on
            raise EngineFailed("the model's output is not a number")
        top = held.sequence.sampling.logprobs
        for place, token in enumerate(output.new_token_ids):
            finish, stop_token = held.take(token, self.info)
            known = None if top is None else alternatives(output, top, place)
            sampled = Sampled(held.key, token, finish, stop_token, known)
            if held.prefills:
                self._prefixes.add(held.sequence.tokens)
                if not held.first.done():
                    held.first.set_result(Prefilled(sampled, cached_tokens(output)))
                return False
            step.sampled.append(sampled)
            if finish is not None:
                return True
        return False

    def _fail(self, held: Held, error: BatonError, step: Step) -> bool:
        held.fail(error)
        if not held.prefills:
            step.failed.append((held.key, error))
        return not held.prefills
