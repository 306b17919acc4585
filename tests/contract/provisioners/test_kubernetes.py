"""The provisioner of Kubernetes, over HTTP to a small API server: what it asks for, and what comes of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.monitor.provisioners import ARRIVE_S, kubernetes, make
from services.monitor.provisioners.kubernetes import KubernetesProvisioner
from shared.config import MonitorSettings
from shared.errors import ConfigError, LinkLost, Overloaded, Unavailable
from tests.kubernetes_api import KubernetesApi

SCALE = "deployments/standby/scale"


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesApi]:
    monkeypatch.setattr(kubernetes, "SOON_S", 0.2)
    monkeypatch.setattr(kubernetes, "LOOK_S", 0.01)
    api = await KubernetesApi().start()
    yield api
    await api.close()


@asynccontextmanager
async def provisioner(api: KubernetesApi, folder: Path, most: int = 8) -> AsyncIterator[KubernetesProvisioner]:
    options = {"kubeconfig": api.kubeconfig(folder / "kubeconfig")}
    made = make(MonitorSettings(provisioner="kubernetes", most_instances=most, provisioner_options=options))
    assert isinstance(made, KubernetesProvisioner)
    try:
        await made.open()
        yield made
    finally:
        await made.close()
        await made.close()


def scaled(version: int, replicas: int) -> tuple[str, str, Any]:
    return ("PATCH", SCALE, {"metadata": {"resourceVersion": str(version)}, "spec": {"replicas": replicas}})


async def test_what_is_missing_is_added_to_the_deployment_and_named(api: KubernetesApi, tmp_path: Path) -> None:
    api.replicas = 1
    api.control()
    async with provisioner(api, tmp_path) as pods:
        assert await pods.want(2, ["standby-1"]) == ["standby-2", "standby-3"]
        assert api.changes() == [scaled(1, 3)]
        assert await pods.want(2, ["standby-1"]) == []  # both are on their way
        assert await pods.want(1, ["standby-1", "standby-2"]) == []
        assert api.changes() == [scaled(1, 3)]


async def test_pods_that_are_not_even_made_are_on_their_way_and_late_ones_are_not(
    api: KubernetesApi, tmp_path: Path
) -> None:
    async with provisioner(api, tmp_path) as pods:
        api.makes = False  # a quota
        assert await pods.want(2, []) == []
        assert await pods.want(2, []) == []
        assert api.changes() == [scaled(1, 2)]
        for name in ("standby-a", "standby-b"):
            api.put(name, age_s=ARRIVE_S + 1)
        api.makes = True
        assert await pods.want(1, ["standby-a"]) == ["standby-1"]
        assert api.changes()[1:] == [scaled(2, 3)]


async def test_pods_that_no_node_takes_are_waited_for_and_told_of(api: KubernetesApi, tmp_path: Path) -> None:
    api.put("standby-a", phase="Pending", age_s=ARRIVE_S + 1)
    api.replicas = 1
    async with provisioner(api, tmp_path) as pods:
        with pytest.raises(Overloaded, match="1 pods wait for a node: 0/3 nodes are available: no GPU"):
            await pods.want(1, [])
        assert api.changes() == []


async def test_no_more_run_than_may_and_what_fits_is_started(api: KubernetesApi, tmp_path: Path) -> None:
    async with provisioner(api, tmp_path, most=2) as pods:
        with pytest.raises(Overloaded, match=r"1 more instances are needed, but monitor.most_instances is 2") as caught:
            await pods.want(3, [])
        assert caught.value.reason == "most"
        assert api.replicas == 2


async def test_a_released_pod_is_made_the_cheapest_to_lose(api: KubernetesApi, tmp_path: Path) -> None:
    for name in ("standby-a", "standby-b", "standby-c"):
        api.put(name)
    api.replicas = 3
    async with provisioner(api, tmp_path) as pods:
        await pods.release("standby-b")
        assert set(api.pods) == {"standby-a", "standby-c"}
        await pods.release("standby-b")
        await pods.release("elsewhere")
    cost = {"controller.kubernetes.io/pod-deletion-cost": "-1000000", "baton.released": "true"}
    assert api.changes() == [("PATCH", "pods/standby-b", {"metadata": {"annotations": cost}}), scaled(1, 2)]


async def test_where_an_unready_pod_was_lost_instead_the_released_one_still_goes(
    api: KubernetesApi, tmp_path: Path
) -> None:
    for name in ("standby-a", "standby-b"):
        api.put(name)
    api.put("standby-c", ready=False)
    api.replicas = 3
    async with provisioner(api, tmp_path) as pods:
        await pods.release("standby-b")
        assert set(api.pods) == {"standby-a", "standby-1"}
    assert api.changes()[-1] == ("DELETE", "pods/standby-b", None)


async def test_a_release_that_was_cut_off_does_not_shrink_the_deployment_twice(
    api: KubernetesApi, tmp_path: Path
) -> None:
    for name in ("standby-a", "standby-b"):
        api.put(name)
    api.replicas, api.ends = 2, False
    async with provisioner(api, tmp_path) as pods:
        api.refuses["pods/standby-b"] = 500  # annotated in vain
        with pytest.raises(Unavailable, match="Kubernetes refused to annotate pod standby-b: 500"):
            await pods.release("standby-b")
        assert api.replicas == 2
        api.refuses.clear()
        await pods.release("standby-b")
        api.put("standby-b")["metadata"]["annotations"] = {"baton.released": "true"}  # as if it were slow to go
        await pods.release("standby-b")
        assert api.replicas == 1
        assert set(api.pods) == {"standby-a"}


async def test_two_leaders_do_not_scale_over_each_other(api: KubernetesApi, tmp_path: Path) -> None:
    async with provisioner(api, tmp_path) as pods:
        api.conflict = True
        with pytest.raises(Unavailable, match="refused to scale deployment standby: 409"):
            await pods.want(1, [])
        assert api.replicas == 0


async def test_pods_show_what_they_have_become(api: KubernetesApi, tmp_path: Path) -> None:
    api.put("standby-a")
    api.put("standby-b", **{"baton.role": "decode", "baton.scenario": "chat", "baton.group": "g1"})
    api.put("standby-c")
    places = {
        "standby-a": ("prefill", "chat", "g1"),
        "standby-b": ("standby", "", ""),
        "gone": ("decode", "chat", "g1"),
    }
    async with provisioner(api, tmp_path) as pods:
        await pods.show(places)
        await pods.show(places)
    labels = {
        name: {key: value for key, value in pod["metadata"]["labels"].items() if "." in key}
        for name, pod in api.pods.items()
    }
    assert labels == {
        "standby-a": {"baton.role": "prefill", "baton.scenario": "chat", "baton.group": "g1"},
        "standby-b": {"baton.role": "standby"},
        "standby-c": {},
    }
    assert len(api.changes()) == 2


async def test_wrong_options_and_an_api_that_refuses_are_told(api: KubernetesApi, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no option 'deploymnt'"):
        make(MonitorSettings(provisioner="kubernetes", provisioner_options={"deploymnt": "x"}))
    outside = KubernetesProvisioner(MonitorSettings())
    with pytest.raises(ConfigError, match="no pod with a service account"):
        await outside.open()
    async with provisioner(api, tmp_path) as pods:
        api.refuses["pods"] = 403
        with pytest.raises(Unavailable, match="refused to list pods: 403"):
            await pods.want(1, [])
        api.refuses.clear()
        await api.close()
        with pytest.raises(LinkLost, match="the API of Kubernetes does not answer"):
            await pods.want(1, [])
