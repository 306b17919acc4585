"""A made-up fleet in plausible motion, for looking at the dashboard and for trying it: pure in its own clock."""

import math
import time
from dataclasses import dataclass, field

from services.monitor.dashboard.figures import Advice, Figures
from shared.config import ScenarioSettings
from shared.messages import (
    Group,
    GroupPhase,
    GroupTraffic,
    Happening,
    Health,
    InstanceRecord,
    Link,
    Links,
    Member,
    Revision,
    Role,
    ScenarioMap,
    State,
    Status,
    Traffic,
    Work,
)
from shared.report import Report, report

EPOCH = (1, 7)
GIB = 1 << 30
WAVES = ((0.9, 211.0, 0.4), (0.5, 67.0, 1.1), (0.35, 29.0, 2.3), (0.3, 13.7, 0.2), (0.3, 7.9, 4.0))
"""Share, seconds, phase: together they look like traffic."""
SLOTS = {Role.PREFILL: 8, Role.DECODE: 32}


@dataclass
class Kind:
    """One scenario's traffic and how its workers do."""

    name: str
    model: str
    rate: float  # requests per second, on average
    swing: float
    prompt: int  # tokens
    answer: int
    ttft: tuple[int, ...]  # of 1000 requests, by bucket
    tpot: tuple[int, ...]
    advice: Advice
    groups: list[Group]
    settings: ScenarioSettings
    revisions: list[Revision] = field(default_factory=lambda: [Revision(0)])
    waiting: int = 0

    def arrived(self, at: float) -> float:
        """Count since the beginning: the integral of a rate that wanders."""
        waves = sum(part * span / math.tau * (1 - math.cos(at / span * math.tau + at0)) for part, span, at0 in WAVES)
        return self.rate * at + self.swing * waves

    def pace(self, at: float) -> float:
        return self.rate + self.swing * sum(part * math.sin(at / span * math.tau + at0) for part, span, at0 in WAVES)


def group(name: str, prefills: int, decodes: int, **more: object) -> Group:
    short = name if name != "main" else "p"
    return Group(
        name,
        [Member(f"prefill-{short}{number}", EPOCH) for number in range(1, prefills + 1)],
        [Member(f"decode-{short}{number}", EPOCH) for number in range(1, decodes + 1)],
        prefills=prefills,
        decodes=decodes,
        **more,  # type: ignore[arg-type]
    )


@dataclass
class Scene:
    """What a monitor would know at `clock()`. `skip` lets time pass at once."""

    kinds: list[Kind]
    others: list[InstanceRecord]
    told: list[Happening]
    states: dict[str, tuple[State, Health, str]] = field(default_factory=dict)
    outside: list[InstanceRecord] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    skip: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def clock(self) -> float:
        return time.monotonic() + self.skip

    @property
    def at(self) -> float:
        return 10_000 + self.clock() - self.began

    def happenings(self) -> list[Happening]:
        return self.told

    def report(self) -> Report:
        records = [*self.others, *self.outside]
        for kind in self.kinds:
            for one in kind.groups:
                for place, (role, member) in enumerate(_members(one)):
                    state, health, reason = self.states.get(member.instance, (State.READY, Health.OK, ""))
                    used = min(SLOTS[role], self._load(kind, role, place)) if one.phase is GroupPhase.OPEN else 0
                    records.append(
                        InstanceRecord(
                            member.instance, role, state, EPOCH, kind.name, one.name, 4000 + place, f"node-{place % 4}",
                            SLOTS[role], used, reason=reason, health=health, revision=one.revision,
                        )
                    )  # fmt: skip
        maps = [
            ScenarioMap(kind.name, 41, EPOCH, kind.groups, kind.revisions, max(one.number for one in kind.revisions))
            for kind in self.kinds
        ]
        return report(records, {one.id for one in records if one.state is not State.FAILED}, maps)

    def _load(self, kind: Kind, role: Role, place: int) -> int:
        share = 0.5 * kind.pace(self.at) / kind.rate + 0.08 * math.sin(self.at / 9 * math.tau + 2 * place)
        return round(SLOTS[role] * min(1.0, share + 0.07 * (place % 3)))

    def figures(self) -> Figures:
        statuses: dict[str, Status] = {}
        links: dict[str, Links] = {}
        for kind in self.kinds:
            for one in kind.groups:
                statuses.update((status.instance, status) for status in self._statuses(kind, one))
                links.update((said.instance, said) for said in self._links(kind, one))
        return Figures(
            statuses,
            links,
            [self._traffic(kind, gateway) for kind in self.kinds for gateway in ("gateway-1", "gateway-2")],
            {kind.name: kind.settings for kind in self.kinds},
            {kind.name: kind.advice for kind in self.kinds},
        )

    def _statuses(self, kind: Kind, one: Group) -> list[Status]:
        done = kind.arrived(self.at)
        made = []
        for place, (role, member) in enumerate(_members(one)):
            tokens = kind.prompt if role is Role.PREFILL else kind.answer
            share = done / max(1, len(one.prefill if role is Role.PREFILL else one.decode) * len(kind.groups))
            work = Work(
                passed=int(share),
                tokens=int(share * tokens),
                busy_us=int(self.at * 1e6 * 0.8),
                wait_us=int(self.at * 1e6 * (0.4 + 0.5 * (place % 3))),
            )
            free = int((0.35 + 0.1 * (place % 4)) * 24 * GIB)
            if self.at < 10_001:
                free = 24 * GIB
            made.append(
                Status(member.instance, EPOCH, role, State.READY, kind.name, one.name, kv_free_bytes=free, work=work)
            )
        return made

    def _links(self, kind: Kind, one: Group) -> list[Links]:
        moved = kind.arrived(self.at) * kind.prompt * 96_000 / max(1, len(one.prefill) * len(kind.groups))
        said = []
        for place, prefill in enumerate(one.prefill):
            row = []
            weights = [1 + (place * 3 + number * 5) % 7 for number in range(len(one.decode))]
            for weight, decode in zip(weights, one.decode, strict=True):
                share = (
                    weight / sum(weights) if one.phase is GroupPhase.OPEN and decode.joined and prefill.joined else 0
                )
                problem = self.problems.get(decode.instance, "")
                pushes = int(kind.arrived(self.at) * share)
                verified = decode.joined and prefill.joined and not problem
                row.append(Link(decode.instance, EPOCH, verified, problem, pushes, int(moved * share), pushes * 9_000))
            said.append(Links(prefill.instance, EPOCH, row))
        return said

    def _traffic(self, kind: Kind, gateway: str) -> Traffic:
        arrived = kind.arrived(self.at) / 2
        groups = [
            GroupTraffic(
                one.name,
                finished=int(arrived / len(kind.groups)),
                failed=int(arrived * 0.0006),
                ttft=_spread(arrived / len(kind.groups), kind.ttft, self._late(kind)),
                tpot=_spread(arrived / len(kind.groups), kind.tpot, 0.0),
                tokens=int(arrived * kind.answer / len(kind.groups)),
            )
            for one in kind.groups
        ]
        wait = max(0, round(kind.waiting * (kind.pace(self.at) / kind.rate - 0.95) * 4))
        return Traffic(
            gateway, EPOCH, kind.name, int(self.at * 2), int(arrived), int(arrived * 0.0004),
            int(arrived * kind.prompt), wait, round(kind.pace(self.at) * 3), groups,
        )  # fmt: skip

    def _late(self, kind: Kind) -> float:
        """Count what comes late because more arrives than usual; it only grows."""
        spell = 211 / math.tau
        return 0.0006 * kind.swing * (self.at + spell * math.sin(self.at / spell))


def _members(one: Group) -> list[tuple[Role, Member]]:
    return [*((Role.PREFILL, member) for member in one.prefill), *((Role.DECODE, member) for member in one.decode)]


def _spread(count: float, shares: tuple[int, ...], late: float) -> list[int]:
    return [int(count * share / 1000 + (late * share if at >= 5 else 0)) for at, share in enumerate(shares)]


def other(name: str, role: Role, state: State = State.READY, **more: object) -> InstanceRecord:
    return InstanceRecord(name, role, state, EPOCH, **{"pid": 311, "host": "node-0", **more})  # type: ignore[arg-type]


def _chat() -> Kind:
    advice = Advice(
        "auto", 4, 7, "decode", 31.4, 22.9, 1.74, 0.62, 9.8, 2,
        "blue is tried, since 18 of 30 s: 61 requests, no more errors or late answers than elsewhere",
        (
            "main: 3:4 gives 18.9, 2:5 gives 21.6 (+14%), promised for 12 of 20 s",
            "62% of the scarcer role is in use, the aim is 70%: 2 groups stay",
        ),
    )  # fmt: skip
    groups = [group("main", 3, 4), group("blue", 2, 2, revision=3, canary=10)]
    return Kind(
        "chat", "gemma-3-270m", 18.6, 4.1, 640, 210,
        (310, 340, 240, 70, 28, 7, 3, 2, 0), (5, 80, 560, 290, 61, 3, 1, 0, 0),
        advice, groups, ScenarioSettings("gemma-3-270m", ttft_slo_ms=2000, tpot_slo_ms=200, engine="torch"),
        [Revision(0), Revision(2, "gemma-3-270m-it"), Revision(3, "gemma-3-1b-it")], 2,
    )  # fmt: skip


def _code() -> Kind:
    advice = Advice(
        "auto", 3, 2, "prefill", 6.1, 11.8, 1.02, 2.4, 3.9, 1, "",
        ("code-a: 2:2 gives 4.06, 3:2 gives 6.1 (+50%), promised for 20 s: prefill-code-a3 joins",),
    )  # fmt: skip
    one = group("code-a", 2, 2, strategy="tp4")
    joining = Member("prefill-code-a3", EPOCH, joined=False)
    one = Group(
        one.name, [*one.prefill, joining], one.decode, prefills=3, decodes=2, strategy="tp4", phase=GroupPhase.OPEN
    )
    two = Group(
        "code-b",
        [Member(f"prefill-code-b{at}", EPOCH, joined=False) for at in (1, 2)],
        [Member("decode-code-b1", EPOCH, joined=False)],
        phase=GroupPhase.CONNECT,
        prefills=2,
        decodes=2,
        strategy="tp8",
    )
    return Kind(
        "code", "qwen3-8b-coder", 5.7, 1.9, 3900, 48, (60, 160, 260, 240, 190, 45, 25, 15, 5),
        (40, 300, 420, 180, 52, 6, 2, 0, 0), advice, [one, two],
        ScenarioSettings("qwen3-8b-coder", ttft_slo_ms=3000, tpot_slo_ms=80, engine="vllm"), waiting=14,
    )  # fmt: skip


def realistic() -> Scene:
    """Two scenarios: one with a canary, one that grows a group; a degraded decode, a drain, a loss."""
    now = int(time.time() * 1000)
    told = [
        Happening(now - 1000 * before, scenario, kind, text)
        for before, scenario, kind, text in (
            (1620, "chat", "scale", "1 -> 2 groups: the time table says 2 (Europe/Paris)"),
            (1604, "chat", "phase", "group blue, open: it is open: requests come"),
            (731, "code", "lost", "decode-code-a9 was taken for lost: its lease in Redis has ended"),
            (730, "code", "assigned", "standby-5 is to become decode of code-a: its lease in Redis has ended"),
            (727, "code", "substituted", "decode of code-a is filled: accepted 0.1 s, ready 2.1 s, joined 0.4 s"),
            (402, "chat", "upgrade", "revision 3 (gemma-3-1b-it) begins with blue, with 10 % of the requests"),
            (318, "chat", "drain", "decode-p9 finishes what it holds and leaves: its group has more than it needs"),
            (190, "code", "ratio", "code-a: a prefill can do 2.03/s, a decode 5.9/s; 3:2 gives 6.1 (+50%)"),
            (64, "code", "scale", "1 -> 2 groups: 91% of the scarcer role is in use for 15 s, the aim is 70%"),
            (21, "code", "phase", "group code-b, connect: every prefill pushes a buffer to every decode"),
        )
    ]  # fmt: skip
    others = [
        other("gateway-1", Role.GATEWAY),
        other("gateway-2", Role.GATEWAY),
        other("monitor-1", Role.MONITOR),
        other("monitor-2", Role.MONITOR),
        other("standby-1", Role.STANDBY),
        other("standby-2", Role.STANDBY),
        other("standby-3", Role.STANDBY, State.STARTING),
        other("decode-code-a9", Role.DECODE, State.FAILED, scenario="code", group="code-a", reason="holds no lease"),
    ]
    outside = [other("decode-p9", Role.DECODE, State.DRAINING, scenario="chat", group="main", slots=32, load=3)]
    states = {
        "decode-p4": (State.READY, Health.DEGRADED, "3 correctable errors in a minute"),
        "prefill-code-a3": (State.STARTING, Health.OK, ""),
        "decode-code-b1": (State.STARTING, Health.OK, ""),
    }
    return Scene([_chat(), _code()], others, told, states, outside)


def large(groups: int = 20, prefills: int = 4, decodes: int = 6) -> Scene:
    """Many groups in two scenarios."""
    kinds = [_chat(), _code()]
    for number, kind in enumerate(kinds):
        mine = range(number, groups, 2)
        kind.groups = [group(f"{kind.name}-{at:02d}", prefills, decodes) for at in mine]
    others = [other(f"gateway-{at}", Role.GATEWAY) for at in range(8)] + [other("monitor-1", Role.MONITOR)]
    others += [other(f"standby-{at}", Role.STANDBY) for at in range(12)]
    told = [Happening(1_700_000_000_000 + at * 1000, "chat", "joined", f"number {at}") for at in range(300)]
    return Scene(kinds, others, told)
