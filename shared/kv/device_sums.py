"""The checksum of a KV buffer in a device's memory, computed there: a few numbers come to the host.

The buffer is read as rows of 4096 signed bytes, the last filled up with zeros. Each row is multiplied by a fixed matrix
of 16 columns of odd weights; the rows' results are added up modulo 2^64, each times an odd weight of its place. Of the
16 sums the hash that host memory uses makes the digest. So any wrong byte changes every sum, and what has moved, within
a row or between rows, changes some but for a chance of nothing. Integers: every device computes the same. Against
accidents, as the checksum in host memory is. A matrix product reads the memory once, as fast as the device can, where
sums of products take a pass each: measured on an H100, 0.2 ms for 512 MiB instead of 3.8. Imports torch.
"""

import struct
from collections.abc import Callable
from typing import Final

import torch
import xxhash
from torch import Tensor

ROW: Final = 4096
COLUMNS: Final = 16
CHUNK_ROWS: Final = 1 << 16
LEAST_ROWS: Final = 32
"""What is multiplied at once is a multiple of these: the integer kernels want more than 16 rows."""
_EXACT: Final = 1024  # so many products of two signed bytes add up to no more than float32 holds exactly
_EXACT_ROWS: Final = 4096
_PACKED: Final = struct.Struct(f"!{COLUMNS}q")
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # of splitmix64

Multiply = Callable[[Tensor, Tensor], Tensor]
"""int8 [rows, ROW] by int8 [ROW, COLUMNS]: int32 [rows, COLUMNS], exact."""


class Sums:
    """The weights, on one device, for buffers of up to so many bytes. Usable by any number of threads at once."""

    def __init__(self, where: torch.device, largest: int) -> None:
        mixed = mixed_numbers(ROW * COLUMNS, where)
        self._columns = ((mixed & 0xFF) | 1).to(torch.uint8).view(torch.int8).view(COLUMNS, ROW).t()
        self._rows = (mixed_numbers(-(-largest // ROW) + LEAST_ROWS, where) | 1)[:, None]
        self._multiply = integer_product(where)

    def begin(self, data: Tensor, still_wanted: Callable[[], None]) -> Tensor:
        """Begin to sum up uint8 data [bytes], 16-aligned: int64 [COLUMNS], for `digest` once it is computed."""
        whole = len(data) // ROW
        whole -= whole % LEAST_ROWS
        rows = data[: whole * ROW].view(torch.int8).view(whole, ROW)
        total = torch.zeros(COLUMNS, dtype=torch.int64, device=data.device)
        for start in range(0, whole, CHUNK_ROWS):
            still_wanted()
            total += self._of(rows[start : start + CHUNK_ROWS], start)
        rest = data[whole * ROW :]
        if len(rest):
            filled = torch.zeros(LEAST_ROWS * ROW, dtype=torch.int8, device=data.device)
            filled[: len(rest)] = rest.view(torch.int8)
            total += self._of(filled.view(LEAST_ROWS, ROW), whole)
        return total

    def _of(self, rows: Tensor, first: int) -> Tensor:
        weights = self._rows[first : first + len(rows)]
        return (self._multiply(rows, self._columns) * weights).sum(0)


def digest(sums: Tensor) -> bytes:
    """The sixteen bytes that the sums come to."""
    made: bytes = xxhash.xxh3_128_digest(_PACKED.pack(*sums.tolist()))
    return made


def integer_product(where: torch.device) -> Multiply:
    """The device's own product of small integers, or, where it has none, one by floating point, as exact."""
    multiply: Multiply = torch._int_mm  # noqa: SLF001  torch's only exact product of int8
    rows = torch.zeros((LEAST_ROWS, ROW), dtype=torch.int8, device=where)
    columns = torch.zeros((COLUMNS, ROW), dtype=torch.int8, device=where).t()
    try:
        multiply(rows, columns)
    except (NotImplementedError, RuntimeError):
        return float_product
    return multiply


def float_product(rows: Tensor, columns: Tensor) -> Tensor:
    """A Multiply by float32, which is exact for so few summands, with or without TF32."""
    parts = []
    for piece in torch.split(rows, _EXACT_ROWS):
        part = torch.zeros((len(piece), COLUMNS), dtype=torch.int32, device=rows.device)
        for start in range(0, ROW, _EXACT):
            factors = piece[:, start : start + _EXACT].float(), columns[start : start + _EXACT].float()
            part += torch.mm(*factors).to(torch.int32)
        parts.append(part)
    return torch.cat(parts)


def mixed_numbers(count: int, where: torch.device) -> Tensor:
    """The first numbers of splitmix64 from the state 0, as int64: without a pattern, and everywhere the same."""
    mixed = torch.arange(1, count + 1, dtype=torch.int64, device=where) * _signed(_STEP)
    mixed = (mixed ^ _shifted(mixed, 30)) * _signed(_FIRST)
    mixed = (mixed ^ _shifted(mixed, 27)) * _signed(_SECOND)
    return mixed ^ _shifted(mixed, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """To the right, with zeros coming in."""
    return (numbers >> bits) & ((1 << 64 - bits) - 1)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
