"""A prefill worker in simulated time: slots, prompts computed in the order of acceptance, the hand-off.

Who is accepted is `PrefillAdmission`'s decision, which decode is asked is `Asking`'s. A slot is held until the KV has
left. There is no queue: what waits for its computing here has a slot.
"""

from collections import deque
from functools import partial

from shared.errors import Code
from shared.messages import Role, ScenarioMap, Status
from shared.policy.admission import PrefillAdmission, Refused
from shared.policy.asking import AGAIN_S, Asking
from shared.policy.placement import FleetView, ViewRules
from shared.worker.work import Stint
from simulator.cluster.attempt import Attempt
from simulator.cluster.cache import PrefixCache
from simulator.cluster.decode import Decode
from simulator.cluster.worker import Post, Worker
from simulator.network import Network


class Prefill(Worker):
    """One. `decodes` finds a decode by its name; None where it is gone."""

    role = Role.PREFILL

    def __init__(self, post: Post, network: Network, decodes: dict[str, Decode]) -> None:
        super().__init__(post)
        scenario, spec = post.scenario, post.spec
        self.slower = 1.0
        self.steps = 0
        self.cache = PrefixCache(scenario.cache_blocks)
        self.view = FleetView(ViewRules(heartbeat_s=spec.heartbeat_s, misses=spec.misses), self.name)
        self.admission = PrefillAdmission(min(scenario.prefill_slots, self.profile.max_sequences), spec.staging_bytes)
        self._network = network
        self._decodes = decodes
        self._at_once = self.profile.prefill_at_once
        self._line: deque[Attempt] = deque()
        self._computing: dict[tuple[str, int], Attempt] = {}
        self._stints: dict[tuple[str, int], Stint] = {}
        self._waiting: dict[tuple[str, int], tuple[Attempt, Asking]] = {}  # computed, and no decode has room
        self._life = 0  # raised at each halt: what was under way does not come
        self.bus.listen_to_decodes(scenario.name, self.group, self.learn)

    def load(self) -> tuple[int, int, int, bool, int]:
        """See Worker."""
        busy = bool(self._computing or self._line)
        return self.admission.slots, self.admission.free, self.steps, busy, 0

    def learn(self, message: Status | ScenarioMap) -> None:
        """Hear of a decode, or of the map."""
        if self.frozen:
            return
        self.view.see(message, self.clock.now)
        if isinstance(message, ScenarioMap) or message.free:
            for key in list(self._waiting):
                attempt, asking = self._waiting.pop(key)
                asking.again()
                self._ask(attempt, asking)

    # ---- a prompt's way

    def hear(self, attempt: Attempt) -> None:
        """Answer an offer at once."""
        if self.silent(attempt):
            return
        now = self.clock.now
        verdict: object = Refused(Code.DRAINING, "draining") if self.draining else None
        if verdict is None:
            kv_bytes = self.profile.kv_bytes(attempt.tokens)
            verdict = self.admission.offer(*attempt.key, kv_bytes=kv_bytes, deadline=attempt.deadline, now=now)
        if isinstance(verdict, Refused):
            self.meter.refused += 1
            self.bus.say(attempt.gateway.rejected, attempt, self.name, verdict)
            return
        attempt.accepted = now
        attempt.prefill = self
        self._stints[attempt.key] = stint = Stint(self.meter)
        stint.begin(now)
        self.bus.say(attempt.gateway.accepted, attempt, self.name)
        self._line.append(attempt)
        self._compute()

    def _compute(self) -> None:
        """Compute as many side by side as the engine does."""
        while self._line and not self.frozen and (not self._at_once or len(self._computing) < self._at_once):
            attempt = self._line.popleft()
            if attempt.over or self._late(attempt):
                continue
            known = self.cache.match(attempt.arrival.blocks) * self.scenario.block_tokens
            attempt.cached = min(known, attempt.tokens - 1)  # one token at least is computed: its logits are wanted
            seconds = self.profile.timing.prefill_s(attempt.tokens - attempt.cached, attempt.cached)
            self._computing[attempt.key] = attempt
            self.clock.after(self.slower * seconds, self._computed, attempt, self._life)

    def _computed(self, attempt: Attempt, life: int) -> None:
        if life != self._life:
            return
        del self._computing[attempt.key]
        if not attempt.over:
            self.cache.add(attempt.arrival.blocks)  # before the next prompt looks for its beginning
        self._compute()
        self.steps += 1
        if attempt.over:
            return
        now = self.clock.now
        self.meter.cached += attempt.cached
        self.meter.tokens += attempt.tokens - attempt.cached
        if self._late(attempt):
            return
        attempt.computed = now
        if attempt.left == 1:
            self._free(attempt, passed=True)
            self.bus.say(attempt.gateway.ended, attempt)
            return
        self.bus.say(attempt.gateway.first_token, attempt)
        self._stints[attempt.key].computed(now)
        self._ask(attempt, Asking(self.view, self.scenario.name, self.group))

    def _late(self, attempt: Attempt) -> bool:
        """Early intervention, before and after computing: what comes too late is not computed, or not sent."""
        if attempt.deadline > self.clock.now:
            return False
        self._free(attempt, passed=False)
        self.bus.say(attempt.gateway.failed, attempt, Code.DEADLINE, False)
        return True

    # ---- the hand-off

    def _ask(self, attempt: Attempt, asking: Asking) -> None:
        """Ask the next decode, or wait until there is news."""
        if attempt.over or self.frozen or not self.up:
            return
        name = asking.next(self.clock.now)
        if name is None:
            self._waiting[attempt.key] = attempt, asking
            self.clock.after(AGAIN_S, self._ask_again, attempt, asking)
            return
        self.view.dispatched(name)
        decode = self._decodes.get(name)
        if decode is None or not decode.up:
            self.bus.say(self._unanswered, attempt, asking, name)
        elif decode.frozen:
            self.clock.after(self.spec.offer_timeout_s, self._unanswered, attempt, asking, name)
        else:
            self.bus.say(decode.offered, attempt, partial(self._answered, attempt, asking, decode))

    def _ask_again(self, attempt: Attempt, asking: Asking) -> None:
        if self._waiting.pop(attempt.key, None) is not None:
            asking.again()
            self._ask(attempt, asking)

    def _unanswered(self, attempt: Attempt, asking: Asking, name: str) -> None:
        self.view.unanswered(name, self.clock.now)
        self._ask(attempt, asking)

    def _answered(self, attempt: Attempt, asking: Asking, decode: Decode, refused: Refused | None) -> None:
        if refused is None:
            self.view.accepted(decode.name)
            if attempt.over or not self.up:
                self.view.settled(decode.name)
                return
            nbytes = self.profile.kv_bytes(attempt.tokens)
            self._network.send(self.name, decode.name, nbytes, partial(self._arrived, attempt, asking, decode))
            return
        self.view.rejected(decode.name)
        if not refused.retryable and not attempt.over:
            self._free(attempt, passed=False)
            self.bus.say(attempt.gateway.failed, attempt, refused.code, False)
            return
        self._ask(attempt, asking)

    def _arrived(self, attempt: Attempt, asking: Asking, decode: Decode) -> None:
        """The whole buffer is at the decode, if that still lives; one that stands still may have it or not."""
        self.view.settled(decode.name)
        if attempt.over:
            return
        if decode.frozen:
            wait_s = self.spec.push_timeout_s + self.spec.offer_timeout_s  # for its word, then for its withdrawal
            self.clock.after(wait_s, self._lost, attempt)
            return
        if not decode.up or not decode.received(attempt):
            attempt.refusals += 1
            asking.refused(decode.name)
            if attempt.refusals >= self.spec.rules.attempts:
                self._fail(attempt, Code.KV_REFUSED)
            else:
                self._ask(attempt, asking)
            return
        attempt.moved = self.clock.now
        self._free(attempt, passed=True)
        self.bus.say(attempt.gateway.handed_off, attempt, decode.name)

    def _lost(self, attempt: Attempt) -> None:
        """A decode may have the buffer and is silent, so nobody else may get it under this attempt."""
        if not attempt.over and attempt.key in self._stints:
            self._fail(attempt, Code.WORKER_LOST)

    # ---- the end of an attempt here

    def _fail(self, attempt: Attempt, code: Code) -> None:
        self._free(attempt, passed=False)
        self.bus.say(attempt.gateway.failed, attempt, code, True)

    def cancel(self, attempt: Attempt) -> None:
        """See Worker."""
        self.admission.cancel(*attempt.key)
        self._free(attempt, passed=False)

    def _free(self, attempt: Attempt, *, passed: bool) -> None:
        stint = self._stints.pop(attempt.key, None)
        if stint is not None:
            stint.end(self.clock.now, passed=passed)
        self._waiting.pop(attempt.key, None)
        if self.admission.left(*attempt.key):
            self.announce()

    def halt(self) -> None:
        """See Worker. Prompts under way begin anew if it goes on."""
        self._life += 1
        self._line.extendleft(reversed(self._computing.values()))
        self._computing.clear()
        if not self.up:
            self._line.clear()
            self._stints.clear()
            self._waiting.clear()
            self.bus.deafen(self.scenario.name, self.group, self.learn)

    def resume(self) -> None:
        """See Worker."""
        for attempt, asking in list(self._waiting.values()):
            self.clock.after(0.0, self._ask_again, attempt, asking)
        self._compute()
