"""F32: random schedules of faults under load, from printed seeds. Whoever sees one fail can run it again."""

import os
from itertools import pairwise
from pathlib import Path
from random import randrange

import pytest

from shared.messages import Role
from tests.faults.schedule import SETTLE_S, TO_SERVERS, Deed, schedule
from tests.faults.soak import Soak
from tests.faults.soak_audit import Audit

SEED = int(os.environ.get("BATON_SOAK_SEED") or randrange(1_000_000))  # noqa: S311


def test_a_seed_makes_the_same_schedule_again_and_another_seed_another() -> None:
    assert schedule(3, 60) == schedule(3, 60)
    assert schedule(3, 60) != schedule(4, 60)


def test_whatever_can_be_done_is_done_by_some_schedule_and_is_over_in_time() -> None:
    done = [fault for seed in range(40) for fault in schedule(seed, 120)]
    assert {fault.deed for fault in done} == set(Deed)
    assert all(fault.until < 120 for fault in done)


def test_what_a_client_resumes_by_is_left_alone_while_a_gateway_falls() -> None:
    for seed in range(40):
        faults = schedule(seed, 120)
        for fault in (one for one in faults if one.alone):
            others = [one for one in faults if one is not fault]
            assert all(one.until + SETTLE_S <= fault.at or one.at >= fault.until + SETTLE_S for one in others)
        gateways = [one for one in faults if one.role is Role.GATEWAY]
        monitors = [one for one in faults if one.role is Role.MONITOR]
        servers = [one for one in faults if one.deed in TO_SERVERS]
        for group in (gateways, monitors, servers):
            assert all(before.until <= after.at for before, after in pairwise(group))


def test_the_audit_sees_a_lease_that_goes_back_or_has_two_holders() -> None:
    audit = Audit()
    audit.lease("decode-1", "a|0", (1, 5))
    audit.lease("decode-1", "b|0", (1, 7))
    audit.record("decode-1", 100, (1, 7))
    assert audit.wrong == []
    audit.lease("decode-1", "b|0", (1, 6))
    audit.lease("decode-2", "c|0", (1, 7))
    audit.record("decode-1", 101, (1, 7))
    again = Audit()
    again.lease("decode-1", "a|0", (1, 5))
    again.lease("decode-1", "b|0", (1, 5))
    said = audit.wrong + again.wrong
    assert [any(word in one for one in said) for word in ("went back", "was given to", "both were", "passed from")] == [
        True
    ] * 4


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_whatever_is_hurt_for_a_few_seconds_nothing_is_lost(tmp_path: Path) -> None:
    await soaked(tmp_path, SEED, 12)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_whatever_is_hurt_for_five_minutes_nothing_is_lost(tmp_path: Path) -> None:
    await soaked(tmp_path, SEED + 1, 300)


async def soaked(folder: Path, seed: int, seconds: float) -> None:
    print(f"soak: seed {seed}")  # noqa: T201
    soak = Soak(seed, seconds)
    await soak.run(folder)
    assert not soak.wrong, str(soak)
    assert soak.asked > 10
    assert soak.leases_seen > 100
