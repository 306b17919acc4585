"""Prefills to decodes of one group: n_p*b_p/T_p ~= n_d*b_d/T_d, P/D-Serve equation (1), one step at a time.

A step takes a member from one role to the other (a sixteenth of a large group), and is taken when the ratio that it
leads to promises a throughput, min(n_p*c_p, n_d*c_d), that is higher by `gain` for `hold_s`. Half of `gain` is enough
if it is promised for four windows, or four times as long.

Two things keep chance from moving members to and fro. For a quick step, the role that gives a member is believed to do
less than was measured by 1/sqrt(requests), which is about what chance makes of so many. And what a step changed is
changed back only for twice the gain, for a while; each turn doubles both, up to a bound.
"""

from dataclasses import dataclass
from math import ceil, floor, inf, sqrt
from typing import Final, NamedTuple

from shared.messages import Role
from shared.policy.steering.figures import GroupFigures
from shared.policy.steering.rules import RatioRules
from shared.policy.steering.witness import Witness

PASSED: Final = 16
"""Requests that must have passed both roles in the window, before anything is concluded."""
PATIENT: Final = 4.0
"""Times `hold_s`, or `window_s` if that is longer, for half of `gain`."""
BACK: Final = 10.0
"""Times `rest_s`, or `window_s` if that is longer, for which a step is not taken back for less than twice `gain`."""
MOST_TURNS: Final = 2
"""After which nothing is doubled any more."""
STEPS: Final = 16
"""A group of twice as many members, or more, takes steps of that part of it."""
LARGE: Final = 4
"""Members from which a group keeps two of each role."""


class Ratio(NamedTuple):
    """Members of a group."""

    prefill: int
    decode: int

    def __str__(self) -> str:
        return f"{self.prefill}:{self.decode}"

    def more(self, role: Role, members: int = 1) -> "Ratio":
        """Return it with so many more of that role, and as many fewer of the other."""
        step = members if role is Role.PREFILL else -members
        return Ratio(self.prefill + step, self.decode - step)

    def of(self, role: Role) -> int:
        """Count the members of a role."""
        return self.prefill if role is Role.PREFILL else self.decode


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ratio should be, and why. No role: it stays."""

    text: str
    more: Role | None = None  # of which the group is to have more
    due: bool = False  # now: rest and hold are over
    to: Ratio | None = None  # after the step


class Can(NamedTuple):
    """Requests/s that one member of each role can do."""

    prefill: float
    decode: float

    def at(self, ratio: Ratio) -> float:
        """Requests/s of the whole group."""
        return min(ratio.prefill * self.prefill, ratio.decode * self.decode)

    def doubting(self, role: Role, requests: int) -> "Can":
        """Return it with a role lowered by what chance makes of so many requests."""
        sure = 1.0 - 1.0 / sqrt(max(1, requests))
        return Can(self.prefill * sure, self.decode) if role is Role.PREFILL else Can(self.prefill, self.decode * sure)

    def best(self, ratio: Ratio, least: Ratio) -> Ratio:
        """Return the best ratio of as many members, each role at its least or above; in doubt the present one."""
        size = sum(ratio)
        low, high = least.prefill, size - least.decode
        if low > high or self.prefill + self.decode <= 0.0:
            return ratio
        even = size * self.decode / (self.prefill + self.decode)  # prefills with which both roles can do alike
        near = (min(max(one, low), high) for one in (floor(even), ceil(even)))
        return max((ratio, *(Ratio(one, size - one) for one in near)), key=self.at)

    def gain(self, ratio: Ratio, to: Ratio) -> float:
        """Share by which one ratio does more than another."""
        present = self.at(ratio)
        return self.at(to) / present - 1.0 if present > 0.0 else 0.0


def least_of(ratio: Ratio, elsewhere: Ratio, least: int) -> Ratio:
    """Return how many of each role a group keeps: `least` in the scenario if it is large enough, always one."""
    if sum(ratio) < LARGE:
        return Ratio(1, 1)
    return Ratio(max(1, least - elsewhere.prefill), max(1, least - elsewhere.decode))


class RatioControl:
    """Of one group: remembers since when a step is promised, and what the last one was."""

    def __init__(self, rules: RatioRules) -> None:
        self._rules = rules
        self._witness = Witness(rules.window_s)
        self._promised: Role | None = None  # of which one more is promised to be better
        self._since = 0.0  # by half the gain
        self._surely: float | None = None  # by all of it, and not by chance; None: it is not
        self._rest_until = -inf
        self._last: tuple[Role, float] | None = None  # of which there is one more, since when
        self._turns = 0  # one after another

    def stepped(self, role: Role | None, now: float) -> None:
        """Note that the group has been changed: by a step, or by somebody else."""
        self._promised = None
        self._witness.forget()
        self._rest_until = now + self._rules.rest_s
        if role is None:
            self._last, self._turns = None, 0
            return
        if self._back(role, now):
            self._turns = min(self._turns + 1, MOST_TURNS)
        elif self._last is not None and role is not self._last[0]:
            self._turns = 0
        self._last = (role, now)

    def unsettled(self) -> None:
        """Note that members are on their way: what is promised meanwhile does not count."""
        self._promised = None

    def decide(self, figures: GroupFigures, ratio: Ratio, least: Ratio, now: float) -> Verdict:
        """Judge the group as it is planned; call it at each tick while it is settled."""
        self._witness.see(figures.e2e, figures.share, now)
        if not figures.known or figures.passed < PASSED:
            self._promised = None
            return Verdict(f"{ratio} stays: {figures.passed} requests in {figures.span_s:.0f} s are too few to tell")
        can = Can(figures.c_p, figures.c_d)
        best = can.best(ratio, least)
        shown = best if best != ratio else max((ratio.more(one) for one in (Role.PREFILL, Role.DECODE)), key=can.at)
        text = (
            f"a prefill can do {can.prefill:.3g}/s, a decode {can.decode:.3g}/s; "
            f"{ratio} gives {can.at(ratio):.3g}, {shown} gives {can.at(shown):.3g}"
        )
        reason = self._against(figures, can, ratio, best)
        if reason:
            self._promised = None
            return Verdict(f"{text}: stays{reason}")
        return self._promise(figures, can, ratio, best, Said(text, least, now))

    def _against(self, figures: GroupFigures, can: Can, ratio: Ratio, best: Ratio) -> str:
        """Say what speaks against any step; empty: nothing, or nothing is promised."""
        free = can.best(ratio, Ratio(1, 1))
        if max(can.gain(ratio, free), can.gain(ratio, best)) < self._rules.gain / 2:
            return ""
        if best == ratio:
            role = Role.PREFILL if free.prefill < ratio.prefill else Role.DECODE
            return f", because {ratio.of(role)} {role} is the least"
        if figures.use < self._rules.busy:
            return f", because only {figures.use:.0%} of the {figures.scarcer}s is in use"
        if not figures.steady:
            return ", until as many requests come out of the decodes as go in"
        return ""

    def _promise(self, figures: GroupFigures, can: Can, ratio: Ratio, best: Ratio, said: "Said") -> Verdict:
        role, giving = _roles(ratio, best)
        gain, now, text = can.gain(ratio, best), said.now, said.text
        wanted = self._rules.gain * ((2 << self._turns) if self._back(role, now) else 1)
        if gain < wanted / 2 or gain <= 0.0:
            self._promised = None
            return Verdict(f"{text}: stays")
        if self._promised is not role:
            self._promised, self._since, self._surely = role, now, None
        sure = can.doubting(giving, figures.passed)
        if sure.at(sure.best(ratio, said.least)) / can.at(ratio) - 1.0 < wanted:
            self._surely = None
        elif self._surely is None:
            self._surely = now
        hold_s, since = self._rules.hold_s, self._surely
        if since is None:
            hold_s, since = PATIENT * max(hold_s, self._rules.window_s), self._since
        text = f"{text} ({gain:+.0%})"
        if self._witness.says() not in (None, role):
            hold_s, text = 2 * hold_s, f"{text}, though T_p/E2E says otherwise"
        held, wait = now - since, self._rest_until - now
        if held < hold_s:
            return Verdict(f"{text}, promised for {held:.0f} of {hold_s:.0f} s", role)
        if wait > 0.0:
            return Verdict(f"{text}, {wait:.0f} s of rest are left since the last change", role)
        members = min(max(1, sum(ratio) // STEPS), abs(best.prefill - ratio.prefill))
        what = f"a {giving} becomes a {role}" if members == 1 else f"{members} {giving}s become {role}s"
        return Verdict(f"{text}, promised for {held:.0f} s: {what}", role, due=True, to=ratio.more(role, members))

    def _back(self, role: Role, now: float) -> bool:
        """Whether a step would take back what was changed not long ago."""
        if self._last is None or role is self._last[0]:
            return False
        return now < self._last[1] + BACK * max(self._rules.rest_s, self._rules.window_s) * (1 << self._turns)


class Said(NamedTuple):
    """What a verdict begins with, and when."""

    text: str
    least: Ratio
    now: float


def _roles(ratio: Ratio, best: Ratio) -> tuple[Role, Role]:
    """Name the role that gets members, and the one that gives them."""
    more = Role.PREFILL if best.prefill > ratio.prefill else Role.DECODE
    return more, Role.DECODE if more is Role.PREFILL else Role.PREFILL
