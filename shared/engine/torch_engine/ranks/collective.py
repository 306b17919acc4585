"""What the ranks of one engine compute together: sums and joined vocabularies, over NCCL, HCCL or gloo.

Owns the process group, one per engine and not torch's global one: two engines may live in one process. Every rank must
call the same in the same order; what becomes of a rank that does not is the crew's business.
"""

import os
import socket
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as c10d
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.linear import Linear
from shared.errors import EngineFailed

LOOPBACK: Final = "127.0.0.1"
JOIN_S: Final = 120.0
"""For all ranks to meet; the first use of several devices can take a minute."""
PAIR: Final = 2


class Group:
    """This rank among `world`; usable once it has joined."""

    def __init__(self, rank: int, world: int, device: Device, collective_s: float) -> None:
        self.rank = rank
        self.world = world
        self._device = device
        self._collective_s = collective_s
        self._ranks: Any = None
        self._aborted = False

    def join(self, port: int, listening: socket.socket | None = None) -> None:
        """Meet the others at the port; rank 0 brings the socket that listens there. Raises EngineFailed."""
        limit = timedelta(seconds=JOIN_S)
        where: dict[str, Any] = {"host_name": LOOPBACK, "port": port, "timeout": limit}
        if listening is not None:  # otherwise it would listen on every interface
            where |= {"is_master": True, "wait_for_workers": False, "master_listen_fd": listening.detach()}
        try:
            self._ranks = self._open(TCPStore(**where))
            self.sum(torch.ones(1, device=self._device.where))  # what is made at the first use is made now
            self._device.synchronize()
        except RuntimeError as error:
            raise EngineFailed(f"rank {self.rank} cannot join the others: {error}", fatal=True) from error

    def sum(self, x: Tensor) -> Tensor:
        """The sum of what every rank has in its place, which may overwrite x.

        On a steady device (docs/decisions/0008) in the order of the ranks: gloo's own order depends on where in x a
        number lies, so that a row would come out differently in other company. Of two numbers there is one sum.
        """
        if self._device.steady and self.world > PAIR:
            return self._all(x).sum(0)
        self._ranks.allreduce([x]).wait()
        return x

    def join_columns(self, x: Tensor, columns: int) -> Tensor:
        """[rows, part] of every rank, side by side; [rows, columns] without what makes the last parts up."""
        return self._all(x).transpose(0, 1).flatten(1)[:, :columns].contiguous()

    def abort(self) -> None:
        """End what the device waits for; from any thread. Where there is no such call, the ranks' end ends it."""
        if self._ranks is not None and self._device.where.type != "cpu" and not self._aborted:
            self._aborted = True
            self._ranks.abort()

    def close(self) -> None:
        """Let go of the others; nothing that was begun with them may be left. Idempotent."""
        self.abort()
        self._ranks = None

    def _all(self, x: Tensor) -> Tensor:
        """[world, *shape]."""
        out = x.new_empty((self.world * x.shape[0], *x.shape[1:]))
        self._ranks._allgather_base(out, x.contiguous()).wait()  # noqa: SLF001  the only form for one tensor
        return out.view(self.world, *x.shape)

    def _open(self, store: TCPStore) -> Any:  # noqa: ANN401  of three kinds, one of which torch does not know
        limit = timedelta(seconds=self._collective_s)
        match self._device.where.type:
            case "cuda":
                # The crew ends what hangs. By default NCCL's own watchdog would end the whole process.
                os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
                os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")  # all ranks are on this host
                options: Any = c10d.ProcessGroupNCCL.Options()
                options._timeout = limit  # noqa: SLF001
                return c10d.ProcessGroupNCCL(store, self.rank, self.world, options)
            case "npu":
                from torch_npu._C._distributed_c10d import ProcessGroupHCCL  # noqa: PLC0415

                options = ProcessGroupHCCL.Options()
                options._timeout = limit  # noqa: SLF001
                return ProcessGroupHCCL(store, self.rank, self.world, options)
            case _:
                options = c10d.ProcessGroupGloo._Options()  # type: ignore[attr-defined]  # noqa: SLF001
                options._timeout = limit  # noqa: SLF001
                options._devices = [c10d.ProcessGroupGloo.create_device(hostname=LOOPBACK)]  # noqa: SLF001
                return c10d.ProcessGroupGloo(store, self.rank, self.world, options)


class Summed:
    """A layer of whose inputs each rank has some: the sum over the ranks is its output."""

    def __init__(self, part: Linear, group: Group) -> None:
        self._part = part
        self._group = group

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self._group.sum(self._part(x))


class Joined:
    """A layer of whose `outputs` each rank has some, made up to equal parts."""

    def __init__(self, part: Linear, group: Group, outputs: int) -> None:
        self._part = part
        self._group = group
        self._outputs = outputs

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self._group.join_columns(self._part(x), self._outputs)
