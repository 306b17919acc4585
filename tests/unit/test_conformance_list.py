"""Every number of the OpenAI conformance list is claimed by a test: `test_15_…`, `test_4_and_14_…`, `test_1_to_7_…`."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
NUMBERS = range(1, 35)
CLAIM = re.compile(r"def test_(\d{1,2})(?:_(and|to)_(\d{1,2})|_(\d{2}))?_")


def claimed() -> set[int]:
    """Numbers in the names of tests that go through a client or a socket, or hold what no client can wait for."""
    found: set[int] = set()
    for path in TESTS.rglob("test_*.py"):
        for first, word, second, third in CLAIM.findall(path.read_text(encoding="utf-8")):
            last = int(second or third or first)
            found |= set(range(int(first), last + 1)) if word == "to" else {int(first), last}
    return found


def test_every_number_has_a_test() -> None:
    assert [number for number in NUMBERS if number not in claimed()] == []
