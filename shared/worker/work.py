"""What a worker has done since it started, counted as Work defines it.

Pure: `now` comes in, monotonic seconds. Costs an addition here and there, and nothing per token.
"""

from shared.messages import Work

MICRO = 1_000_000


class Level:
    """How many there are of something, and what that adds up to over time."""

    __slots__ = ("_busy_s", "_since", "_sum_s", "count")

    def __init__(self) -> None:
        self.count = 0
        self._since = 0.0  # when the count changed last
        self._sum_s = 0.0  # the time of each, up to then
        self._busy_s = 0.0  # time with at least one

    def add(self, change: int, now: float) -> None:
        """Let so many come, or go."""
        self._sum_s, self._busy_s = self._until(now)
        self._since = now
        self.count += change

    def read(self, now: float) -> tuple[int, int]:
        """Return the time of all together, and the time with at least one, in microseconds."""
        sum_s, busy_s = self._until(now)
        return int(sum_s * MICRO), int(busy_s * MICRO)

    def _until(self, now: float) -> tuple[float, float]:
        if not self.count:
            return self._sum_s, self._busy_s
        passed_s = max(0.0, now - self._since)
        return self._sum_s + self.count * passed_s, self._busy_s + passed_s


class WorkMeter:
    """One worker's. `slots` and `waits` are levels: who enters leaves, once."""

    def __init__(self) -> None:
        self.slots = Level()  # prefill: prompts being computed; decode: sequences in the batch
        self.waits = Level()  # prefill: computed KV that no decode has yet
        self.passed = 0
        self.tokens = 0
        self.cached = 0
        self.refused = 0

    def read(self, now: float) -> Work:
        """Return what was done up to now; what is under way counts with the time that it has taken."""
        slot_us, busy_us = self.slots.read(now)
        return Work(
            passed=self.passed,
            slot_us=slot_us,
            busy_us=busy_us,
            wait_us=self.waits.read(now)[0],
            tokens=self.tokens,
            cached=self.cached,
            refused=self.refused,
        )


class Stint:
    """One prompt's part in a meter, from its slot to its end. Each step counts once, however often it is said."""

    __slots__ = ("_level", "_meter", "_over")

    def __init__(self, meter: WorkMeter) -> None:
        self._meter = meter
        self._level: Level | None = None
        self._over = False

    def begin(self, now: float) -> None:
        """Let it be computed from now on."""
        if self._level is None and not self._over:
            self._move(self._meter.slots, now)

    def computed(self, now: float) -> None:
        """Let it wait for a decode from now on: its KV is complete."""
        if self._level is self._meter.slots:
            self._move(self._meter.waits, now)

    def end(self, now: float, *, passed: bool) -> None:
        """Let it be over, well or not."""
        if not self._over:
            self._over = True
            self._move(None, now)
            self._meter.passed += passed

    def _move(self, level: Level | None, now: float) -> None:
        if self._level is not None:
            self._level.add(-1, now)
        if level is not None:
            level.add(1, now)
        self._level = level
