"""What a device's own counters mean, and that asking works where there is none."""

import pytest

from shared.engine.torch_engine.health import Counters, devices_of, judge, probe
from shared.messages import Health


@pytest.mark.parametrize(
    ("counters", "health"),
    [
        (Counters(), Health.OK),
        (Counters(0, remap_pending=False, remap_failed=False), Health.OK),
        (Counters(3), Health.DEGRADED),
        (Counters(0, remap_pending=True, remap_failed=False), Health.DEGRADED),
        (Counters(3, remap_pending=True, remap_failed=True), Health.FAILED),
    ],
)
def test_counters_have_a_meaning(counters: Counters, health: Health) -> None:
    found, why = judge(counters)
    assert (found, bool(why)) == (health, health is not Health.OK)


def test_a_cpu_is_always_well() -> None:
    assert probe("cpu") == (Health.OK, "")
    assert devices_of("cpu") == {"cpu"}


def test_a_device_that_does_not_answer_has_failed() -> None:
    health, why = probe("cuda:77")
    assert health is Health.FAILED
    assert why.startswith("cuda:77 does not answer")
    assert devices_of("cuda:77") == {"cuda:77"}
