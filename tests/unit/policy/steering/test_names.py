"""What groups are called, and what a name says."""

import pytest

from shared.policy.steering.names import Parts, base_name, group_name, ordinal, parts


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("main", Parts("main")),
        ("main-r2", Parts("main")),
        ("main-3-r12", Parts("main-3")),
        ("main-canary-r1", Parts("main", canary=True)),
        ("rack-r2", Parts("rack-r2")),
        ("rack-r2-r5", Parts("rack-r2")),
        ("other-canary", Parts("other-canary")),
    ],
)
def test_a_name_says_its_base_unless_the_configuration_gives_it(name: str, said: Parts) -> None:
    assert parts(name, {"rack-r2"}) == said


@pytest.mark.parametrize("base", ["main", "main-7", "tp8", "rack-r2"])
@pytest.mark.parametrize("revision", [0, 1, 12])
def test_names_are_read_as_they_were_written(base: str, revision: int) -> None:
    assert parts(group_name(base, revision), {"rack-r2"}) == Parts(base)
    assert parts(group_name(base, revision, canary=True), {"rack-r2"}) == Parts(base, canary=True)


def test_numbers_begin_with_main_alone() -> None:
    assert [ordinal(name) for name in ("main", "main-2", "main-1", "main-0", "main-02", "mainly", "tp8")] == [
        1,
        2,
        None,
        None,
        None,
        None,
        None,
    ]
    assert [base_name(number) for number in (1, 2)] == ["main", "main-2"]
