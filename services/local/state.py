"""The state directory: who runs the local cluster, how to reach it, where its logs lie.

One cluster per directory, guarded by a lock that the kernel drops when its holder dies, however it dies. What is
written in `cluster.json` holds credentials and is readable by its owner only.
"""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from shared.errors import BatonError, Unavailable

DEFAULT = "~/.local/state/baton"


class AlreadyRunning(BatonError):
    """Raised when another `baton up` holds the state directory."""


class NotRunning(Unavailable):
    """Raised when no cluster runs in the state directory."""


class Cluster(msgspec.Struct, frozen=True):
    """What other commands need to reach the cluster. Passwords are inside the URLs."""

    pid: int  # of `baton up`
    url: str  # of the gateways, with /v1
    gateways: list[str]  # the ports that gateways listen on, with /v1; several may share one
    dashboard: str
    nats: str  # for direct clients
    nats_operator: str
    nats_prefix: str
    redis: str
    nats_clients: dict[str, str] = {}  # for those that have a user of their own


def directory(environ: Mapping[str, str]) -> Path:
    """Find the state directory: `BATON_STATE_DIR`, or the user's default one."""
    return Path(environ.get("BATON_STATE_DIR") or DEFAULT).expanduser().absolute()


class StateDirectory(AbstractContextManager["StateDirectory"]):
    """The directory, held by this process alone between enter and exit. Raises AlreadyRunning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self._lock: int | None = None

    def __enter__(self) -> Self:
        try:
            self.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reason = f"The state directory {self.path} cannot be used ({error}); name another one in BATON_STATE_DIR."
            raise BatonError(reason) from error
        if not _locked(lock):
            os.close(lock)
            raise AlreadyRunning(
                f"A cluster already runs in {self.path}; stop it first, or set BATON_STATE_DIR to another directory."
            )
        self._lock = lock
        self.forget()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def private(self, name: str, text: str) -> Path:
        """Write a file that only its owner may read, in one step: a reader sees the old one or the new one."""
        target, draft = self.path / name, self.path / f".{name}.new"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(target)
        return target

    def publish(self, cluster: Cluster) -> None:
        """Tell other commands how to reach the cluster."""
        self.private("cluster.json", json.dumps(msgspec.to_builtins(cluster), indent=2) + "\n")

    def forget(self) -> None:
        """Remove what an earlier cluster left."""
        (self.path / "cluster.json").unlink(missing_ok=True)


def running(path: Path) -> Cluster:
    """Read how to reach the cluster of a state directory. Raises NotRunning when there is none."""
    absent = NotRunning(
        f"No cluster runs in {path}; start one with `baton up`, or set BATON_STATE_DIR to the directory of another."
    )
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        raise absent from None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        pass  # held: its owner lives
    else:
        raise absent  # whatever lies there was left by a cluster that was killed
    finally:
        os.close(lock)
    try:
        return msgspec.json.decode((path / "cluster.json").read_bytes(), type=Cluster)
    except FileNotFoundError:
        raise NotRunning(f"The cluster in {path} is still starting; try again in a moment.") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise NotRunning(f"The file {path / 'cluster.json'} cannot be read ({error}).") from error


def _locked(lock: int, patience_s: float = 0.2) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)  # a `baton status` may hold it for the moment it takes to look
        else:
            return True
