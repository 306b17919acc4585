"""The second witness of a ratio, P/D-Serve 1.6: how E2E and the share of T_p in it move, as gateways see them.

E2E up and T_p/E2E up: more prefill. E2E up and T_p/E2E down: more decode. The paper says "change dramatically"; ours
are the thresholds below, against a slow mean. It decides nothing alone: it can only make the equation wait longer.
"""

from typing import Final

from shared.messages import Role

SLOW: Final = 10.0
"""Windows over which the mean is taken that a change is measured against."""
LONGER: Final = 1.1
"""Times the mean: E2E is up."""
SHIFTED: Final = 1.05
"""Times the mean: the share is up; or below it by as much."""


class Witness:
    """Of one group. Forget it with every step: what was usual before says nothing afterwards."""

    def __init__(self, window_s: float) -> None:
        self._slow_s = SLOW * window_s
        self._at: float | None = None
        self._usual = (0.0, 0.0)  # E2E, share
        self._present = (0.0, 0.0)

    def see(self, e2e: float, share: float, now: float) -> None:
        """Take in the means of the window; zero: nothing was finished."""
        if e2e <= 0.0 or share <= 0.0:
            return
        self._present = (e2e, share)
        if self._at is None:
            self._usual = self._present
        else:
            part = min(1.0, max(0.0, now - self._at) / self._slow_s)
            old_e2e, old_share = self._usual
            self._usual = (old_e2e + part * (e2e - old_e2e), old_share + part * (share - old_share))
        self._at = now

    def says(self) -> Role | None:
        """Name the role of which more is needed; None: it has nothing to say."""
        if self._at is None or self._present[0] <= self._usual[0] * LONGER:
            return None
        if self._present[1] >= self._usual[1] * SHIFTED:
            return Role.PREFILL
        return Role.DECODE if self._present[1] * SHIFTED <= self._usual[1] else None

    def forget(self) -> None:
        """Begin anew."""
        self._at = None
