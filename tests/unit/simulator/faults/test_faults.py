"""Faults come at their rates, in order, and again from the same seed."""

from itertools import islice, takewhile
from math import inf

from simulator.faults.detection import Detection
from simulator.faults.events import Cut, Died, Froze, Slowed
from simulator.faults.processes import WEEK_S, FaultSpec, faults

NAMES = [str(n) for n in range(10_000)]
RULES = Detection(lease_ttl_s=3.0, heartbeat_s=0.5, misses=3, progress_s=10.0)


def test_ten_thousand_instances_lose_what_the_rate_says_in_thirty_days() -> None:
    month = 30 * 86400.0
    dead = sum(1 for _ in takewhile(lambda fault: fault.at < month, faults(FaultSpec(devices=8), NAMES, 1)))
    expected = 1.5 * 10_000 * 8 / 400 * month / WEEK_S
    assert abs(dead - expected) < 5 * expected**0.5


def test_all_kinds_come_in_the_order_of_time_and_again_from_the_same_seed() -> None:
    spec = FaultSpec(power=0.1, switch=0.1, freezes=0.1, slowdowns=0.1, degradations=0.1)
    some = list(islice(faults(spec, NAMES, 7), 2000))
    assert [fault.at for fault in some] == sorted(fault.at for fault in some)
    assert some == list(islice(faults(spec, NAMES, 7), 2000))
    assert some != list(islice(faults(spec, NAMES, 8), 2000))
    assert len({type(fault) for fault in some}) == 5


def test_a_switch_cuts_off_its_whole_rack_at_once() -> None:
    some = list(islice(faults(FaultSpec(deaths=0, switch=1), NAMES[:16], 3), 8))
    assert len({fault.at for fault in some}) == 1
    assert [fault.instance for fault in some] in (NAMES[:8], NAMES[8:16])
    assert all(isinstance(fault, Cut) for fault in some)


def test_silence_is_noticed_only_if_it_lasts() -> None:
    assert RULES.noticed_s(Died(0.0, "a", 0.1)) == 2.0
    assert RULES.noticed_s(Died(0.0, "a", 0.1), host_answers=True) == 0.0
    assert RULES.noticed_s(Froze(0.0, "a", 1.0)) == inf
    assert RULES.noticed_s(Froze(0.0, "a", 5.0)) == 2.0


def test_a_slow_instance_is_noticed_only_where_a_token_takes_too_long() -> None:
    assert RULES.noticed_s(Slowed(0.0, "a", 600.0, 3.0), token_s=0.05) == inf
    assert RULES.noticed_s(Slowed(0.0, "a", 600.0, 300.0), token_s=0.05) == 10.0
