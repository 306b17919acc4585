"""The few calls of NVIDIA's driver that carry device memory from one process to another: libcuda by ctypes.

Owns the library and the device's primary context, which torch computes in too. Memory comes from plain allocations, of
which alone a handle can be made, and never from torch's: that gives out parts of larger pieces, and counts what other
processes hold in files that a killed one leaves behind. Imports no torch. Every call makes the context the thread's.
"""

import ctypes
from typing import Any, Final

from shared.kv.device_arena import DeviceError

LIBRARY: Final = "libcuda.so.1"
HANDLE_BYTES: Final = 64
_LAZY_PEER_ACCESS: Final = 1


class _Handle(ctypes.Structure):
    _fields_ = [("reserved", ctypes.c_char * HANDLE_BYTES)]


class Driver:
    """One device, by its place among those that this process sees. Raises DeviceError where there is none."""

    def __init__(self, ordinal: int) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise DeviceError(f"{LIBRARY} cannot be loaded: {error}") from error
        self._context = ctypes.c_void_p()
        self._check("cuInit", 0)
        self._device = ctypes.c_int()
        self._check("cuDeviceGet", ctypes.byref(self._device), ordinal)
        self._check("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)

    def allocate(self, nbytes: int) -> int:
        """Device memory of one's own; its address."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(nbytes))
        return address.value

    def free(self, address: int) -> None:
        """Give `allocate`d memory back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def export(self, address: int) -> bytes:
        """By which another process opens `allocate`d memory: HANDLE_BYTES."""
        handle = _Handle()
        self._call("cuIpcGetMemHandle", ctypes.byref(handle), ctypes.c_uint64(address))
        return ctypes.string_at(ctypes.byref(handle), HANDLE_BYTES)

    def open(self, handle: bytes) -> int:
        """Open another process's memory, on whichever device of this host; its address here.

        The device need not be visible to us. Raises DeviceError where ours cannot reach it.
        """
        address = ctypes.c_uint64()
        passed = _Handle.from_buffer_copy(handle.ljust(HANDLE_BYTES, b"\0"))
        self._call("cuIpcOpenMemHandle_v2", ctypes.byref(address), passed, ctypes.c_uint(_LAZY_PEER_ACCESS))
        return address.value

    def close(self, address: int) -> None:
        """Let go of `open`ed memory."""
        self._call("cuIpcCloseMemHandle", ctypes.c_uint64(address))

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Begin a copy on the stream, between any two devices that reach each other."""
        addresses = ctypes.c_uint64(target), ctypes.c_uint64(source)
        self._call("cuMemcpyAsync", *addresses, ctypes.c_size_t(nbytes), ctypes.c_void_p(stream))

    def _call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401  whatever C takes
        self._check("cuCtxSetCurrent", self._context)
        self._check(name, *arguments)

    def _check(self, name: str, *arguments: Any) -> None:  # noqa: ANN401
        code: int = getattr(self._library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(text))
            raise DeviceError(f"{name}: {(text.value or b'error').decode()} ({code})")
