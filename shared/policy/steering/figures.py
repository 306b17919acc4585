"""What steering measures, in the names of P/D-Serve 1.2. Times are seconds, rates per second, shares 0..1."""

from dataclasses import dataclass

from shared.messages import Role


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """One group over the window. Zero where nothing was measured; `known` says whether both roles were."""

    group: str
    n_p: int = 0  # prefills that were heard
    n_d: int = 0
    t_p: float = 0.0  # T_p: a prompt's time in its slot
    t_d: float = 0.0  # T_d = xi + TPOT * G
    xi: float = 0.0  # from the computed KV until a decode has it
    tpot: float = 0.0  # per token of a stream, at the present batch
    tokens: float = 0.0  # G: tokens generated per request
    b_p: float = 0.0  # slots of one prefill
    b_d: float = 0.0  # sequences that one decode can have in its batch
    c_p: float = 0.0  # requests/s of one prefill, b_p / T_p at its full batch
    c_d: float = 0.0
    use_p: float = 0.0  # share of that in use
    use_d: float = 0.0
    rate: float = 0.0  # requests that pass
    passed: int = 0  # in the window
    steady: bool = False  # as many go in as come out
    span_s: float = 0.0  # of the window
    cached: float = 0.0  # share of prompt tokens found in the prefix cache
    refused: float = 0.0  # offers per second without room
    e2e: float = 0.0
    share: float = 0.0  # T_p / E2E, as gateways see it
    failed: float = 0.0  # share of attempts
    ttft_met: float = 1.0  # share of first tokens within the objective
    tpot_met: float = 1.0
    tokens_per_s: float = 0.0

    @property
    def known(self) -> bool:
        """Whether both capabilities are."""
        return self.c_p > 0.0 and self.c_d > 0.0

    @property
    def capable_p(self) -> float:
        """n_p*b_p/T_p: requests/s that the prefills can do."""
        return self.n_p * self.c_p

    @property
    def capable_d(self) -> float:
        """n_d*b_d/T_d."""
        return self.n_d * self.c_d

    @property
    def capable(self) -> float:
        """Requests/s that the group can do."""
        return min(self.capable_p, self.capable_d)

    @property
    def scarcer(self) -> Role:
        """The role that bounds it."""
        return Role.PREFILL if self.use_p >= self.use_d else Role.DECODE

    @property
    def use(self) -> float:
        """Use of the scarcer role."""
        return max(self.use_p, self.use_d)


@dataclass(frozen=True, slots=True)
class ScenarioFigures:
    """The whole scenario over the window."""

    arriving: float = 0.0  # I_t
    refused: float = 0.0  # of them, at a gateway
    waiting: int = 0  # now, without a slot
    open: int = 0
    capable_p: float = 0.0
    capable_d: float = 0.0
    members: int = 0

    @property
    def phi(self) -> float:
        """Throughput per instance: min(I_t, n_p*b_p/T_p, n_d*b_d/T_d) / (n_p + n_d)."""
        if not self.members:
            return 0.0
        return min(self.arriving, self.capable_p, self.capable_d) / self.members
