"""The time table: cron's five fields, in a time zone, over the days on which its clock is put forward and back."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.policy.steering.timetable import Timetable, read

BERLIN = ZoneInfo("Europe/Berlin")


def at(table: Timetable, *when: int, fold: int = 0) -> int | None:
    held = table.at(datetime(*when, tzinfo=BERLIN, fold=fold).timestamp())
    return held.entry.groups if held is not None else None


def test_the_last_line_that_has_passed_holds() -> None:
    table = Timetable(["0 8 * * mon-fri = 4", "30 19 * * mon-fri = 2", "0 0 * * sat = 1"], "Europe/Berlin")
    assert at(table, 2026, 11, 25, 7, 59) == 2  # a Wednesday; Tuesday evening's
    assert at(table, 2026, 11, 25, 8, 0) == 4
    assert at(table, 2026, 11, 25, 19, 29, 59) == 4
    assert at(table, 2026, 11, 25, 19, 30) == 2
    assert at(table, 2026, 11, 29, 12, 0) == 1  # Sunday


def test_a_line_that_comes_once_a_year_holds_for_a_year() -> None:
    table = Timetable(["0 0 24 dec * = 7"], "UTC")
    assert at(table, 2026, 12, 23, 12, 0) == 7
    assert Timetable([], "UTC").at(0.0) is None


def test_a_time_that_the_clock_leaps_over_counts_when_the_leap_is_over() -> None:
    table = Timetable(["0 1 * * * = 1", "30 2 * * * = 2"], "Europe/Berlin")
    leap = datetime(2026, 3, 29, 1, 59, tzinfo=BERLIN).timestamp()  # a minute later it is 3:00
    assert [table.at(leap + 60 * minute).entry.groups for minute in (0, 1, 30, 31)] == [1, 1, 1, 2]  # type: ignore[union-attr]
    assert at(table, 2026, 3, 30, 2, 29) == 1
    assert at(table, 2026, 3, 30, 2, 30) == 2


def test_a_time_that_comes_twice_counts_the_first_time() -> None:
    table = Timetable(["30 2 * * * = 2", "45 2 * * * = 3"], "Europe/Berlin")
    assert at(table, 2026, 10, 25, 2, 29) == 3  # of the day before
    assert at(table, 2026, 10, 25, 2, 30) == 2
    assert at(table, 2026, 10, 25, 2, 50) == 3
    assert at(table, 2026, 10, 25, 2, 30, fold=1) == 3


def test_of_two_lines_of_one_moment_the_later_one_holds() -> None:
    table = Timetable(["0 8 * * * = 4", "0 8 * * mon = 6"], "Europe/Berlin")
    assert at(table, 2026, 11, 23, 9, 0) == 6
    assert at(table, 2026, 11, 24, 9, 0) == 4


def test_day_and_weekday_are_either_or_when_both_are_restricted() -> None:
    both, one = read("0 0 13 * fri = 1"), read("0 0 */2 * fri = 1")
    friday, the_13th = date(2026, 11, 27), date(2026, 12, 13)
    assert (both.on(friday), both.on(the_13th), both.on(friday + timedelta(days=1))) == (True, True, False)
    assert (one.on(friday), one.on(friday + timedelta(days=2)), one.on(date(2026, 11, 20))) == (
        True,
        False,
        False,
    )


def test_fields_are_read_as_cron_reads_them() -> None:
    entry = read("*/20,5 8-18/5 1,15 Jan-mar,12 5-7 = 0")
    assert sorted(entry.minutes) == [0, 5, 20, 40]
    assert sorted(entry.hours) == [8, 13, 18]
    assert sorted(entry.days) == [1, 15]
    assert sorted(entry.months) == [1, 2, 3, 12]
    assert sorted(entry.weekdays) == [0, 5, 6]
    assert sorted(read("0 0 * * sat-sun = 0").weekdays) == [0, 6]
    assert sorted(read("0 0 * * 0 = 0").weekdays) == sorted(read("0 0 * * 7 = 0").weekdays) == [0]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("0 8 * * = 4", "minute hour day month weekday = groups"),
        ("0 8 * * mon-fri 4", "minute hour day month weekday = groups"),
        ("0 8 * * mon-fre = 4", '"fre" is no weekday: those are 0 to 7, or sun to sat'),
        ("60 8 * * * = 4", '"60" is no minute: those are 0 to 59'),
        ("0 8 0 * * = 4", '"0" is no day'),
        ("0 8 * * * = many", '"many" is no number of groups'),
        ("0 8 * * * = 1025", "from 0 to 1024"),
        ("0 18-8 * * * = 4", "ends before it begins"),
        ("0/5 8 * * * = 4", "needs a range, or *"),
        ("*/0 8 * * * = 4", "no step above 0"),
        ("1, 8 * * * = 4", '"" is no minute'),
        ("² 8 * * * = 4", '"²" is no minute'),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_its_fault(line: str, word: str) -> None:
    with pytest.raises(ValueError, match=r'^"') as raised:
        Timetable([line], "UTC")
    assert word in str(raised.value)
    assert line in str(raised.value)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd"])
def test_a_time_zone_that_is_not_known_is_named(zone: str) -> None:
    with pytest.raises(ValueError, match="is no time zone that is known here"):
        Timetable([], zone)


@settings(max_examples=40)
@given(minute=st.integers(0, 60 * 24 * 400), hour=st.integers(0, 23), past=st.integers(0, 59))
def test_a_daily_line_was_never_longer_ago_than_a_day_of_25_hours(minute: int, hour: int, past: int) -> None:
    unix = datetime(2026, 1, 1, tzinfo=BERLIN).timestamp() + 60 * minute
    held = Timetable([f"{past} {hour} * * * = 1"], "Europe/Berlin").at(unix)
    assert held is not None
    assert 0 <= unix - held.since < 25 * 3600
