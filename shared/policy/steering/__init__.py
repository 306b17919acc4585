"""The controllers of a scenario: how many groups, of which ratio, of which revision, and which strategy is asked.

`Steering` composes them: `ratio`, `scaling` by `timetable` and by load, and `upgrade`, on what `measures` and
`capability` know. `bands` is the gateway's. All pure: messages and `now` go in, plans with their reasons come out.
"""

from shared.policy.steering.figures import GroupFigures, ScenarioFigures
from shared.policy.steering.rules import RatioRules, ScaleRules, SteeringRules, UpgradeRules
from shared.policy.steering.steering import Answer, Decision, Reason, Steering

__all__ = [
    "Answer",
    "Decision",
    "GroupFigures",
    "RatioRules",
    "Reason",
    "ScaleRules",
    "ScenarioFigures",
    "Steering",
    "SteeringRules",
    "UpgradeRules",
]
