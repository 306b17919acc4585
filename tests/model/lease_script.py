"""The scripts of `shared.leases` in Python: what Redis does with them, as a function of what it holds.

`test_lease_script` runs both on random sequences against a real server, so that the two cannot drift apart.
"""

from typing import NamedTuple


class Held(NamedTuple):
    """A lease that somebody holds."""

    owner: str
    boot: int
    counter: int


class Store(NamedTuple):
    """What Redis holds of one lease: the lease, the fence's counter, the boot number and whose run it is of."""

    lease: Held | None = None
    fence: int = 0
    boot: int = 0
    run: str = ""


class Answer(NamedTuple):
    """What TAKE returns."""

    owner: str
    boot: int
    counter: int
    created: bool


def take(store: Store, owner: str, known_boot: int, *, time: int, run: str) -> tuple[Answer, Store]:
    """TAKE, when the server's clock shows `time`, in microseconds. The ttl is the caller's to keep."""
    if store.lease is not None:
        return Answer(*store.lease, created=False), store
    boot = store.boot
    if store.run != run or boot < known_boot:
        boot = max(time, boot + 1, known_boot + 1)
        store = store._replace(boot=boot, run=run)
    lease = Held(owner, boot, store.fence + 1)
    return Answer(*lease, created=True), store._replace(lease=lease, fence=lease.counter)


def release(store: Store, owner: str) -> tuple[int, Store]:
    """RELEASE."""
    if store.lease is not None and store.lease.owner == owner:
        return 1, store._replace(lease=None)
    return 0, store
