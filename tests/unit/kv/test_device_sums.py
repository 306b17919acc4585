"""The checksum that a device computes: equal for equal bytes, different after every accident that one can think of."""

import random
import struct
from collections.abc import Callable

import pytest
import torch
import xxhash

from shared.kv.device_sums import COLUMNS, LEAST_ROWS, ROW, Sums, digest, float_product, integer_product, mixed_numbers

BITS = (1 << 64) - 1
CPU = torch.device("cpu")
LARGEST = 3 * LEAST_ROWS * ROW + 4099
"""Rows that are multiplied where they lie, then fewer than are, then a part of one."""


@pytest.fixture(scope="module")
def sums() -> Sums:
    return Sums(CPU, LARGEST)


@pytest.fixture(scope="module")
def data() -> bytearray:
    return drawn(5, LARGEST)


def drawn(seed: int, nbytes: int) -> bytearray:
    return bytearray(random.Random(seed).randbytes(nbytes))  # noqa: S311  test data


def of(sums: Sums, data: bytearray) -> bytes:
    return digest(sums.begin(torch.tensor(data, dtype=torch.uint8), lambda: None))


def mixed(number: int) -> int:
    """The output of splitmix64 at the state `number`."""
    z = (number + 1) * 0x9E3779B97F4A7C15 & BITS
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & BITS
    z = (z ^ z >> 27) * 0x94D049BB133111EB & BITS
    return z ^ z >> 31


def signed(number: int, bits: int) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> bits - 1 else number


def by_definition(data: bytes) -> bytes:
    """What the module's docstring says, byte by byte."""
    totals = [0] * COLUMNS
    for row in range(-(-len(data) // ROW)):
        numbers = struct.unpack(f"{len(data[row * ROW :][:ROW])}b", data[row * ROW :][:ROW])
        weight = mixed(row) | 1
        for column in range(COLUMNS):
            weights = WEIGHTS[column * ROW : (column + 1) * ROW]
            totals[column] += weight * sum(map(int.__mul__, numbers, weights))
    return xxhash.xxh3_128_digest(struct.pack(f"!{COLUMNS}q", *(signed(total, 64) for total in totals)))


WEIGHTS = [signed(mixed(place) | 1, 8) for place in range(ROW * COLUMNS)]


@pytest.mark.parametrize("nbytes", [1, 5, ROW - 1, ROW, ROW + 1, LEAST_ROWS * ROW, LEAST_ROWS * ROW + 4097])
def test_it_is_what_it_is_said_to_be(sums: Sums, nbytes: int) -> None:
    data = drawn(nbytes, nbytes)
    assert of(sums, data) == by_definition(data)


def test_of_nothing_it_is_the_hash_of_zeros(sums: Sums) -> None:
    assert digest(sums.begin(torch.empty(0, dtype=torch.uint8), lambda: None)) == by_definition(b"")


def test_many_rows_are_summed_up_in_pieces(sums: Sums, data: bytearray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of(sums, data)
    monkeypatch.setattr("shared.kv.device_sums.CHUNK_ROWS", LEAST_ROWS)
    assert of(sums, data) == whole


def test_the_product_by_floating_point_is_as_exact() -> None:
    extremes = torch.tensor([-128, 127, -1, 1], dtype=torch.int8)
    drawing = torch.Generator().manual_seed(3)
    columns = extremes[torch.randint(0, 4, (COLUMNS, ROW), generator=drawing)].t()
    rows = extremes[torch.randint(0, 4, (5000, ROW), generator=drawing)]
    rows[:2], rows[2] = extremes[0], extremes[1]
    expected = integer_product(CPU)(rows, columns)
    assert torch.equal(float_product(rows, columns), expected)
    assert expected[7].tolist() == (rows[7].long() @ columns.long()).tolist()


def test_the_weights_are_odd_and_no_two_rows_have_equal_ones() -> None:
    weights = mixed_numbers(1 << 17, CPU)
    assert len(weights.unique()) == 1 << 17
    assert all(weight % 2 for weight in WEIGHTS)


def flip(*bits: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        for bit in bits:
            data[bit // 8] ^= 1 << bit % 8

    return change


def swap(one: int, other: int, nbytes: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        here, there = data[one : one + nbytes], data[other : other + nbytes]
        data[one : one + nbytes], data[other : other + nbytes] = there, here

    return change


def fill(start: int, stop: int, byte: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[start:stop] = byte * (stop - start)

    return change


@pytest.mark.parametrize(
    "accident",
    [
        flip(0),
        flip(7),
        flip(8 * (LARGEST - 1)),
        flip(7, 15),
        flip(63, 127),
        flip(7, 8 * ROW + 7),
        swap(0, 1, 1),
        swap(0, 2, 2),
        swap(0, ROW, ROW),
        swap(ROW, LEAST_ROWS * ROW, 16 * ROW),
        fill(ROW - 64, ROW + 64, b"\0"),
        fill(3 * LEAST_ROWS * ROW, LARGEST, b"\0"),
        fill(0, LARGEST, b"\xff"),
    ],
)
def test_an_accident_changes_it(sums: Sums, data: bytearray, accident: Callable[[bytearray], None]) -> None:
    changed = bytearray(data)
    accident(changed)
    assert changed != data
    assert of(sums, changed) != of(sums, data)
    assert of(sums, bytearray(data)) == of(sums, data)


def test_whoever_is_not_wanted_any_more_stops_between_two_pieces(
    sums: Sums, data: bytearray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.kv.device_sums.CHUNK_ROWS", LEAST_ROWS)
    seen: list[int] = []

    def still_wanted() -> None:
        seen.append(1)
        if len(seen) == 2:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        sums.begin(torch.tensor(data, dtype=torch.uint8), still_wanted)
    assert len(seen) == 2
