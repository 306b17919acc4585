"""Every way in which one request can go, with real deciders, records and admissions: explored to the last state.

In all of them the client gets each token of the reference once and in order, one ending, and a good one only with all
tokens; nothing stale is taken; and from everywhere, if no further fault comes, the request ends, with nothing held
anywhere and nothing on its way.
"""

import pytest

from tests.model import mutants
from tests.model.explorer import Explorer, Violation
from tests.model.gateway import Gateway
from tests.model.relay_model import RelayModel
from tests.model.world import FAULTS, Size, World

ONE_OF_EACH = ("d1",)
TWINS = frozenset({"second life"})
LOST = frozenset({"lose"})
PUSHES = frozenset({"push lost", "word lost", "repeat", "impatient", "client leaves"})

SMALL = {
    "any fault but a second life": Size(decodes=ONE_OF_EACH, faults=1, kinds=FAULTS - TWINS),
    "a choice of decodes": Size(faults=1, kinds=PUSHES),
}
LARGE = {
    "a second life of the decode": Size(decodes=ONE_OF_EACH, faults=1, kinds=TWINS, hurt=frozenset({"d1"})),
    "any one fault": Size(decodes=ONE_OF_EACH, faults=1),
    "any one fault, three tokens": Size(tokens=3, decodes=ONE_OF_EACH, faults=1),
    "any one fault, a choice of decodes": Size(faults=1),
    "any one fault, a choice of prefills": Size(prefills=("p1", "p2"), decodes=ONE_OF_EACH, faults=1),
    "spoiled pushes again and again": Size(faults=3, kinds=PUSHES - {"impatient"}),
}


def explore(size: Size, kind: type[Gateway] = Gateway) -> None:
    model = RelayModel(size, kind)
    explorer: Explorer[World] = Explorer(model)
    report = explorer.run()
    print(f"{report}; {len(model.gateways)} of the gateway, {len(model.processes)} of workers")  # noqa: T201
    assert report.done > 0


@pytest.mark.parametrize("size", SMALL.values(), ids=SMALL.keys())
def test_a_request_survives_in_every_order_of_things(size: Size) -> None:
    explore(size)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", LARGE.values(), ids=LARGE.keys())
def test_a_request_survives_in_every_order_of_more_things(size: Size) -> None:
    explore(size)


@pytest.mark.parametrize(
    ("mutant", "size", "finding"),
    [
        (mutants.Unfenced, Size(decodes=ONE_OF_EACH), "a stale frame was taken"),
        (mutants.FencedNowhere, Size(decodes=ONE_OF_EACH), "a stale frame was taken"),
        (mutants.OldAttemptsSpeak, Size(decodes=ONE_OF_EACH), "a stale frame was taken"),
        (mutants.TokensComeTwice, Size(decodes=ONE_OF_EACH), "the client has"),
        (mutants.EndsEarly, Size(decodes=ONE_OF_EACH), "finished with 0 tokens of 2"),
        (mutants.Patient, Size(decodes=ONE_OF_EACH, kinds=LOST), "from here on it never ends"),
        (mutants.Trusting, Size(decodes=ONE_OF_EACH, kinds=LOST), "from here on it never ends"),
    ],
    ids=["frames unfenced", "unfenced", "old attempts speak", "tokens twice", "early end", "no stall", "no timeout"],
)
def test_a_gateway_that_lacks_a_check_is_found_out(mutant: type[Gateway], size: Size, finding: str) -> None:
    with pytest.raises(Violation, match=finding):
        explore(size, mutant)
