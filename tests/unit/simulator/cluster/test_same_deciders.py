"""What decides in the simulation is what decides in the services: the same classes, not like ones."""

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

from shared.policy.steering.rules import SteeringRules
from simulator.cluster.decode import Decode
from simulator.cluster.monitor import Monitor, MonitorSpec
from simulator.cluster.prefill import Prefill
from simulator.cluster.simulation import Simulation
from tests.unit.simulator.cluster.fleets import fleet

ROOT = Path(__file__).parents[4]


def used(folder: str, name: str) -> set[Any]:
    """The classes that the modules of a service import under a name from the policies, or from what workers share."""
    found = set()
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                found.add(getattr(importlib.import_module(module), name))
    return found


def held() -> dict[str, Any]:
    """What the parts of a running simulation hold, by the service that has the like and the class's name there."""
    simulation = Simulation(fleet(1, 1), lambda _: None)
    monitor = Monitor(simulation, MonitorSpec(steering=(SteeringRules("chat"),)))
    prefill, decode = simulation.workers["chat-main-p0"], simulation.workers["chat-main-d0"]
    assert isinstance(prefill, Prefill)
    assert isinstance(decode, Decode)
    dispatcher = simulation.gateways[0].dispatcher
    return {
        "services/gateway Dispatcher": dispatcher,
        "services/gateway FleetView": dispatcher.view,
        "services/prefill PrefillAdmission": prefill.admission,
        "services/decode DecodeAdmission": decode.admission,
        "services/monitor Fleet": monitor.fleet,
        "services/monitor Steering": monitor.steering["chat"],
        "shared/worker WorkMeter": decode.meter,
    }


@pytest.mark.parametrize("where", sorted(held()))
def test_the_simulation_decides_with_the_services_own_objects(where: str) -> None:
    folder, name = where.split()
    classes = used(folder, name)
    assert classes, f"nobody in {folder} uses {name} any more"
    assert classes == {type(held()[where])}


def test_prefills_ask_decodes_by_the_same_rule() -> None:
    simulated = importlib.import_module("simulator.cluster.prefill").Asking
    assert used("shared/worker", "Asking") == {simulated}


def test_the_simulator_imports_no_service() -> None:
    for path in sorted((ROOT / "simulator").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("services"), path
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("services") for alias in node.names), path
