"""A device of the type `npu` without an NPU: PyTorch's slot for backends from outside, with the processor behind it.

torch_npu registers itself in the same slot (PrivateUse1) under the same name, so what the engine does with a device is
the same: tensors live on `npu:0`, mixing them with the host's raises, and what leaves must be copied. Each operator is
run on the processor and counted by its name. A plugin of pytest (`-p tests.npu_backend`): the slot can be taken once in
a process and is never given back.
"""

import sys
import types
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Self

import torch
from torch.utils import _pytree as tree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from shared.engine.torch_engine import device as engine_device

DEVICES: Final = 2
OPERATORS: Counter[str] = Counter()
"""How often each operator ran on the device."""
DTYPES: set[torch.dtype] = set()
"""Of all that was ever on the device."""
HOST_ANSWERS: Final = ("aten::_local_scalar_dense", "aten::equal")
MOVES: Final = ("aten::_to_copy", "aten::to")
"""In inference mode an operator comes whole, before torch takes it apart."""


class Stream:
    """Of a device that does everything at once."""

    def __init__(self, device: torch.device) -> None:
        _check(device)
        self.waited_for: list[Stream] = []
        self.synchronized = False

    def wait_stream(self, other: "Stream") -> None:
        self.waited_for.append(other)

    def synchronize(self) -> None:
        self.synchronized = True


class Event:
    """Comes when it is asked for the second time: whoever asks once and goes on is found out."""

    def __init__(self) -> None:
        self._asked = 0
        self._recorded = False

    def record(self, stream: Stream | None = None) -> None:
        self._recorded = True

    def query(self) -> bool:
        assert self._recorded
        self._asked += 1
        return self._asked > 1

    def synchronize(self) -> None:
        assert self._recorded


class Module(types.ModuleType):
    """`torch.npu`, as far as the engines use it."""

    Stream = Stream
    Event = Event
    synchronized = 0

    def current_stream(self, device: torch.device) -> Stream:
        return Stream(device)

    def stream(self, stream: Stream) -> AbstractContextManager[Stream]:
        return nullcontext(stream)

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return DEVICES

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        """The engine draws its own random numbers."""

    def set_device(self, device: torch.device) -> None:
        _check(device)

    def synchronize(self, device: torch.device) -> None:
        _check(device)
        self.synchronized += 1

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        _check(device)
        return 1 << 30, 1 << 31

    def empty_cache(self) -> None:
        """Nothing is kept."""


def _check(device: torch.device) -> None:
    if device.type != "npu" or (device.index or 0) >= DEVICES:
        raise RuntimeError(f"Invalid device ID: {device}")


class NpuTensor(torch.Tensor):
    """A tensor that says it is on the device; its numbers are in `raw`, on the processor."""

    raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type[Self], raw: torch.Tensor) -> Self:
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device="npu:0"
        )
        made.raw = raw
        DTYPES.add(raw.dtype)
        return made

    def data_ptr(self) -> int:
        """Where it lies, so that equal ones can be told."""
        return self.raw.data_ptr()

    def record_stream(self, stream: Stream) -> None:
        """Nothing is freed too early where everything is done at once."""

    def tolist(self) -> Any:
        """What a tensor of a real device does by itself."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator whose tensors are on the device, or whose result is to be."""
    name = operator._schema.name
    OPERATORS[name.removeprefix("aten::")] += 1
    leaves = tree.tree_leaves((args, kwargs))
    if name not in (*MOVES, "aten::copy_"):
        _on_one_device(name, leaves)
    plain_args, plain_kwargs = tree.tree_map(_plain, (args, kwargs))
    result = operator(*plain_args, **plain_kwargs)
    if name in HOST_ANSWERS or (name in MOVES and _leaves_device(args[0], leaves)):
        return result
    if name == "aten::copy_":
        return args[0]
    given = {id(leaf.raw): leaf for leaf in leaves if isinstance(leaf, NpuTensor)}
    return tree.tree_map(
        lambda one: given.get(id(one), NpuTensor(one)) if isinstance(one, torch.Tensor) else one, result
    )


def _leaves_device(source: Any, leaves: list[Any]) -> bool:
    targets = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    return targets[0].type == "cpu" if targets else not isinstance(source, NpuTensor)


def _on_one_device(name: str, leaves: list[Any]) -> None:
    """A number may come from the host; a tensor with dimensions must not."""
    strangers = [x for x in leaves if isinstance(x, torch.Tensor) and x.dim() and not isinstance(x, NpuTensor)]
    if strangers:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} was given one of the host")


def _plain(value: Any) -> Any:
    if isinstance(value, NpuTensor):
        return value.raw
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "npu" else value


def _pageable(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Host memory that is not pinned: only a real driver can do that."""
    return torch.empty(shape, dtype=dtype)


_setup_privateuseone_for_python_backend("npu", Module("torch.npu"))
_all = torch.library.Library("_", "IMPL")
_all.fallback(lambda operator, *args, **kwargs: run(operator, args, kwargs), "PrivateUse1")
_copy = torch.library.Library("aten", "IMPL")  # torch looks for this one by name when it makes a tensor from a list
_copy.impl("copy_", lambda *args, **kwargs: run(torch.ops.aten.copy_.default, args, kwargs), "PrivateUse1")
sys.modules["torch_npu"] = types.ModuleType("torch_npu")
engine_device.pinned = _pageable
