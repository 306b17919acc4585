"""The Prometheus rules and the Grafana dashboard of deploy/ use metrics and labels that exist, in the right shape."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_operations_page import documented

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "baton.rules.yml"
BOARD = ROOT / "deploy" / "grafana" / "baton.json"
SCRAPED = {"instance", "job", "le"}
DURATION = re.compile(r"^\d+(s|m|h|d)\Z")


def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def _board() -> dict[str, Any]:
    board: dict[str, Any] = json.loads(BOARD.read_text(encoding="utf-8"))
    return board


def _expressions() -> list[str]:
    asked = [target["expr"] for panel in _board()["panels"] for target in panel.get("targets", [])]
    return [rule["expr"] for rule in _rules()] + asked


def _metric(name: str) -> str:
    """Name the metric that a series belongs to."""
    known = documented()
    base = re.sub(r"_(bucket|sum|count)\Z", "", name)
    return base if name not in known and known.get(base, ("",))[0] == "histogram" else name


def _faults(expression: str) -> list[str]:
    """List metrics, labels and recorded names in an expression that there are not, and brackets that do not close."""
    known, recorded = documented(), {rule["record"] for rule in _rules() if "record" in rule}
    faults = [name for name in re.findall(r"\bbaton:[\w:]+", expression) if name not in recorded]
    names = {_metric(name) for name in re.findall(r"\b(?:baton|gen_ai_server|gen_ai_client)_\w+", expression)}
    faults += sorted(names - set(known))
    for name, matchers in re.findall(r"\b((?:baton|gen_ai)_\w+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        faults += sorted(labels - known.get(_metric(name), ("", set()))[1] - SCRAPED)
    every = SCRAPED.union(*(known[name][1] for name in names if name in known))
    if "baton:" not in expression:
        for grouped in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
            faults += sorted({label.strip() for label in grouped.split(",") if label.strip()} - every)
    return faults + [pair for pair in ("()", "[]", "{}") if expression.count(pair[0]) != expression.count(pair[1])]


@pytest.mark.parametrize("expression", _expressions())
def test_every_expression_asks_for_what_there_is(expression: str) -> None:
    assert _faults(expression) == []


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("baton_map_joinedd == 0", "baton_map_joinedd"),
        ("baton:nothing:ratio > 1", "baton:nothing:ratio"),
        ('rate(baton_gateway_requests_total{state="5.."}[5m])', "state"),
        ("sum by (group) (baton_monitor_leading)", "group"),
        ("sum(baton_monitor_leading", "()"),
    ],
)
def test_what_there_is_not_would_be_found(expression: str, fault: str) -> None:
    assert fault in _faults(expression)


def test_rules_have_the_shape_that_prometheus_reads() -> None:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    assert len({group["name"] for group in groups}) == len(groups)
    for rule in _rules():
        assert ("alert" in rule) != ("record" in rule), rule
        assert set(rule) <= {"alert", "record", "expr", "for", "labels", "annotations"}, rule
        assert DURATION.match(rule.get("for", "1s")), rule
        if "alert" in rule:
            assert re.fullmatch(r"Baton[A-Za-z]+", rule["alert"])
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert all(rule["annotations"].get(name) for name in ("summary", "description")), rule["alert"]
    names = [rule.get("alert") or rule["record"] for rule in _rules()]
    assert len(set(names)) == len(names)


def test_what_can_go_wrong_has_an_alert() -> None:
    asked = "\n".join(rule["expr"] for rule in _rules() if "alert" in rule)
    for name in (
        "baton:slo_met:ratio",
        "baton:joined:members == 0",
        "baton_monitor_leading",
        "baton_fleet_assigned_total",
        "baton_instance_lease_unconfirmed_total",
        "baton_bus_reconnects_total",
        "baton:kv_push_failures:ratio5m",
        "baton_map_target",
    ):
        assert name in asked


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_the_rules_say_what_they_should_to_made_up_series() -> None:
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True, timeout=30)
    cases = RULES.with_name("baton.rules.test.yml")
    subprocess.run(["promtool", "test", "rules", str(cases)], check=True, timeout=30)


def test_the_board_has_the_shape_that_grafana_reads() -> None:
    board = _board()
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + across, place["y"] + down) for across in range(place["w"]) for down in range(place["h"])}
        assert max(column for column, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
        letters = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(letters)) == len(letters)
        assert panel["type"] == "row" or letters, panel["title"]
    named = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(panels))) - {"__rate_interval"}
    assert used == named
