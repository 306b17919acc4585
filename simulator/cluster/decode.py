"""A decode worker in simulated time: room for KV buffers, the running batch, and short prompts of its own.

Who gets room is `DecodeAdmission`'s decision. Without prefills in its scenario it is an aggregated instance: prompts
come to it alone, and are computed in chunks beside what it decodes.
"""

from collections.abc import Callable
from functools import partial

from shared.errors import Code
from shared.messages import Role
from shared.policy.admission import DecodeAdmission, Refused
from simulator.cluster.attempt import Attempt
from simulator.cluster.batch import Batch
from simulator.cluster.cache import PrefixCache
from simulator.cluster.sequences import Prompt, Sequence
from simulator.cluster.worker import Post, Worker

Key = tuple[str, int]


class Decode(Worker):
    """One."""

    role = Role.DECODE

    def __init__(self, post: Post) -> None:
        super().__init__(post)
        scenario, profile, spec = post.scenario, post.profile, post.spec
        self.batch = Batch(self.clock, profile, chunk=scenario.chunk, alone=scenario.alone)
        self.admission = DecodeAdmission(profile.blocks, spec.staging_bytes, profile.max_sequences, spec.decode_waiting)
        self.cache = PrefixCache(scenario.cache_blocks)
        self._held: dict[Key, Attempt] = {}

    def load(self) -> tuple[int, int, int, bool, int]:
        """See Worker."""
        batch, admission, profile = self.batch, self.admission, self.profile
        self.meter.tokens = batch.tokens
        kv_free_bytes = batch.free_blocks * profile.block_tokens * profile.kv_bytes_per_token
        return profile.max_sequences, admission.free, batch.steps, batch.busy, kv_free_bytes

    # ---- KV buffers

    def offered(self, attempt: Attempt, answer: Callable[[Refused | None], None]) -> None:
        """Answer a KvReady: None is a grant. One that stands still or has died says nothing, and prefill waits."""
        if self.frozen or not self.up:
            wait_s = 0.0 if not self.up else self.spec.offer_timeout_s
            self.clock.after(wait_s, answer, Refused(Code.WORKER_LOST, "no answer"))
            return
        refused = self._admit(attempt, attempt.tokens, local=False)
        if refused is not None:
            self.meter.refused += 1
        self.bus.say(answer, refused)

    def _admit(self, attempt: Attempt, kv_tokens: int, *, local: bool) -> Refused | None:
        if self.draining:
            return Refused(Code.DRAINING, "draining")
        profile = self.profile
        verdict = self.admission.offer(
            *attempt.key,
            blocks=min(profile.blocks_for(kv_tokens + 1) + 1, profile.blocks),
            kv_bytes=profile.kv_bytes(kv_tokens),
            deadline=attempt.expires,
            free_blocks=self.batch.free_blocks,
            now=self.clock.now,
            local=local,
        )
        if isinstance(verdict, Refused):
            return verdict
        self._held[attempt.key] = attempt
        return None

    def received(self, attempt: Attempt) -> bool:
        """Take in a whole buffer; False: its room is gone."""
        if attempt.key not in self._held:
            return False
        attempt.decode = self
        self._call(self.admission.received(*attempt.key))
        return True

    def _call(self, keys: list[Key]) -> None:
        """Let those into the batch whose turn it is."""
        for key in keys:
            attempt = self._held.get(key)
            if attempt is not None and not attempt.over:
                self._join(attempt)

    def _join(self, attempt: Attempt) -> None:
        tokens, left = attempt.tokens + 1, attempt.left - 1
        over, evicted = partial(self._over, attempt), partial(self._evicted, attempt)
        attempt.sequence = sequence = Sequence(tokens, left, over, evicted)
        self.meter.slots.add(1, self.clock.now)
        self.admission.inserted(*attempt.key)
        self.batch.join(sequence)

    def _over(self, attempt: Attempt) -> None:
        self.meter.passed += 1
        self._free(attempt)
        self.bus.say(attempt.gateway.ended, attempt)

    def _evicted(self, attempt: Attempt) -> None:
        self._free(attempt)
        self.bus.say(attempt.gateway.failed, attempt, Code.OVERLOADED, True)

    # ---- prompts of its own

    def hear(self, attempt: Attempt) -> None:
        """Answer an offer of a prompt at once."""
        if self.silent(attempt):
            return
        below = self.scenario.routes.local_tokens
        known = min(self.cache.known(attempt.arrival.blocks) * self.scenario.block_tokens, attempt.tokens - 1)
        if attempt.tokens - known >= below:
            refused: Refused | None = Refused(Code.NO_CAPACITY, f"fewer than {below} tokens are computed here")
        else:
            refused = self._admit(attempt, attempt.tokens, local=True)
        if refused is not None:
            code = Code.NO_CAPACITY if refused.code in (Code.OVERLOADED, Code.CONTEXT_TOO_LONG) else refused.code
            self.bus.say(attempt.gateway.rejected, attempt, self.name, Refused(code, refused.message))
            return
        attempt.accepted = self.clock.now
        attempt.decode = self
        attempt.cached = min(self.cache.match(attempt.arrival.blocks) * self.scenario.block_tokens, attempt.tokens - 1)
        self.bus.say(attempt.gateway.accepted, attempt, self.name)
        attempt.prompt = Prompt(attempt.tokens - attempt.cached, attempt.cached, partial(self._computed, attempt))
        self.batch.compute(attempt.prompt)

    def _computed(self, attempt: Attempt) -> None:
        if attempt.over:
            return
        attempt.prompt = None
        now = self.clock.now
        self.cache.add(attempt.arrival.blocks)
        if attempt.deadline <= now:
            self._free(attempt)
            self.bus.say(attempt.gateway.failed, attempt, Code.DEADLINE, False)
            return
        attempt.computed = attempt.moved = now
        if attempt.left == 1:
            self._free(attempt)
            self.bus.say(attempt.gateway.ended, attempt)
            return
        self.bus.say(attempt.gateway.first_token, attempt)
        self.bus.say(attempt.gateway.handed_off, attempt, self.name)  # from here on it is like any other's
        self._join(attempt)

    # ---- the end of an attempt here

    def cancel(self, attempt: Attempt) -> None:
        """See Worker."""
        if attempt.key in self._held:
            self.admission.cancel(*attempt.key)
            self._free(attempt)

    def _free(self, attempt: Attempt) -> None:
        if self._held.pop(attempt.key, None) is None:
            return
        if attempt.sequence is not None:
            self.meter.slots.add(-1, self.clock.now)
            if not attempt.sequence.gone:
                self.batch.leave(attempt.sequence)
        if attempt.prompt is not None:
            self.batch.leave(attempt.prompt)
        was_full = not self.admission.free
        self._call(self.admission.ended(*attempt.key))
        if was_full and self.admission.free:
            self.announce()

    def halt(self) -> None:
        """See Worker."""
        if self.up:
            self.batch.stop()
        else:
            self.batch.end()
            self._held.clear()

    def resume(self) -> None:
        """See Worker."""
        self.batch.go_on()
