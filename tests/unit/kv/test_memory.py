"""Copies and checksums without the interpreter's lock: the bytes of a slice assignment, and the sum of all pieces."""

import mmap
import os

import pytest

from shared.kv import memory
from shared.kv.layout import checksum, chunk_ranges
from shared.kv.memory import address, copy, digesting


def test_memory_that_cannot_be_written_is_copied_from_and_never_to() -> None:
    fd = os.memfd_create("test")
    os.write(fd, bytes(range(256)) * 16)
    source = memoryview(mmap.mmap(fd, 4096, prot=mmap.PROT_READ))
    os.close(fd)
    target = memoryview(bytearray(100))
    copy(target, source[7:107])
    assert target == source[7:107]
    with pytest.raises(ValueError, match="cannot be copied"):
        copy(source[:100], target)
    with pytest.raises(ValueError, match="cannot be copied"):
        copy(target, source[:101])


def test_a_part_lies_where_it_begins() -> None:
    whole = memoryview(bytearray(100))
    assert address(whole[33:]) == address(whole) + 33


def test_the_buffer_is_free_once_its_address_is_known() -> None:
    held = bytearray(10)
    with memoryview(held) as view:
        address(view)
    held.append(1)  # raises while anything has it exported


@pytest.mark.parametrize("cores", [1, memory.CORES_BESIDE])
def test_a_checksum_beside_the_copying_is_that_of_all_pieces_in_order(
    monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    data = memoryview(bytearray(os.urandom(memory.LEAST_BESIDE_BYTES + 5)))
    with digesting(len(data)) as digest:
        for start, stop in chunk_ranges(len(data), 1 << 19):
            digest.update(data[start:stop])
        assert digest.digest() == checksum(data)


def test_a_copy_that_is_broken_off_leaves_nobody_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: memory.CORES_BESIDE)
    held = bytearray(memory.LEAST_BESIDE_BYTES)

    def broken_off() -> None:
        with memoryview(held) as data, digesting(len(data)) as digest:
            for _ in range(20):
                digest.update(data[:])
            raise ConnectionError("cut")

    with pytest.raises(ConnectionError):
        broken_off()
    held.append(1)
