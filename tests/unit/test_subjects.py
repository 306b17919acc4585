"""Subjects are built in one place, and names cannot break out of them."""

import inspect

import pytest

from shared.subjects import INSTANCE_NAME, PREFIX, SCENARIO_NAME, Subjects


def every_subject(subjects: Subjects) -> dict[str, str]:
    """Each function's subject, with arguments named after themselves."""
    result = {}
    for name, function in inspect.getmembers(subjects, inspect.ismethod):
        if not name.startswith("_"):
            result[name] = function(*inspect.signature(function).parameters)
    return result


def test_every_subject_starts_with_the_prefix_and_is_unlike_every_other() -> None:
    for prefix in (PREFIX, "other"):
        built = every_subject(Subjects(prefix))
        assert len(built) == len(set(built.values())) > 5
        assert all(subject.startswith(f"{prefix}.") for subject in built.values())


def test_what_lies_outside_the_scenarios_cannot_be_a_scenarios() -> None:
    for name, subject in every_subject(Subjects()).items():
        second = subject.split(".")[1]
        if second.startswith("_"):
            assert not SCENARIO_NAME.match(second), name
        else:
            assert second == "scenario", name


@pytest.mark.parametrize(
    "name", ["", "_fleet", "a.b", "a*", ">", "a b", "A", "-a", "a-", "a" * 65, "ä", "a\n", "a\r\nPUB x"]
)
def test_a_name_that_could_break_out_of_its_place_is_no_scenarios_name(name: str) -> None:
    assert not SCENARIO_NAME.match(name)


@pytest.mark.parametrize("name", ["", "_x", "a.b", "a*", ">", "a b", "A", "-a", "a" * 64, "ä", "a\n"])
def test_a_name_that_could_break_out_of_its_place_is_no_instances_name(name: str) -> None:
    assert not INSTANCE_NAME.match(name)


@pytest.mark.parametrize("name", ["a", "chat", "long-context-2", "7b", "a" * 63])
def test_ordinary_names_are_both(name: str) -> None:
    assert SCENARIO_NAME.match(name)
    assert INSTANCE_NAME.match(name)
