"""The parts of the monitor's decider, as they know each other. Each owns its own matter; here they are only made."""

from collections.abc import Iterable

from shared.messages import Epoch
from shared.policy.fleet.census import Census
from shared.policy.fleet.events import Action, FleetRules
from shared.policy.fleet.flapping import Flapping
from shared.policy.fleet.forming import Forming
from shared.policy.fleet.groups import Groups
from shared.policy.fleet.joining import Joining
from shared.policy.fleet.plans import Plans
from shared.policy.fleet.staffing import Staffing
from shared.policy.fleet.substitutes import Substitutes
from shared.policy.plan import Plan


class Parts:
    """What `Fleet` and its hands share. `notes` are the actions of the present event; `epoch` is that of our lead."""

    def __init__(self, plans: Iterable[Plan], rules: FleetRules) -> None:
        self.rules = rules
        self.plans = Plans(plans)
        self.census = Census(rules)
        self.groups = Groups(self.plans)
        self.substitutes = Substitutes(rules)
        self.staffing = Staffing(self.plans, self.groups, self.census, self.substitutes, rules)
        self.holes, self.spares, self.steps = self.staffing.holes, self.staffing.spares, self.staffing.steps
        self.joining = Joining(self.groups, self.plans, rules)
        self.forming = Forming(self.groups, self.plans, self.substitutes, rules)
        self.flapping = Flapping(rules)
        self.epoch: Epoch | None = None
        self.notes: list[Action] = []

    @property
    def leading(self) -> bool:
        """Whether decisions are ours."""
        return self.epoch is not None

    def next_deadline(self) -> float | None:
        """Say when time alone changes something, at the latest."""
        parts = (self.census, self.substitutes, self.staffing, self.joining, self.forming)
        moments = (part.next_deadline() for part in parts)
        return min((at for at in moments if at is not None), default=None)
