"""Two samples of every message: all fields set, and only those without a default. Their bytes lie in `golden/`.

Samples are never changed, only added: a new field makes a new sample `later`, so that what older versions sent is
still read.
"""

from typing import get_args

from shared.errors import Code
from shared.messages import (
    Accepted,
    AnyMessage,
    AssignRole,
    Cancel,
    Claim,
    Claimed,
    Claims,
    Constraint,
    Done,
    Drain,
    Endpoint,
    ExplainOrder,
    Failed,
    Finish,
    Finished,
    Frame,
    Group,
    GroupPhase,
    GroupTraffic,
    HandedOff,
    Health,
    InstanceRecord,
    KvGrant,
    KvReady,
    KvReadyEvent,
    Link,
    LinkCheck,
    Links,
    Logprobs,
    Member,
    PrefillRequest,
    Pulse,
    Rejected,
    Reload,
    Reloaded,
    Request,
    Revision,
    Role,
    Sampling,
    ScaleOrder,
    ScenarioMap,
    State,
    Status,
    Stopping,
    TokenLogprob,
    Told,
    Traffic,
    UpgradeOrder,
    Value,
    Work,
    pack_tokens,
)

EPOCH = (1_700_000_000, 42)
SAMPLING = Sampling(0.7, 0.9, 40, 0.05, 1.1, 0.2, 0.3, {5: -100.0, 7: 1.5}, 1234, 1, 3)
STOPPING = Stopping(64, 2, ["\n\n", "Ende"], [106], ignore_eos=True)
REQUEST = Request(
    "req-1",
    2,
    "gateway-1",
    17,
    pack_tokens([2, 105, 262_143]),
    2,
    SAMPLING,
    STOPPING,
    1_700_000_001_000,
    1_700_000_600_000,
)
SMALL = Request("r", 0, "g", 0, pack_tokens([1]), 1, Sampling(), Stopping(1), 0, 0)
CONSTRAINED = Sampling(constraint=Constraint("regex", "[a-z]+"))
BOUND = Request("r", 0, "g", 0, pack_tokens([1]), 1, CONSTRAINED, Stopping(1), 0, 0)

RESUMABLE = Request("r", 0, "g", 0, pack_tokens([1]), 1, Sampling(), Stopping(1), 0, 0, b"\x95\xa4chat", "acme")

SAMPLES: dict[str, list[Value]] = {
    "prefill.request": [
        PrefillRequest(REQUEST),
        PrefillRequest(SMALL),
        PrefillRequest(BOUND),
        PrefillRequest(RESUMABLE),
    ],
    "accepted": [Accepted("req-1", 2, "prefill-1", EPOCH)],
    "rejected": [
        Rejected("req-1", 2, "prefill-1", Code.CONTEXT_TOO_LONG, "too long", retryable=False),
        Rejected("req-1", 2, "prefill-1", Code.OVERLOADED, "no free slot"),
    ],
    "kv.ready": [
        KvReady(REQUEST, "prefill-1", EPOCH, "f1n6e2", 2, 65_536, "host-a", 1),
        KvReady(SMALL, "p", (0, 0), "f", 0, 1),
        KvReady(REQUEST, "prefill-1", EPOCH, "f1n6e2", 2, 65_536, "host-a", growing=True),
    ],
    "kv.event": [KvReadyEvent("req-1", 2, "prefill-1", "f1n6e2", 2, 65_536)],
    "kv.grant": [
        KvGrant(
            "req-1",
            2,
            "decode-1",
            EPOCH,
            bytes(range(16)),
            [Endpoint("shm", "baton-decode-1"), Endpoint("tcp", "127.0.0.1:7000")],
            1_700_000_002_000,
        )
    ],
    "handed_off": [HandedOff(17, "req-1", 2, "decode-1", EPOCH)],
    "cancel": [Cancel("req-1", 2)],
    "frame": [
        Frame(
            "decode-1",
            EPOCH,
            [17, 18],
            [2, 0],
            [5, 0],
            [1024, 9],
            ["grüß", ""],
            [
                Finished(17, 2, Finish.STOP, 6, 2, 1, "Ende"),
                Failed(18, 0, Code.ENGINE_FAILED, "the device is gone", retryable=True),
            ],
            [
                Logprobs(
                    0, TokenLogprob(1024, -0.25, "grüß", "grüß".encode()), [TokenLogprob(9, -2.5, "\ufffd", b"\xc3")]
                )
            ],
        ),
        Frame("decode-1", EPOCH),
    ],
    "finished": [
        Finished(17, 2, Finish.STOP, 6, 2, 1, "Ende"),
        Finished(17, 2, Finish.STOP, 6, 2, stop_match=106),
        Finished(17, 2, Finish.LENGTH, 6, 2),
    ],
    "failed": [Failed(18, 0, Code.WORKER_LOST, "gone", retryable=True)],
    "status": [
        Status("decode-1", EPOCH, Role.DECODE, State.READY, "chat", "g1", 8, 3, 99, True, 1 << 33, 7),
        Status("monitor-1", EPOCH, Role.MONITOR, State.STARTING),
        Status("monitor-1", EPOCH, Role.MONITOR, State.READY, version=2),
        Status(
            "prefill-1",
            EPOCH,
            Role.PREFILL,
            State.READY,
            health=Health.DEGRADED,
            revision=2,
            work=Work(9, 800_000, 700_000, 1500, 4096, 64, 3),
        ),
    ],
    "map": [
        ScenarioMap("chat", 3, EPOCH, [Group("g1", [Member("prefill-1", EPOCH)], [Member("decode-1", EPOCH)])]),
        ScenarioMap("chat", 0, (0, 0)),
        ScenarioMap(
            "chat",
            9,
            EPOCH,
            [Group("g2", [Member("prefill-2", EPOCH, joined=False)], [], GroupPhase.CONNECT, 1, 2, 1, "tp8", 10)],
            [Revision(0), Revision(1, "gemma-3-270m", {"dtype": "float32"})],
            1,
        ),
    ],
    "assign": [
        AssignRole(Role.DECODE, "chat", "g1"),
        AssignRole(Role.PREFILL, "chat", "g2", Revision(1, "/models/new", {"dtype": "float32"}), 5.0),
    ],
    "links": [
        Links(
            "prefill-1",
            EPOCH,
            [Link("decode-1", EPOCH, True, "", 7, 1 << 20, 900), Link("decode-2", EPOCH, problem="no")],
        ),
        Links("prefill-1", EPOCH),
    ],
    "link.check": [LinkCheck("prefill-1", EPOCH, 3, "f1n6e2", 65_536, "host-a")],
    "traffic": [
        Traffic(
            "gateway-1",
            EPOCH,
            "chat",
            4,
            100,
            2,
            51_200,
            1,
            7,
            [GroupTraffic("main", 90, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9], [9] * 9, 10, 2000, 700, 4000)],
        ),
        Traffic("gateway-1", EPOCH, "chat", 1, groups=[GroupTraffic("main")]),
    ],
    "order.scale": [ScaleOrder("chat", 2, 3, 1, "main", dry_run=True), ScaleOrder("chat", groups=2)],
    "order.upgrade": [
        UpgradeOrder("chat", "/models/new", {"dtype": "bfloat16"}, 5, 60.0),
        UpgradeOrder("chat", back=True, dry_run=True),
    ],
    "order.explain": [ExplainOrder("chat")],
    "told": [Told("monitor-1", "2 prefills and 3 decodes from now on", settled=True, revision=1)],
    "drain": [Drain(30.0)],
    "done": [Done("decode-1")],
    "reload": [Reload()],
    "reloaded": [Reloaded("gateway-1", ["nats.url", "gateway.port"])],
    "claim": [
        Claim(["chatcmpl-1", "chatcmpl-1-0"], "gateway-2", "acme"),
        Claim(["cmpl-1"], "gateway-2"),
        Claim(["r"], "g", look=True),
    ],
    "claimed": [
        Claimed(
            "decode-1",
            RESUMABLE,
            ["grüß"],
            [Logprobs(0, TokenLogprob(1024, -0.25, "grüß", "grüß".encode()), [])],
            Finished(17, 2, Finish.STOP, 6, 2, 1, "Ende"),
        ),
        Claimed("decode-1", SMALL),
    ],
    "claims": [Claims("decode-1", 2)],
    "pulse": [Pulse("monitor-1", EPOCH)],
    "instance.record": [
        InstanceRecord(
            "decode-1",
            Role.DECODE,
            State.FAILED,
            EPOCH,
            "chat",
            "g1",
            4711,
            "host-a",
            8,
            5,
            "http://127.0.0.1:9000",
            2,
            "the device is gone",
        ),
        InstanceRecord("monitor-1", Role.MONITOR, State.READY, EPOCH),
        InstanceRecord("prefill-1", Role.PREFILL, State.READY, EPOCH, health=Health.FAILED, revision=2),
    ],
}
TYPES: dict[str, type[Value]] = {
    **{kind.__struct_config__.tag: kind for kind in get_args(AnyMessage)},
    "instance.record": InstanceRecord,
}
"""Every message by its tag; the record, which has no tag, by the name of its file."""
