"""Measures a scenario's groups over a sliding window, from what workers and gateways count: P/D-Serve 1.2.

Owns who was heard and in which life: whoever restarts, or takes another role, begins anew. Memory is bounded by the
number of workers and gateways. Where few requests pass, the window grows up to fourfold, until it has seen enough.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from shared.messages import Role, State, Status, Traffic
from shared.policy.plan import Plan
from shared.policy.steering.capability import PromptTime, StepTime
from shared.policy.steering.figures import GroupFigures, ScenarioFigures
from shared.policy.steering.traffic import TrafficSums
from shared.policy.steering.window import WINDOWS
from shared.policy.steering.workers import MICRO, Shape, Worker

ENOUGH: Final = 100
"""Requests that a window should have seen pass."""
UNSTEADY: Final = 0.25
"""Share of the requests that passed by which those in the decodes may have grown or shrunk meanwhile."""
SILENT_S: Final = 10.0
"""A worker that was not heard for so long is left out."""
FORGET_S: Final = 600.0
MOST_WORKERS: Final = 20_000


@dataclass(slots=True)
class _Done:
    """What the workers of one role did together: counts, and seconds of all. Those that left count up to then."""

    n: int = 0  # that are here
    passed: int = 0
    slot: float = 0.0
    busy: float = 0.0
    wait: float = 0.0
    tokens: int = 0
    cached: int = 0
    refused: int = 0
    alive: float = 0.0  # for which they were heard
    slots: float = 0.0  # weighed with it
    full: float = 0.0
    grown: int = 0  # slots in use
    begun: float = inf
    ended: float = -inf

    def add(self, worker: Worker, since: float, *, here: bool) -> None:
        """Take a worker in, if it was heard twice since then."""
        self.n += here
        span = worker.row.since(since)
        if span is None:
            return
        first, last, begun = span
        old, new, alive = first.work, last.work, worker.row.at - begun
        self.passed += new.passed - old.passed
        self.slot += (new.slot_us - old.slot_us) / MICRO
        self.busy += (new.busy_us - old.busy_us) / MICRO
        self.wait += (new.wait_us - old.wait_us) / MICRO
        self.tokens += new.tokens - old.tokens
        self.cached += new.cached - old.cached
        self.refused += new.refused - old.refused
        self.alive += alive
        self.slots += worker.slots * alive
        self.full += worker.full() * alive
        self.grown += (last.used if here else 0) - first.used
        self.begun, self.ended = min(self.begun, begun), max(self.ended, worker.row.at)


class Measures:
    """Takes statuses and traffic of one scenario; says what its groups do and what they could."""

    def __init__(self, scenario: str, window_s: float) -> None:
        self._scenario = scenario
        self._window_s = window_s
        self._workers: dict[str, Worker] = {}
        self._gone: deque[Worker] = deque(maxlen=MOST_WORKERS)  # whose work still counts for a while
        self._groups: dict[str, list[tuple[Worker, bool]]] | None = (
            None  # with whether each is here; None: to be listed
        )
        self._measured: dict[str, GroupFigures] = {}  # since the last message, at `_measured_at`
        self._measured_at = -inf
        self._forgot_at = -inf
        self._shapes: dict[tuple[str, int], Shape] = {}  # by strategy and revision
        self._strategies: dict[str, str] = {}
        self.traffic = TrafficSums(window_s)

    def know(self, plan: Plan) -> None:
        """Learn of which strategy each group is, and forget groups and revisions that are no more."""
        self._strategies = {group.name: group.strategy for group in plan.groups}
        revisions = {group.revision for group in plan.groups} | {plan.target}
        self._shapes = {kind: shape for kind, shape in self._shapes.items() if kind[1] in revisions}
        self.traffic.keep(set(self._strategies))

    def see(self, message: Status | Traffic, now: float) -> None:
        """Take a message in; those of other scenarios are ignored."""
        if message.scenario != self._scenario:
            return
        self._groups = None
        if isinstance(message, Traffic):
            self.traffic.see(message, now)
        else:
            self._see_status(message, now)

    def _see_status(self, status: Status, now: float) -> None:
        worker = self._workers.get(status.instance)
        if worker is not None and worker.late(status):
            return
        serves = status.role in (Role.PREFILL, Role.DECODE) and status.state in (State.READY, State.DRAINING)
        if worker is not None and not (serves and worker.same_life(status)):
            self._gone.append(self._workers.pop(status.instance))
            worker = None
        if not serves or status.work is None:
            return
        if worker is None:
            self._forget(now)
            if len(self._workers) >= MOST_WORKERS:
                return
            worker = self._workers[status.instance] = Worker(status, self._window_s)
        worker.see(status, status.work, now, self._shape(worker.group, worker.revision))

    def _shape(self, group: str, revision: int) -> Shape:
        kind = (self._strategies.get(group, ""), revision)
        return self._shapes.setdefault(kind, Shape(PromptTime(), StepTime()))

    def _forget(self, now: float) -> None:
        if now - self._forgot_at < SILENT_S:
            return
        self._forgot_at = now
        while self._gone and now - self._gone[0].row.at > WINDOWS * self._window_s:
            self._gone.popleft()
        for name in [name for name, one in self._workers.items() if now - one.row.at > FORGET_S]:
            del self._workers[name]

    # ---- what is measured

    def group(self, name: str, now: float) -> GroupFigures:
        """Measure one group."""
        if self._groups is None or now != self._measured_at:
            self._groups, self._measured, self._measured_at = self._list(now), {}, now
        known = self._measured.get(name)
        if known is None:
            known = self._measured[name] = self._measure(name, self._groups.get(name, []), now)
        return known

    def _list(self, now: float) -> dict[str, list[tuple[Worker, bool]]]:
        groups: dict[str, list[tuple[Worker, bool]]] = {}
        for one in self._workers.values():
            groups.setdefault(one.group, []).append((one, now - one.row.at <= SILENT_S))
        for one in self._gone:
            groups.setdefault(one.group, []).append((one, False))
        return groups

    def _measure(self, name: str, workers: list[tuple[Worker, bool]], now: float) -> GroupFigures:
        prefills = [(one, here) for one, here in workers if one.role is Role.PREFILL]
        decodes = [(one, here) for one, here in workers if one.role is Role.DECODE]
        shape = self._shape(name, next((one.revision for one, here in workers if here), 0))
        windows = 1
        while True:
            since = now - windows * self._window_s
            done = _sum(decodes, since)
            if done.passed >= ENOUGH or windows >= WINDOWS:
                return self._figures(name, _sum(prefills, since), done, since, shape)
            windows *= 2

    def _figures(self, name: str, p: _Done, d: _Done, since: float, shape: Shape) -> GroupFigures:
        passed, span_s = (p.passed + d.passed) / 2, max(p.ended, d.ended) - min(p.begun, d.begun)
        b_p, b_d, tpot = _ratio(p.slots, p.alive), _ratio(d.full, d.alive), _ratio(d.slot, d.tokens)
        work_p = p.busy / shape.prompt.gain(p.slot / p.busy, b_p) if p.busy > 0.0 else 0.0
        step = tpot * shape.step.grows(d.slot / d.busy, b_d) if d.busy > 0.0 else 0.0
        work_d = _ratio(d.tokens * step, b_d)
        xi, tokens, seen = _ratio(p.wait, p.passed), _ratio(d.tokens, passed), self.traffic.lately(name, since)
        return GroupFigures(
            group=name,
            n_p=p.n,
            n_d=d.n,
            t_p=_ratio(p.slot, p.passed),
            t_d=xi + tpot * tokens,
            xi=xi,
            tpot=tpot,
            tokens=tokens,
            b_p=b_p,
            b_d=b_d,
            c_p=_ratio(passed, work_p),
            c_d=_ratio(passed, work_d),
            use_p=_ratio(work_p, p.alive),
            use_d=_ratio(work_d, d.alive),
            rate=_ratio(passed, span_s),
            passed=min(p.passed, d.passed),
            steady=abs(d.grown) <= UNSTEADY * d.passed,
            span_s=max(0.0, span_s),
            cached=_ratio(p.cached, p.tokens + p.cached),
            refused=_ratio(p.refused + d.refused, span_s),
            e2e=_ratio(seen.e2e_us, seen.finished * MICRO),
            share=_ratio(seen.prefill_us, seen.e2e_us),
            failed=_ratio(seen.failed, seen.finished + seen.failed),
            ttft_met=1.0 - _ratio(seen.late, seen.firsts),
            tpot_met=1.0 - _ratio(seen.slow, seen.paced),
            tokens_per_s=_ratio(d.tokens, span_s),
        )

    def totals(self, groups: Iterable[GroupFigures], now: float) -> ScenarioFigures:
        """Measure the scenario: its traffic, and what these groups can do together."""
        arriving, refused = self.traffic.rates(now - self._window_s)
        waiting, opened = self.traffic.now(now)
        listed = list(groups)
        return ScenarioFigures(
            arriving=arriving,
            refused=refused,
            waiting=waiting,
            open=opened,
            capable_p=sum(one.capable_p for one in listed),
            capable_d=sum(one.capable_d for one in listed),
            members=sum(one.n_p + one.n_d for one in listed),
        )


def _sum(workers: list[tuple[Worker, bool]], since: float) -> _Done:
    done = _Done()
    for worker, here in workers:
        done.add(worker, since, here=here)
    return done


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0.0 else 0.0
