"""Copies between two pieces of memory, and checksums beside them, without the interpreter's lock.

A slice assignment holds the lock while it copies, and so everything else that this process does. Owns nothing: the
caller keeps both pieces mapped until a call returns.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Final, Protocol

from shared.kv.layout import Checksum

CORES_BESIDE: Final = 4
"""With so many cores a checksum is computed beside the copying, one piece behind; with fewer there is none to spare."""
LEAST_BESIDE_BYTES: Final = 8 << 20
"""Below it, a further thread costs about what it saves."""


class Digest(Protocol):
    """Takes pieces in order."""

    def update(self, piece: memoryview, /) -> object:
        """The next piece, which nobody writes any more."""
        ...

    def digest(self) -> bytes:
        """The checksum of all of them."""
        ...


class _Buffer(ctypes.Structure):
    """Py_buffer of the C interface: the only way to the address of memory that cannot be written."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address(view: memoryview) -> int:
    """Of its first byte, in this process; valid while what it is a view of is mapped."""
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
    try:
        return int(buffer.buf)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def copy(target: memoryview, source: memoryview) -> None:
    """Copy all of the source to the target, which is as long and writable."""
    if len(target) != len(source) or target.readonly:
        raise ValueError(f"{len(source)} bytes cannot be copied to {len(target)}")
    ctypes.memmove(address(target), address(source), len(source))


@contextmanager
def digesting(nbytes: int) -> Iterator[Digest]:
    """A checksum of so many bytes: computed beside the caller's copying where that helps, else by the caller."""
    if nbytes < LEAST_BESIDE_BYTES or (os.cpu_count() or 1) < CORES_BESIDE:
        yield Checksum()
        return
    beside = _Beside()
    try:
        yield beside
    finally:
        beside.end()


class _Beside:
    """A Digest in a thread of its own."""

    def __init__(self) -> None:
        self._sum = Checksum()
        self._pieces: SimpleQueue[memoryview | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="kv-sum", daemon=True)
        self._thread.start()

    def update(self, piece: memoryview) -> None:
        """See Digest. The piece stays open until `end`."""
        self._pieces.put(piece)

    def digest(self) -> bytes:
        """See Digest."""
        self.end()
        return self._sum.digest()

    def end(self) -> None:
        """Return when no piece is read any more. Idempotent."""
        self._pieces.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            with piece:
                self._sum.update(piece)
