"""May this instance act? Pure: what the lease said and which pulses came go in, the verdict comes out.

A lease that lapses does not alone mean "stop": when Redis is down, it lapses for everyone, and traffic must go on. The
leading monitor sends a Pulse only while Redis confirms its own lease. So: lapsed, and a Pulse heard so late that Redis
must have confirmed it since, means that we alone are cut off; without one all are, and nobody was replaced.
"""

from shared.messages import Epoch

NEVER = float("-inf")


class Tenure:
    """One instance's standing. Times are seconds on one monotonic clock."""

    def __init__(self, ttl_s: float, *, margin_s: float = 0.0) -> None:
        self.ttl_s = ttl_s
        self.epoch: Epoch = (0, 0)
        self._margin_s = margin_s
        # The monitor's last confirmation may be younger than ours by one renewal, and it pulses for a ttl after it.
        self._echo_s = ttl_s / 3 + margin_s
        self._until = NEVER
        self._awake_at = NEVER
        self._pulse_at = NEVER
        self._pulse_epoch: Epoch = (0, 0)
        self._woke_at = NEVER  # from a stop through which the lease may have gone; NEVER: from none

    def awake(self, now: float) -> None:
        """Note that we run; called often. A gap as long as the ttl means that this process was stopped meanwhile."""
        if self._awake_at != NEVER and now - self._awake_at > self.ttl_s:
            self._woke_at = now
        self._awake_at = now

    def pulse(self, epoch: Epoch, now: float) -> None:
        """Note a monitor's pulse; one of a leader that was replaced since is ignored."""
        if epoch >= self._pulse_epoch:
            self._pulse_epoch = epoch
            self._pulse_at = now

    def cut_off(self, now: float) -> bool:
        """Whether to stop acting: our lease has lapsed while the leading monitor's goes on being confirmed."""
        return self.epoch != (0, 0) and self._outlived() and now - self._pulse_at <= self.ttl_s

    def _outlived(self) -> bool:
        """Whether a pulse came so long after our lease had lapsed that Redis has answered the monitor, and not us."""
        return self._pulse_at >= self._until + self._echo_s

    def confirmed(self, epoch: Epoch, sent_at: float, *, created: bool) -> bool:
        """Note a confirmation, right after `awake`. True: our tenure was broken, drop what was begun before it.

        A lease that Redis had to create anew was missing for a while. That breaks the tenure if this process slept
        through it, or if the monitor was heard after it had lapsed; not if Redis forgot it or was away itself. The
        answer to a call from before a stop says nothing about what happened since.
        """
        again = created and self.epoch != (0, 0)
        forgotten = epoch[0] != self.epoch[0]
        noticed = self._outlived() and sent_at >= self._until
        broken = again and (self._woke_at != NEVER or (noticed and not forgotten))
        if sent_at >= self._woke_at:
            self._woke_at = NEVER
        self.epoch = epoch
        self._until = sent_at + self.ttl_s - self._margin_s
        return broken
