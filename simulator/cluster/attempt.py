"""One attempt at one request on its way from worker to worker: what a PrefillRequest and a KvReady say."""

from typing import TYPE_CHECKING

from msgspec import Struct

from simulator.workload.arrival import Arrival

if TYPE_CHECKING:
    from simulator.cluster.decode import Decode
    from simulator.cluster.gateway import Gateway
    from simulator.cluster.prefill import Prefill
    from simulator.cluster.sequences import Prompt, Sequence


class Attempt(Struct, eq=False):
    """What a worker is asked for."""

    key: tuple[str, int]  # (request_id, attempt)
    arrival: Arrival
    before: int  # tokens that earlier attempts brought
    deadline: float
    expires: float
    gateway: "Gateway"
    cached: int = 0
    accepted: float = 0.0  # when a prefill took it on
    computed: float = 0.0  # when its first token was there
    refusals: int = 0  # of pushes of its buffer
    moved: float = 0.0  # when a decode had its KV
    over: bool = False  # cancelled, or lost with its worker
    prefill: "Prefill | None" = None
    decode: "Decode | None" = None
    prompt: "Prompt | None" = None  # that a decode computes
    sequence: "Sequence | None" = None  # in a batch

    @property
    def tokens(self) -> int:
        """Of the prompt to compute: the client's, and what was delivered."""
        return self.arrival.input_tokens + self.before

    @property
    def left(self) -> int:
        """Tokens still to be generated."""
        return self.arrival.output_tokens - self.before

    @property
    def delivered(self) -> int:
        """Count the tokens that its client has, those of earlier attempts included."""
        if not self.computed:
            return self.before
        if self.decode is None or self.sequence is None:
            return self.before + 1
        return self.before + 1 + self.decode.batch.generated(self.sequence)

    def forget(self) -> None:
        """Let go of what knows it, at its end: no garbage collector runs in a simulation."""
        self.sequence = self.prompt = None
