"""A plan reaches its objectives, nothing cheaper nearby does, and what is asked wrongly is explained."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from services.cli import main as baton
from simulator.engine.forms import Linear
from simulator.engine.kept import write_profile
from simulator.engine.profile import Profile
from simulator.planner.aims import Aims, PlanError, read_aims
from simulator.planner.command import planned
from simulator.planner.demand import Demand, share_of
from simulator.planner.search import Search
from simulator.planner.tides import tide
from simulator.planner.trial import Group
from simulator.workload.arrival import Arrival
from simulator.workload.reading import write_trace
from simulator.workload.synthetic import fixed, poisson, workload

TIMING = Linear(0.2, 1e-3, 0.0, 0.2, 1e-3, 0.0)
PROFILE = Profile("test", TIMING, kv_tokens=400_000, kv_bytes_per_token=1000, max_sequences=64)
AIMS = Aims(10.0, 0.3, 0.95)


def chat(rate: float, seconds: float = 200.0, seed: int = 1) -> list[Arrival]:
    """Prompts of 1,000 tokens: a prefill can do 0.83 a second; answers of 100: a decode about 2.4."""
    return list(workload(poisson(rate, seconds, seed=seed), fixed(1000, 100), seed=seed))


@pytest.mark.parametrize(
    ("text", "aims"),
    [
        ("ttft=2s,tpot=100ms,share=99%", Aims(2.0, 0.1, 0.99)),
        ("tpot=50ms, ttft=500ms", Aims(0.5, 0.05)),
        ("ttft=1.5,tpot=0.02,share=0.9", Aims(1.5, 0.02, 0.9)),
    ],
)
def test_objectives_are_read(text: str, aims: Aims) -> None:
    assert read_aims(text) == aims


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ttft=2s", "tpot must be given"),
        ("ttft=2s,tpot=1h", "'tpot=1h' is no objective"),
        ("ttft=2%,tpot=5ms", "times are in s or ms"),
        ("ttft=2s,tpot=5ms,share=100%", "share is below"),
        ("ttft=2s,ttft=2s,tpot=1s", "no objective"),
    ],
)
def test_what_is_no_objective_is_explained(text: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        read_aims(text)


@pytest.mark.parametrize("rate", [0.5, 2.0, 5.5])
def test_a_plan_meets_and_its_smaller_neighbours_do_not(rate: float) -> None:
    search = Search(PROFILE, Demand.of(chat(rate)), AIMS)
    fleet = search.best()
    assert fleet is not None
    assert fleet.found.share >= AIMS.share
    for prefill, decode in ((1, 0), (0, 1)):
        group = fleet.group
        if group.prefill > prefill and group.decode > decode:
            smaller = Group(PROFILE, group.prefill - prefill, group.decode - decode)
            assert search.found(smaller, fleet.groups, fleet.batch).share < AIMS.share
    assert fleet.groups * fleet.group.prefill >= rate / 0.84, "no fewer than the equation says"


def test_more_traffic_needs_more_and_split_traffic_needs_groups() -> None:
    few, many = (Search(PROFILE, Demand.of(chat(rate)), AIMS).best() for rate in (0.5, 12.0))
    assert few is not None
    assert many is not None
    assert many.devices > 5 * few.devices
    assert many.groups > 1


def test_an_objective_that_one_request_alone_misses_is_out_of_reach() -> None:
    assert planned([Search(PROFILE, Demand.of(chat(0.5)), Aims(0.5, 0.3))]) is None
    assert planned([Search(PROFILE, Demand.of(chat(0.5)), Aims(10.0, 0.1))]) is None


def test_the_cheapest_profile_is_taken_and_the_other_told() -> None:
    demand = Demand.of(chat(2.0))
    dear = replace(PROFILE, name="dear", price=3.0)
    plan = planned([Search(dear, demand, AIMS), Search(PROFILE, demand, AIMS)])
    assert plan is not None
    assert plan.fleet.group.profile.name == "test"
    assert [name for name, _ in plan.others] == ["dear"]
    near = {one.what: one.share for one in plan.near}
    assert near["20 % less traffic"] >= plan.fleet.found.share - 0.02
    assert near["half as much again"] < near["20 % less traffic"]


@pytest.mark.long
def test_a_day_gets_its_groups_by_the_hour() -> None:
    def day() -> Iterator[Arrival]:
        rng, at = Random(1), 0.0
        while at < 6 * 3600.0:
            at += rng.expovariate(9.0 if at > 5 * 3600 else 0.1)
            yield Arrival(at, 1000, 100)

    search = Search(PROFILE, Demand.of(day()), AIMS)
    fleet = search.best()
    assert fleet is not None
    found = tide(search, fleet)
    assert found is not None
    assert len(found.groups) == 6
    assert fleet.groups > 1
    assert found.groups[0] < found.groups[-1]
    assert found.share_of_hours < 1.0
    assert found.lines[0] == f"0 0 * * * = {found.groups[0]}"


def test_a_share_of_a_traffic_is_as_much_as_was_asked_for() -> None:
    arrivals = chat(5.0)
    for share in (0.25, 1.0, 1.5, 3.2):
        part = share_of(arrivals, share, 1)
        assert len(part) == pytest.approx(share * len(arrivals), rel=0.1)
        assert part == sorted(part, key=lambda one: one.at)
    assert share_of(arrivals, 1.0, 1) == arrivals


def test_the_command_plans_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, profile = tmp_path / "t.jsonl", tmp_path / "p.json"
    write_trace(trace, chat(1.0))
    write_profile(profile, PROFILE, {})
    words = ["plan", "--trace", str(trace), "--slo", "ttft=10s,tpot=300ms,share=95%", "--profile", str(profile)]
    assert baton([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fleet"]["prefill"] >= 2
    assert told["fleet"]["share"] >= 0.95
    assert baton(words) == 0
    text = capsys.readouterr().out
    assert f"prefill = {told['fleet']['prefill']}" in text
    assert "20 % more traffic" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--trace", "none.csv", "--slo", "ttft=1s,tpot=1s"], "does not exist"),
        (["--trace", "t.jsonl", "--slo", "fast"], "no objective"),
        (["--trace", "t.jsonl", "--slo", "ttft=1s,tpot=1s", "--profile", "b300"], "no profile is named b300"),
        (["--trace", "t.jsonl", "--slo", "ttft=1s,tpot=1s", "--times", "0"], "a rate is above 0"),
    ],
)
def test_wrong_words_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_trace(tmp_path / "t.jsonl", chat(1.0))
    assert baton(["plan", *words]) == 2
    assert says in capsys.readouterr().err


def test_too_short_a_trace_is_refused() -> None:
    with pytest.raises(PlanError, match="too few"):
        Demand.of(chat(0.1))
