"""`baton up` starts and ends instances as the monitor's provisioner asks, over the socket in the state directory."""

import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.local.children import Command
from services.local.cluster import LocalCluster
from services.local.plan import Links, Plan, Start, Wishes
from services.local.state import StateDirectory
from services.local.supply import Supply
from services.monitor.provisioners.local import LocalProvisioner
from shared.config import MonitorSettings
from shared.errors import ConfigError, LinkLost, Overloaded, Unavailable
from shared.local_supply import OPTION, SOCKET, Supplied
from tests.waiting import until

SLEEPER = (
    "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(600)"
)


class Sleepers(Plan):
    """The plan of a cluster whose instances only sleep."""

    def command(self, start: Start, links: Links, logs: Path) -> Command:
        assert links is not None
        return Command(start.id, [sys.executable, "-c", SLEEPER], dict(os.environ), logs / f"{start.id}.log", logs)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    environ = {"BATON_FLEET__DRAIN_S": "0.2", "BATON_FLEET__STOP_S": "0.5"}
    with StateDirectory(tmp_path / ("long-name-" * 12)) as state:  # longer than the address of a socket may be
        made = LocalCluster(Sleepers(Wishes(), environ), state, lambda _: None)
        await made.take_wishes()
        yield made
        await made.stop()


def _provisioner(cluster: LocalCluster, most: int = 3) -> LocalProvisioner:
    options = {OPTION: str(cluster.state.path)}
    return LocalProvisioner(MonitorSettings(provisioner="local", most_instances=most, provisioner_options=options))


async def test_what_is_missing_is_started_once_until_it_is_seen(cluster: LocalCluster) -> None:
    asks = _provisioner(cluster)
    assert await asks.want(2, []) == ["standby-1", "standby-2"]
    assert await asks.want(2, []) == [], "both are on their way"
    assert await asks.want(2, ["standby-1"]) == ["standby-3"], "one has come, two more are wanted, one is on its way"
    assert sorted(cluster.names) == ["standby-1", "standby-2", "standby-3"]


async def test_each_substitute_has_devices_of_its_own_and_waits_where_none_is_free(tmp_path: Path) -> None:
    environ = {
        "BATON_FLEET__STOP_S": "0.5",
        "BATON_FLEET__DRAIN_S": "0.2",
        "BATON_INSTANCE__DEVICES": "npu:0-3",
        "BATON_SCENARIO__CHAT__ENGINE": "vllm",
        "BATON_SCENARIO__CHAT__ENGINE_OPTIONS__TENSOR_PARALLEL_SIZE": "2",
        "BATON_SCENARIO__CHAT__PREFILL": "1",
    }

    def devices(cluster: LocalCluster) -> dict[str, str]:
        return {child.name: child.command.env["ASCEND_RT_VISIBLE_DEVICES"] for child in cluster._children}

    with StateDirectory(tmp_path) as state:
        cluster = LocalCluster(Sleepers(Wishes(standby=0), environ), state, lambda _: None)
        await cluster.take_wishes()
        asks = _provisioner(cluster, most=9)
        with pytest.raises(Overloaded, match=r"1 more instances are needed, but of instance.devices fewer than 2 are"):
            await asks.want(3, [])
        assert devices(cluster) == {"standby-1": "0,1", "standby-2": "2,3"}
        cluster._ready = True  # from here on what dies is replaced
        next(child for child in cluster._children if child.name == "standby-1").kill()
        await until(lambda: len(cluster.names) == 2 and "standby-1" not in cluster.names, "a substitute")
        assert sorted(devices(cluster).values()) == ["0,1", "2,3"]
        assert devices(cluster)["standby-2"] == "2,3"
        await asks.release("standby-2")
        await until(lambda: "standby-2" not in cluster.names, "its end")
        assert list(devices(cluster).values()) == ["0,1"]
        assert len(await asks.want(1, cluster.names)) == 1
        assert sorted(devices(cluster).values()) == ["0,1", "2,3"]
        await cluster.stop()


async def test_no_more_run_than_allowed(cluster: LocalCluster) -> None:
    asks = _provisioner(cluster, most=2)
    with pytest.raises(Overloaded, match="1 more instances are needed, but"):
        await asks.want(3, [])
    assert sorted(cluster.names) == ["standby-1", "standby-2"]


async def test_a_released_instance_ends_and_nothing_takes_its_place(cluster: LocalCluster) -> None:
    asks = _provisioner(cluster)
    await asks.want(2, [])
    await until(lambda: "up" in (cluster.state.logs / "standby-1.log").read_text(), "it can hear a signal")
    await asks.release("standby-1")
    await asks.release("standby-1")
    await asks.release("nobody")
    await until(lambda: cluster.names == ["standby-2"], "it has ended")
    assert await asks.want(1, ["standby-2"]) == ["standby-3"], "a name is never used again"


async def test_what_is_no_question_is_answered_and_changes_nothing(cluster: LocalCluster) -> None:
    path = cluster.state.path / SOCKET
    assert path.stat().st_mode & 0o777 == 0o600
    asks = _provisioner(cluster)
    for bad in (b"\n", b"{}\n", b'{"ask":"want","missing":"many"}\n', b"\xff\xfe\n"):
        answer = await asks._exchange(bad)
        assert b"no question of ours" in answer
    assert cluster.names == []


async def test_a_cluster_that_stops_gives_nothing_more(cluster: LocalCluster) -> None:
    asks = _provisioner(cluster)
    assert await asks.want(1, []) == ["standby-1"]
    await cluster.stop()
    with pytest.raises(LinkLost, match="`baton up` does not answer"):
        await asks.want(1, [])
    await cluster.take_wishes()
    with pytest.raises(Unavailable, match="the cluster stops"):
        await asks.want(1, [])


def test_the_option_is_needed_and_no_other_is_known() -> None:
    with pytest.raises(ConfigError) as caught:
        LocalProvisioner(MonitorSettings(provisioner="local", provisioner_options={"path": "x"}))
    assert len(caught.value.faults) == 2


async def test_a_socket_left_by_a_killed_cluster_is_no_hindrance(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / SOCKET))
    supply = Supply(tmp_path, lambda _: Supplied(["one"]))
    await supply.open()
    options = {OPTION: str(tmp_path)}
    asks = LocalProvisioner(MonitorSettings(provisioner="local", provisioner_options=options))
    assert await asks.want(1, []) == ["one"]
    await supply.close()
