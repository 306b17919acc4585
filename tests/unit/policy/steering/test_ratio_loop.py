"""The ratio controller in a closed loop with a queueing model: it finds the best ratio and keeps it."""

import pytest

from shared.policy.steering import RatioRules, SteeringRules
from tests.unit.policy.steering.loop import Loop
from tests.unit.policy.steering.model import Group, lognormal

CHAT, CODE = (0.35, 185.0), (0.58, 28.0)  # mean seconds of a prompt, mean tokens of an answer
SIZE = 8


def busy_group(prefills: int, mix: tuple[float, float], seed: int = 1) -> Group:
    group = Group(prefills, SIZE - prefills, lognormal(*mix), seed)
    group.outstanding = 80
    return group


def best_of(group: Group, mix: tuple[float, float]) -> float:
    return max(group.capable(one, SIZE - one, *mix) for one in range(2, SIZE - 1))


@pytest.mark.parametrize("start", [1, 3, 7])
def test_from_any_start_it_goes_straight_to_the_best_ratio_and_stays(start: int) -> None:
    loop = Loop(busy_group(start, CHAT, seed=start))
    loop.run(800.0)
    assert loop.group.capable(*loop.ratio, *CHAT) >= 0.95 * best_of(loop.group, CHAT)
    assert len(loop.ratios) - 1 == abs(loop.ratio[0] - start), loop.ratios
    assert all(reason.kind == "ratio" for _, reason in loop.reasons)


def test_it_follows_a_shift_of_the_mix_there_and_back() -> None:
    loop = Loop(busy_group(4, CHAT))
    loop.run(200.0)
    assert loop.ratio == (4, 4)
    loop.group.draw = lognormal(*CODE)
    loop.run(500.0)
    assert loop.ratio == (6, 2)  # the best of those that leave two decodes
    loop.group.draw = lognormal(*CHAT)
    loop.run(500.0)
    assert loop.group.capable(*loop.ratio, *CHAT) >= 0.95 * best_of(loop.group, CHAT)
    assert loop.ratios == [(4, 4), (5, 3), (6, 2), (5, 3), (4, 4)]


def test_a_group_that_is_hardly_used_is_left_alone_and_its_capability_is_known_all_the_same() -> None:
    group = Group(2, 6, lognormal(*CHAT), seed=4)
    group.rate = 1.0
    loop = Loop(group)
    loop.run(500.0)
    assert loop.ratios == [(2, 6)]
    figures = loop.steering.figures(group.now)["main"]
    assert figures.c_p == pytest.approx(1 / CHAT[0], rel=0.25)
    true = 16 / (0.020 + 0.0003 * 16) / CHAT[1]
    assert figures.c_d == pytest.approx(true, rel=0.3)
    assert figures.use < 0.5


def test_explain_tells_the_step_once_and_takes_none() -> None:
    loop = Loop(busy_group(2, CODE), SteeringRules("chat", ratio=RatioRules(mode="explain")))
    loop.run(300.0)
    assert loop.ratios == [(2, 6)]
    ((_, reason),) = loop.reasons
    assert reason.kind == "explain"
    assert "main would get more prefills" in reason.text
    assert "6:2 gives" in loop.steering.explain(loop.group.now)


def test_a_fixed_ratio_is_not_judged() -> None:
    loop = Loop(busy_group(2, CODE), SteeringRules("chat", ratio=RatioRules(mode="fixed")))
    loop.run(200.0)
    assert (loop.ratios, loop.reasons) == ([(2, 6)], [])
