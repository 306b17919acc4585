"""A worker process of the relay model: the real admission, and of its engine only which token comes next."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shared.errors import Code
from shared.messages import Epoch, Role, State, Status
from shared.policy.admission import Admitted, DecodeAdmission, PrefillAdmission
from tests.model.freezing import freeze
from tests.model.gateway import FOREVER, NAME, NOW


class Glance(NamedTuple):
    """One process from outside."""

    name: str
    epoch: Epoch
    is_decode: bool
    jobs: tuple[tuple[int, int, bool], ...]  # attempt, index of its next token, whether only its KV must leave
    used: int
    free: int


@dataclass
class Process:
    """One life of one instance. It holds what its admission says, one job for each attempt."""

    name: str
    epoch: Epoch
    prefill: PrefillAdmission | None = None
    decode: DecodeAdmission | None = None
    jobs: dict[int, int] = field(default_factory=dict)  # attempt -> index of its next token
    computed: set[int] = field(default_factory=set)  # at prefill: the prompt has run, the KV cache must leave

    @classmethod
    def start(cls, name: str, epoch: Epoch) -> "Process":
        """A fresh process; names that begin with d are decodes."""
        if name[0] == "d":
            return cls(name, epoch, decode=DecodeAdmission(8, 8, 1, 1))
        return cls(name, epoch, prefill=PrefillAdmission(1, 8))

    def value(self) -> Hashable:
        """All on which its future depends."""
        return freeze(self)

    @property
    def used(self) -> int:
        """Attempts that hold a slot or room here."""
        return (self.prefill.used if self.prefill else 0) + (self.decode.used if self.decode else 0)

    @property
    def free(self) -> int:
        """Slots that it would report."""
        return (self.prefill.free if self.prefill else 0) + (self.decode.free if self.decode else 0)

    def status(self, state: State = State.READY) -> Status:
        """Say how it is."""
        role = Role.PREFILL if self.prefill else Role.DECODE
        return Status(self.name, self.epoch, role, state, "chat", "main", slots=1, free=self.free, number=1)

    def glance(self) -> "Glance":
        """All that the model looks at."""
        jobs = tuple((attempt, index, attempt in self.computed) for attempt, index in sorted(self.jobs.items()))
        return Glance(self.name, self.epoch, self.decode is not None, jobs, self.used, self.free)

    def offered(self, attempt: int, base: int) -> tuple[Any, ...]:
        """Answer an offer."""
        assert self.prefill is not None
        verdict = self.prefill.offer(NAME, attempt, kv_bytes=1, deadline=FOREVER, now=NOW)
        if not isinstance(verdict, Admitted):
            return ("answer", self.name, self.epoch, attempt, verdict.code.value)
        for older in verdict.supersedes:
            self.drop(older)
        if not verdict.repeated:
            self.jobs[attempt] = base
        return ("answer", self.name, self.epoch, attempt, "")

    def cancelled(self, attempt: int) -> None:
        """Stop an attempt and older ones."""
        for _, held in (self.prefill or self.decode).cancel(NAME, attempt):  # type: ignore[union-attr]
            self.drop(held)

    def drop(self, attempt: int) -> None:
        """End an attempt here, in whatever state."""
        self.jobs.pop(attempt, None)
        self.computed.discard(attempt)
        if self.prefill:
            self.prefill.left(NAME, attempt)
        if self.decode:
            self.decode.ended(NAME, attempt)

    def step(self, attempt: int, tokens: int) -> tuple[Any, ...]:
        """Compute the next token of an attempt; the last one ends it."""
        index = self.jobs[attempt]
        self.jobs[attempt] = index + 1
        if self.prefill:
            self.computed.add(attempt)
        last = index + 1 == tokens
        if last:
            self.drop(attempt)
        return ("frame", self.name, self.epoch, attempt, index, "finished" if last else "")

    def receive(self, attempt: int, index: int) -> Code | None:
        """Take in a pushed KV cache, or say why not."""
        assert self.decode is not None
        verdict = self.decode.offer(
            NAME, attempt, blocks=1, kv_bytes=1, deadline=FOREVER, free_blocks=8 - len(self.jobs), now=NOW
        )
        if not isinstance(verdict, Admitted):
            return verdict.code
        if verdict.repeated:
            return None
        for older in verdict.supersedes:
            self.drop(older)
        self.decode.received(NAME, attempt)
        self.decode.inserted(NAME, attempt)
        self.jobs[attempt] = index
        return None
