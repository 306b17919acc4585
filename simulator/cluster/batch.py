"""An engine's steps in simulated time: continuous batching, and prompts in chunks beside it.

Between two changes of the batch every step is alike but for the growing context, so a run of steps is one event: with
B sequences of K tokens together, the i-th next step takes f(B, K + i*B), and n of them n*f(B, K) + s*n*(n-1)/2, where
s is what one step takes more than the one before it. That is exact where f is linear in the context (every form of
ours); others are taken as straight between the ends of a run. A sequence that comes or goes cuts the run at the end of
the step under way. While prompts are computed each step is an event.
"""

from collections import deque
from heapq import heappop, heappush
from math import ceil, floor, sqrt
from typing import Final

from simulator.clock import Clock
from simulator.cluster.sequences import Prompt, Sequence
from simulator.engine.profile import Profile

CHUNK: Final = 2048
"""Prompt tokens computed beside a decode step."""
EPSILON: Final = 1e-9


class Batch:
    """One engine. `alone`: prompts have steps for themselves and decoding waits (`chunk` then is no bound)."""

    def __init__(self, clock: Clock, profile: Profile, *, chunk: int = CHUNK, alone: bool = False) -> None:
        self.steps = 0
        self.slower = 1.0  # times as long as it should
        self.busy_s = 0.0
        self._clock = clock
        self._profile = profile
        self._timing = profile.timing
        self._chunk = chunk
        self._alone = alone
        self._size = 0
        self._context = 0  # tokens of all sequences
        self._ends: list[tuple[int, int, Sequence]] = []  # heap
        self._order: dict[Sequence, None] = {}  # oldest first
        self._joining: list[Sequence] = []
        self._leaving = False
        self._prompts: deque[Prompt] = deque()
        self._run = 0  # number of the run under way; an older one's end means nothing
        self._running = False
        self._stopped = False
        self._from = 0.0  # when the run began
        self._planned = 0  # its steps
        self._first = self._more = 0.0  # its first step's seconds, and how much longer each next one takes
        self._joined = 0
        self._tokens = 0

    def __len__(self) -> int:
        return self._size + len(self._joining)

    @property
    def busy(self) -> bool:
        """Whether it computes."""
        return self._running

    @property
    def tokens(self) -> int:
        """Count the tokens generated so far."""
        return self._tokens + self._done() * self._size

    @property
    def prompts(self) -> int:
        """Prompts that are computed or wait for it."""
        return len(self._prompts)

    @property
    def free_blocks(self) -> int:
        """Blocks that no sequence uses; a sequence's last block is half full on average."""
        return max(0, self._profile.blocks - self._used(self._done()))

    def _used(self, steps: int) -> int:
        block, context = self._profile.block_tokens, self._context + steps * self._size
        held = context + sum(one.tokens for one in self._joining)
        return ceil((held + len(self) * (block - 1) / 2) / block)

    # ---- who comes and goes

    def join(self, sequence: Sequence) -> None:
        """Decode it from the next step on."""
        self._joining.append(sequence)
        self._change()

    def compute(self, prompt: Prompt) -> None:
        """Compute a prompt, after those that came before it, beside what is decoded."""
        self._prompts.append(prompt)
        self._change()

    def leave(self, one: Sequence | Prompt) -> None:
        """Compute it no more; its blocks are free at the end of the step. Idempotent, and nobody is called."""
        one.gone = True
        self._leaving = True
        self._change()

    def generated(self, sequence: Sequence) -> int:
        """Count the tokens that it has got here so far."""
        if sequence.joined < 0:
            return 0
        return min(sequence.left, self.steps + self._done() - sequence.joined)

    def stop(self) -> None:
        """Compute nothing any more, without a word: it stands still until `go_on`."""
        self._settle(self._done())
        self._run += 1
        self._running = False
        self._stopped = True

    def end(self) -> None:
        """Stop for good, and forget everybody; what each had got can still be counted."""
        self.stop()
        self._ends.clear()
        self._order.clear()
        self._joining.clear()
        self._prompts.clear()

    def go_on(self) -> None:
        """Compute again; the step that was cut short begins anew."""
        self._stopped = False
        self._change()

    # ---- runs of steps

    def _change(self) -> None:
        """Something changes at the end of the step under way, or now if there is none."""
        if self._stopped:
            return
        if not self._running:
            self._next()
            return
        step = self._done() + 1
        if step < self._planned:
            self._plan(step)

    def _done(self) -> int:
        """Whole steps of the run under way."""
        if not self._running:
            return 0
        elapsed = (self._clock.now - self._from) / self.slower
        if self._more < EPSILON * self._first:
            return min(self._planned, floor(elapsed / self._first + EPSILON))
        b = self._first - self._more / 2  # n*first + more*n*(n-1)/2 = elapsed
        return min(self._planned, floor((sqrt(b * b + 2 * self._more * elapsed) - b) / self._more + EPSILON))

    def _takes(self, steps: int) -> float:
        return self.slower * (steps * self._first + self._more * steps * (steps - 1) / 2)

    def _plan(self, steps: int) -> None:
        self._run += 1
        self._running = True
        self._planned = steps
        self._clock.at(self._from + self._takes(steps), self._end, self._run)

    def _end(self, run: int) -> None:
        if run == self._run:
            self._settle(self._planned)
            self._next()

    def _settle(self, steps: int) -> None:
        if self._running:
            self.steps += steps
            self._tokens += steps * self._size
            self._context += steps * self._size
            self.busy_s += self._clock.now - self._from

    def _next(self) -> None:
        """At the end of a step: let go who has finished, take in who waits, and begin the next run."""
        self._running = False
        over = self._finished()
        if self._leaving:
            self._let_go()
        for sequence in self._joining:
            self._take(sequence)
        self._joining.clear()
        victims = self._evict()
        self._from = self._clock.now
        if self._prompts:
            self._mixed()
        elif self._size:
            self._long()
        for sequence in over:
            sequence.over()
        for sequence in victims:
            sequence.evicted()

    def _finished(self) -> list[Sequence]:
        over: list[Sequence] = []
        while self._ends and self._ends[0][0] <= self.steps:
            sequence = heappop(self._ends)[2]
            if not sequence.gone:
                self._drop(sequence)
                over.append(sequence)
        return over

    def _let_go(self) -> None:
        self._leaving = False
        for sequence in [one for one in self._order if one.gone]:
            self._drop(sequence)
        self._joining = [one for one in self._joining if not one.gone]
        self._prompts = deque(one for one in self._prompts if not one.gone)

    def _take(self, sequence: Sequence) -> None:
        sequence.joined = self.steps
        self._joined += 1
        heappush(self._ends, (sequence.ends, self._joined, sequence))
        self._order[sequence] = None
        self._size += 1
        self._context += sequence.tokens

    def _drop(self, sequence: Sequence) -> None:
        sequence.gone = True
        sequence.left = self.steps - sequence.joined  # what it got: no more comes
        del self._order[sequence]
        self._size -= 1
        self._context -= sequence.tokens + sequence.left

    def _evict(self) -> list[Sequence]:
        """Without a block for the next token of each, the youngest has to go."""
        victims: list[Sequence] = []
        while self._size > 1 and self._used(1) > self._profile.blocks:
            victims.append(next(reversed(self._order)))
            self._drop(victims[-1])
        return victims

    def _long(self) -> None:
        """Plan steps until a sequence ends, or until the blocks do."""
        while self._ends[0][2].gone:
            heappop(self._ends)
        steps = self._ends[0][0] - self.steps
        block = self._profile.block_tokens
        room = self._profile.blocks * block - self._context - self._size * (block - 1) / 2
        steps = max(1, min(steps, floor(room / self._size)))
        self._first = self._timing.step_s(self._size, self._context)
        self._more = 0.0
        if steps > 1:
            last = self._timing.step_s(self._size, self._context + (steps - 1) * self._size)
            self._more = max(0.0, (last - self._first) / (steps - 1))
        self._plan(steps)

    def _mixed(self) -> None:
        """Plan one step with a part of the first prompt in it."""
        prompt = self._prompts[0]
        beside = 0 if self._alone else self._size
        part = prompt.new if self._alone else min(prompt.new, max(1, self._chunk - beside))
        if beside:
            self._first = self._timing.mixed_s(part, prompt.behind, beside, self._context)
        else:
            self._first = self._timing.prefill_s(part, prompt.behind)
        self._more = 0.0
        self._run += 1
        self._running = True
        self._planned = 1
        self._clock.at(self._from + self.slower * self._first, self._end_mixed, self._run, prompt, part)

    def _end_mixed(self, run: int, prompt: Prompt, part: int) -> None:
        if run != self._run:
            return
        if self._alone:  # nobody got a token meanwhile
            self.busy_s += self._clock.now - self._from
            self._running = False
        else:
            self._settle(1)
        prompt.new -= part
        prompt.behind += part
        through = prompt.new <= 0 and not prompt.gone
        if prompt.new <= 0 and self._prompts and self._prompts[0] is prompt:
            self._prompts.popleft()
        self._running = False
        if through:
            prompt.computed()
        if not self._running:
            self._next()
