"""docs/operations.md and the code name the same metrics, with the same labels."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from services.gateway.access.keyring import Counts as KeyCounts
from services.gateway.access.ledger import Counts as LimitCounts
from services.gateway.access.line import Counts as RedisCounts
from services.gateway.content.report import Report
from services.gateway.http.crowd import CrowdCounts
from services.gateway.metrics import Metrics
from services.gateway.nats.entrance import Counts as NatsCounts
from services.gateway.relay.records import Counts as FrameCounts
from shared.bus import BusStats
from shared.instance import InstanceStats
from shared.otlp import GEN_AI_METRICS
from shared.worker.metrics import WorkerMetrics

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
CODE = "\n".join(
    path.read_text(encoding="utf-8") for part in ("services", "shared") for path in sorted((ROOT / part).rglob("*.py"))
)
EXPOSED: dict[str, Any] = {
    "baton_gateway_frames": FrameCounts,
    "baton_gateway_nats": NatsCounts,
    "baton_gateway_keys": KeyCounts,
    "baton_gateway_limits": LimitCounts,
    "baton_gateway_redis": RedisCounts,
    "baton_gateway_http": CrowdCounts,
    "baton_bus": BusStats,
    "baton_instance": InstanceStats,
}
"""What is shown by `Telemetry.expose`."""
GEN_AI = {"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model"}
KINDS = {"counter", "gauge", "histogram"}


def registered() -> dict[str, tuple[str, set[str]]]:
    """The type and the labels of every metric that a registry holds."""
    gateway, worker = CollectorRegistry(), CollectorRegistry()
    Metrics(gateway)
    Report(gateway)
    WorkerMetrics(worker)
    found = {}
    for registry in (gateway, worker):
        for metric in registry._collector_to_names:
            family = metric.describe()[0]  # type: ignore[attr-defined]
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, set(metric._labelnames))  # type: ignore[attr-defined]
    return found


def exposed() -> set[str]:
    return {f"{prefix}_{one.name}_total" for prefix, kind in EXPOSED.items() for one in dataclasses.fields(kind)}


def written() -> set[str]:
    """Metrics that are made elsewhere: their names stand in the code as they are."""
    found = re.findall(r'(Counter|Gauge|Histogram)\(\s*"(baton_\w+)"', CODE)
    names = {f"{name}_total" if kind == "Counter" else name for kind, name in found}
    return names | {f"baton_worker_{name}" for name in re.findall(r'\.gauge\("(\w+)"', CODE)}


def documented() -> dict[str, tuple[str, set[str]]]:
    """The rows of the page whose second cell is a type of metric; without a column of labels there are none."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) > 2 and cells[1] in KINDS:
            labels = set(re.findall(r"`(\w+)`", cells[2])) if len(cells) > 3 else set()
            labels |= GEN_AI if "GenAI" in cells[2] and len(cells) > 3 else set()
            for name in re.findall(r"`(\w+)`", cells[0]):
                found[name] = (cells[1], labels)
    return found


def test_the_page_names_every_metric_and_no_other() -> None:
    known = set(registered()) | exposed() | written()
    assert sorted(known - set(documented())) == [], "not on the page"
    assert sorted(set(documented()) - known) == [], "not in the code"


def test_the_page_has_the_type_and_the_labels_of_every_metric() -> None:
    page = documented()
    assert {name: page[name] for name in registered()} == registered()


def test_what_is_exposed_is_known_here() -> None:
    assert set(re.findall(r'\.expose\(\s*"(\w+)"', CODE)) == set(EXPOSED)


def test_the_histograms_of_the_conventions_have_their_names_over_otlp() -> None:
    histograms = {
        name for name, (kind, _) in registered().items() if name.startswith("gen_ai_") and kind == "histogram"
    }
    assert histograms == set(GEN_AI_METRICS)
    assert all(f"`{name}`" in PAGE for name in GEN_AI)
