"""What became of one group's requests, as a gateway counts it and says it on the wire. The simulator counts alike."""

from dataclasses import dataclass, field

from shared.messages import BUCKETS, GroupTraffic


def _buckets() -> list[int]:
    return [0] * BUCKETS


@dataclass(slots=True)
class Served:
    """Counts and microseconds since the counter began; whoever wants a rate takes the difference of two."""

    finished: int = 0
    failed: int = 0
    ttft: list[int] = field(default_factory=_buckets)
    tpot: list[int] = field(default_factory=_buckets)
    ttft_us: int = 0
    e2e_us: int = 0
    prefill_us: int = 0
    tokens: int = 0

    def told(self, group: str) -> GroupTraffic:
        """Say it on the wire."""
        return GroupTraffic(
            group,
            self.finished,
            self.failed,
            list(self.ttft),
            list(self.tpot),
            self.ttft_us,
            self.e2e_us,
            self.prefill_us,
            self.tokens,
        )
