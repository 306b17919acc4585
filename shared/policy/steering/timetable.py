"""How many groups there are by the clock: lines like "0 8 * * mon-fri = 4", the first five fields as cron reads them.

Owns the reading of the lines and of the clock in one time zone. A line holds from its moment until that of another one.
A time that the clock leaps over counts when the leap is over; one that comes twice counts the first time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import product
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LOOK_BACK_DAYS: Final = 366
MOST_GROUPS: Final = 1024
MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()  # of low, low + 1, ...


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, MONTHS),
    _Field("weekday", 0, 7, WEEKDAYS),  # 0 and 7 are Sunday
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line."""

    text: str
    groups: int
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool  # day and weekday are both restricted: one of them is enough, as in cron

    def on(self, day: date) -> bool:
        """Whether the line holds on that day."""
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (of_month or of_week) if self.either else (of_month and of_week)


class InForce(NamedTuple):
    """The line that holds, and since when, in seconds of unix time."""

    entry: Entry
    since: float


class Timetable:
    """The lines of one scenario. Raises ValueError, which names the line and what is wrong with it."""

    def __init__(self, lines: Sequence[str], timezone: str) -> None:
        try:
            self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f'"{timezone}" is no time zone that is known here, such as Europe/Berlin') from error
        self._entries = [read(line) for line in lines]
        self._known: tuple[int, InForce | None] = (-1, None)

    def at(self, unix: float) -> InForce | None:
        """Return the line that holds at that time; None: no moment of any line in the year before."""
        if not self._entries:
            return None
        minute = int(unix // 60)
        if self._known[0] != minute:
            self._known = (minute, self._find(minute * 60))
        return self._known[1]

    def _find(self, unix: int) -> InForce | None:
        today = datetime.fromtimestamp(unix, self._zone).date()
        for back in range(-1, LOOK_BACK_DAYS + 1):  # a day early, for zones whose day is ahead of its moments
            day = today - timedelta(days=back)
            found = [
                InForce(entry, moment)
                for entry in self._entries
                if entry.on(day) and (moment := self._last(entry, day, unix)) is not None
            ]
            if found:
                latest = max(one.since for one in found)
                return next(one for one in reversed(found) if one.since == latest)
        return None

    def _last(self, entry: Entry, day: date, unix: int) -> float | None:
        moments = (
            datetime.combine(day, time(hour, minute), self._zone).astimezone(UTC).timestamp()
            for hour, minute in product(entry.hours, entry.minutes)
        )
        return max((moment for moment in moments if moment <= unix), default=None)


def read(line: str) -> Entry:
    """Read one line. Raises ValueError."""
    head, equals, tail = line.partition("=")
    fields, groups = head.split(), tail.strip()
    if not equals or len(fields) != len(_FIELDS):
        raise ValueError(f'"{line}": write it as "minute hour day month weekday = groups"')
    if not (groups.isascii() and groups.isdigit()) or int(groups) > MOST_GROUPS:
        raise ValueError(f'"{line}": "{groups}" is no number of groups from 0 to {MOST_GROUPS}')
    try:
        sets = [_read_field(text.lower(), field) for text, field in zip(fields, _FIELDS, strict=True)]
    except ValueError as error:
        raise ValueError(f'"{line}": {error}') from error
    minutes, hours, days, months, weekdays = sets
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    return Entry(line, int(groups), minutes, hours, days, months, frozenset(one % 7 for one in weekdays), either)


def _read_field(text: str, field: _Field) -> frozenset[int]:
    return frozenset(number for part in text.split(",") for number in _read_part(part, field))


def _read_part(text: str, field: _Field) -> range:
    span, slash, step = text.partition("/")
    if slash and not (step.isascii() and step.isdigit() and int(step) > 0):
        raise ValueError(f'"{text}" of the {field.name} has no step above 0 behind its slash')
    every = int(step) if slash else 1
    if span == "*":
        return range(field.low, field.high + 1, every)
    first, dash, last = span.partition("-")
    if slash and not dash:
        raise ValueError(f'"{text}" of the {field.name} has a step, so it needs a range, or *')
    low = _read_number(first, field)
    high = _read_number(last, field) if dash else low
    if field.name == "weekday" and dash and high == 0 < low:
        high = 7
    if high < low:
        raise ValueError(f'"{text}" of the {field.name} ends before it begins')
    return range(low, high + 1, every)


def _read_number(text: str, field: _Field) -> int:
    if text in field.names:
        return field.low + field.names.index(text)
    if text.isascii() and text.isdigit() and field.low <= int(text) <= field.high:
        return int(text)
    names = f", or {field.names[0]} to {field.names[-1]}" if field.names else ""
    raise ValueError(f'"{text}" is no {field.name}: those are {field.low} to {field.high}{names}')
