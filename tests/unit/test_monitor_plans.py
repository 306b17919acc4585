"""What the configuration says of times is what the fleet's decider goes by."""

from services.monitor.plans import fleet_rules
from shared.config import Config, FleetSettings


def test_a_model_that_loads_for_an_hour_may_be_given_that_hour() -> None:
    assert fleet_rules(Config(fleet=FleetSettings(ready_s=7200.0))).ready_s == 7200.0
    assert fleet_rules(Config()).ready_s == 600.0
