"""The provisioner of a Docker engine, over HTTP to a small engine; a real one runs it in tests/e2e/test_compose.py."""

import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.monitor.provisioners import ARRIVE_S, make
from services.monitor.provisioners.docker import DockerProvisioner
from shared.config import MonitorSettings
from shared.errors import ConfigError, LinkLost, Overloaded, Unavailable
from tests.docker_engine import DockerEngine

LIKE = {
    "com.docker.compose.project": "shop",
    "com.docker.compose.service": "standby",
    "com.docker.compose.config-hash": "x",
}


@pytest.fixture
async def engine() -> AsyncIterator[DockerEngine]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path has to be short
        engine = await DockerEngine(Path(folder) / "engine").start()
        yield engine
        await engine.close()


@pytest.fixture
def shop(engine: DockerEngine) -> DockerEngine:
    """An engine with the standby of a compose project, and one of somebody else."""
    standby = engine.put("shop-standby-1", LIKE, Env=["A=1", "BATON_INSTANCE__ID=x"], Cmd=["standby"], User="10001")
    standby["HostConfig"] = {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "RestartPolicy": {"Name": "unless-stopped"},
        "PortBindings": {"1/tcp": []},
    }
    engine.put("other", {"baton.provisioned": "other", "baton.instance": "standby-9"}, "exited")
    return engine


@asynccontextmanager
async def provisioner(engine: DockerEngine, most: int = 8, **options: str) -> AsyncIterator[DockerProvisioner]:
    settings = MonitorSettings(
        provisioner="docker",
        most_instances=most,
        provisioner_options={"host": engine.host, "project": "shop"} | options,
    )
    made = make(settings)
    assert isinstance(made, DockerProvisioner)
    try:
        yield made
    finally:
        await made.close()
        await made.close()


async def test_a_new_container_is_like_the_projects_standby_under_a_name_of_its_own(shop: DockerEngine) -> None:
    async with provisioner(shop) as docker:
        await docker.open()
        [instance] = await docker.want(1, [])
    assert shop.states()[f"shop-{instance}"] == "running"
    assert shop.created == [
        {
            "Image": "baton",
            "Cmd": ["standby"],
            "User": "10001",
            "Env": ["A=1", f"BATON_INSTANCE__ID={instance}"],
            "Labels": {
                "baton.provisioned": "shop",
                "baton.instance": instance,
                "com.docker.compose.project": "shop",
                "com.docker.compose.service": "standby",
                "com.docker.compose.oneoff": "True",
            },
            "HostConfig": {
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "RestartPolicy": {"Name": "no"},
                "AutoRemove": False,
            },
            "NetworkingConfig": {"EndpointsConfig": {"shop_default": {}}},
        }
    ]


async def test_what_is_on_its_way_counts_until_it_is_late(shop: DockerEngine) -> None:
    async with provisioner(shop) as docker:
        await docker.open()
        first, second = await docker.want(2, [])
        assert await docker.want(2, []) == []
        assert await docker.want(1, [first]) == []  # the second is coming
        third = await docker.want(2, [first])
        assert len(third) == 1
        for one in shop.containers.values():
            one["Created"] -= ARRIVE_S + 1
        assert len(await docker.want(1, [first])) == 1
        assert f"shop-{second}" in shop.states()  # late is no proof that it is broken


async def test_no_more_run_than_may_and_what_fits_is_started(shop: DockerEngine) -> None:
    async with provisioner(shop, most=2) as docker:
        await docker.open()
        with pytest.raises(Overloaded, match=r"3 more instances are needed, but monitor.most_instances is 2") as caught:
            await docker.want(5, [])
        assert caught.value.reason == "most"
        assert list(shop.states().values()).count("running") == 1 + 2


async def test_what_has_ended_is_removed_and_nothing_of_others_is_touched(shop: DockerEngine) -> None:
    async with provisioner(shop) as docker:
        await docker.open()
        ended, kept = await docker.want(2, [])
        shop.containers[next(key for key in shop.containers if ended in key)]["State"]["Status"] = "exited"
        assert await docker.want(0, [kept]) == []
        await docker.release("standby-9")  # another cluster's
        await docker.release("shop-standby-1")
        assert shop.states() == {"shop-standby-1": "running", "other": "exited", f"shop-{kept}": "running"}
        await docker.release(kept)
        await docker.release(kept)
        assert set(shop.states()) == {"shop-standby-1", "other"}
    stops = [request for request in shop.requests if request.endswith("/stop")]
    assert len(stops) == 1


async def test_a_container_that_does_not_start_leaves_nothing_behind(shop: DockerEngine) -> None:
    async with provisioner(shop) as docker:
        await docker.open()
        shop.refuses["/start"] = (500, "no space left")
        with pytest.raises(Unavailable, match="refused to start a container: no space left"):
            await docker.want(1, [])
        assert set(shop.states()) == {"shop-standby-1", "other"}
        shop.refuses["/create"] = (404, "No such image: baton:latest")
        with pytest.raises(Unavailable, match="refused to create a container: No such image"):
            await docker.want(1, [])


async def test_the_monitor_finds_its_own_project(shop: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    own = shop.put("abcdef012345", LIKE | {"com.docker.compose.service": "monitor"})
    monkeypatch.setattr(socket, "gethostname", lambda: own["Id"][:12])
    async with provisioner(shop, project="") as docker:
        await docker.open()
        assert len(await docker.want(1, [])) == 1
    assert shop.created[0]["Labels"]["baton.provisioned"] == "shop"


async def test_options_stand_for_a_project(engine: DockerEngine, tmp_path: Path) -> None:
    environ = tmp_path / "env"
    environ.write_text("# passwords\nBATON_NATS__URL=nats://n=1\n\n")
    options = {
        "image": "baton:2",
        "env_file": str(environ),
        "network": "net",
        "command": "python -m 'services.standby'",
    }
    async with provisioner(engine, project="", cluster="one", **options) as docker:
        await docker.open()
        [instance] = await docker.want(1, [])
    assert engine.created == [
        {
            "Image": "baton:2",
            "Cmd": ["python", "-m", "services.standby"],
            "Env": ["BATON_NATS__URL=nats://n=1", f"BATON_INSTANCE__ID={instance}"],
            "Labels": {"baton.provisioned": "one", "baton.instance": instance},
            "HostConfig": {"NetworkMode": "net", "RestartPolicy": {"Name": "no"}, "AutoRemove": False},
            "NetworkingConfig": {"EndpointsConfig": {"net": {}}},
        }
    ]


async def test_wrong_options_are_named(engine: DockerEngine, tmp_path: Path) -> None:
    async with provisioner(engine, project="none") as docker:
        with pytest.raises(ConfigError, match="compose project 'none' has no service 'standby' to copy"):
            await docker.open()
    for options, fault in (
        ({"imege": "x"}, "there is no option 'imege'"),
        ({"env_file": str(tmp_path / "none")}, "env_file cannot be read"),
    ):
        with pytest.raises(ConfigError, match=fault):
            make(MonitorSettings(provisioner="docker", provisioner_options=options))
    secret = tmp_path / "env"
    secret.write_text("hunter2\n")
    with pytest.raises(ConfigError, match="entry 1 is not NAME=value") as caught:
        make(MonitorSettings(provisioner="docker", provisioner_options={"env_file": str(secret)}))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="host 'nowhere'"):
        await DockerProvisioner(MonitorSettings(provisioner_options={"host": "nowhere"})).open()


async def test_an_engine_that_is_away_is_a_link_that_is_lost(shop: DockerEngine) -> None:
    async with provisioner(shop) as docker:
        await docker.open()
        await shop.close()
        with pytest.raises(LinkLost, match="the Docker engine does not answer"):
            await docker.want(1, [])
