"""Aggregated serving: every instance computes prompts and decodes, in one of two ways. For comparison.

Prompts first: a whole prompt is one step, and all that the instance decodes stands still meanwhile, as vLLM did until
2024, and Orca. In chunks: a step has a part of a prompt beside the decoding, of at most `chunk` tokens with it, as
Sarathi-Serve (OSDI 2024) and vLLM since. Requests go to the instance with the fewest streams.
"""

from typing import Any, Final

from shared.policy.routes import RouteRules
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.profile import Profile

ANY: Final = 1 << 30
"""Tokens: no prompt is longer."""


def aggregated(profile: Profile, instances: int, chunk: int = 0, **others: Any) -> FleetSpec:  # noqa: ANN401
    """So many instances; `chunk` 0: prompts first. `others`: ScenarioSpec's fields."""
    group = GroupSpec("main", 0, instances, profile)
    settings: dict[str, Any] = {"chunk": chunk} if chunk else {"alone": True}
    rules = RouteRules(local_tokens=ANY)
    return FleetSpec((ScenarioSpec("chat", (group,), routes=rules, **settings, **others),))
