"""Every way in which two processes can want one name: explored to the last state.

In all of them no epoch is given twice or goes back, flush and failover of Redis included; a receiver that has heard a
holder takes no older one's word, however late it comes; and a process that was stopped while another held its lease
finds out as soon as it has one again.
"""

import pytest

from shared.messages import Epoch
from tests.model.explorer import Explorer, Violation
from tests.model.lease_model import LeaseModel
from tests.model.lease_world import FAULTS, Clock, Receiver, Size, World
from tests.model.mutants import ViewWithoutFence

ONE = frozenset({0})
SLEEP = frozenset({"freeze", "ask"})
REDIS = frozenset({"flush", "fail over"})

SMALL = {
    "any one fault": Size(steps=3, faults=1),
    "two faults at once": Size(steps=1, faults=2),
}
LARGE = {
    "a slow call and a stop": Size(faults=2, kinds=SLEEP, hurt=ONE, listens=False),
    "any two faults": Size(steps=2, faults=2),
    "a slow call and a stop of either": Size(faults=2, kinds=SLEEP),
    "an unlucky Redis": Size(steps=3, faults=2, kinds=REDIS | {"begin anew", "ask"}),
    "with pulses": Size(steps=3, faults=1, pulses=True),
    "three faults of one process or of Redis": Size(steps=2, faults=3, kinds=FAULTS - {"release"}, hurt=ONE),
}


class Unfenced(Receiver):
    """Believes whoever speaks in the name."""

    view_kind = ViewWithoutFence


class Forgetful(Clock):
    """Forgets with any confirmation that its process was stopped, as long as it was asked for before that."""

    def confirmed(self, now: int, epoch: Epoch, sent_at: int, created: bool) -> bool:  # noqa: FBT001  # as there
        broken = super().confirmed(now, epoch, sent_at, created)
        self.tenure._woke_at = float("-inf")
        return broken


def explore(size: Size, receiver: type[Receiver] = Receiver, clock: type[Clock] = Clock) -> None:
    explorer: Explorer[World] = Explorer(LeaseModel(size, receiver, clock))
    report = explorer.run()
    print(report)  # noqa: T201
    assert report.done > 0


@pytest.mark.parametrize("size", SMALL.values(), ids=SMALL.keys())
def test_a_lease_has_one_holder_in_every_order_of_things(size: Size) -> None:
    explore(size)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", LARGE.values(), ids=LARGE.keys())
def test_a_lease_has_one_holder_in_every_order_of_more_things(size: Size) -> None:
    explore(size)


def test_a_receiver_without_the_fence_is_found_out() -> None:
    with pytest.raises(Violation, match="is accepted after"):
        explore(Size(steps=2, faults=0), receiver=Unfenced)


def test_epochs_that_begin_again_after_a_flush_are_found_out() -> None:
    with pytest.raises(Violation, match="is given"):
        explore(Size(faults=1, kinds=REDIS, boot_survives=False))


def test_boot_numbers_that_a_flush_does_not_change_are_found_out() -> None:
    with pytest.raises(Violation, match="is given"):
        explore(Size(faults=1, kinds=REDIS, fine_clock=False))


def test_a_process_that_forgets_that_it_was_stopped_is_found_out() -> None:
    with pytest.raises(Violation, match="slept while another held its lease"):
        explore(Size(faults=2, kinds=SLEEP, hurt=ONE, listens=False), clock=Forgetful)
