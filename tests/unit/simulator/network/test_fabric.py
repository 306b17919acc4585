"""Transfers share links, and cost the same in any fleet."""

import pytest

from simulator.baselines.block_fixed import BlockFixed, Blocks
from simulator.clock import Clock
from simulator.network.fabric import Fabric, FabricSpec


def _ends(spec: FabricSpec, pairs: list[tuple[str, str, int]], size: int = 16) -> tuple[list[float], Fabric]:
    clock, ends = Clock(), []
    fabric = Fabric(clock, spec)
    for n in range(size):
        fabric.place(str(n))
    for source, target, nbytes in pairs:
        fabric.send(source, target, nbytes, lambda: ends.append(clock.now))
    clock.run()
    return ends, fabric


SPEC = FabricSpec(nic_bytes_per_s=100.0, uplink_bytes_per_s=100.0, latency_s=0.0)


def test_two_transfers_to_one_instance_share_it_and_the_rest_goes_faster_when_one_ends() -> None:
    ends, _ = _ends(SPEC, [("0", "2", 100), ("1", "2", 200)])
    assert ends == pytest.approx([2.0, 3.0])


def test_transfers_that_share_no_link_do_not_slow_each_other() -> None:
    assert _ends(SPEC, [("0", "1", 100), ("2", "3", 100)])[0] == pytest.approx([1.0, 1.0])


def test_blind_paths_conflict_and_diverse_ones_do_not() -> None:
    pairs = [(str(n), str(n + 8), 100) for n in range(4)]
    diverse, one = _ends(SPEC, pairs)
    blind, other = _ends(FabricSpec(**{**_fields(), "paths": "ecmp"}), pairs)  # type: ignore[arg-type]
    assert one.conflicts == 0
    assert diverse == pytest.approx([1.0] * 4)
    assert other.conflicts > 0
    assert max(blind) > 1.5


def _fields() -> dict[str, object]:
    return {"nic_bytes_per_s": 100.0, "uplink_bytes_per_s": 100.0, "latency_s": 0.0}


def test_the_cost_does_not_grow_with_the_fleet() -> None:
    pairs = [(str(n), str(n + 8), 100 + n) for n in range(8)] * 5
    assert _ends(SPEC, pairs, 100)[1].rated == _ends(SPEC, pairs, 10_000)[1].rated


def test_every_block_waits_for_its_confirmation() -> None:
    clock, ends = Clock(), []
    network = BlockFixed(clock, Fabric(clock, SPEC), Blocks(10, 0.5, layers=2))
    network.place("a")
    network.place("b")
    network.send("a", "b", 95, lambda: ends.append(clock.now))
    clock.run()
    assert ends == pytest.approx([0.95 + 10 * 2 * 0.5])
