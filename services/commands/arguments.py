"""What the words of a command line may be: numbers and their bounds."""

import argparse

from shared.errors import BadRequest


class Misused(BadRequest):
    """Raised when the words of a command do not go together; the exit status is that of a usage error."""


def number(text: str, least: int, most: int) -> int:
    """Read a whole number within bounds."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{number} is not between {least} and {most}")
    return number


def port(text: str) -> int:
    """Read a TCP port."""
    return number(text, 0, 65_535)


def count(text: str) -> int:
    """Read how many, none included."""
    return number(text, 0, 1000)


def some(text: str) -> int:
    """Read how many, at least one."""
    return number(text, 1, 1000)


def members(text: str) -> int:
    """Read the members of a group."""
    return number(text, 1, 10_000)


def groups(text: str) -> int:
    """Read how many groups."""
    return number(text, 1, 1024)


def percent(text: str) -> int:
    """Read the share of a canary."""
    return number(text, 0, 50)


def trial(text: str) -> float:
    """Read the seconds of a trial."""
    return real(text, 86_400)


def tokens(text: str) -> int:
    """Read how many tokens."""
    return number(text, 1, 10_000_000)


def seconds(text: str) -> float:
    """Read seconds, up to an hour."""
    return real(text, 3600)


def real(text: str, most: float) -> float:
    """Read a number within bounds."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 <= number <= most:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {most:g}")
    return number
