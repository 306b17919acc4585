"""The provisioner of Kubernetes: scales one Deployment of standbys, and shows in labels what each pod has become.

A pod is an instance, and bears its name. Kubernetes chooses who goes when a Deployment shrinks; what is released is
made the cheapest to lose first. Nobody else may scale the Deployment: no autoscaler, no `replicas` in a manifest.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from services.monitor.provisioners import ARRIVE_S, Place, check_options
from shared.config import MonitorSettings
from shared.errors import ConfigError, LinkLost, Overloaded, Unavailable

try:
    from aiohttp import ClientError
    from kubernetes_asyncio import client, config
    from kubernetes_asyncio.client import ApiException
except ImportError as error:  # pragma: no cover  # of an installation without the extra
    raise ConfigError(["monitor.provisioner = kubernetes needs the extra: pip install 'baton[kubernetes]'"]) from error

OPTIONS: Final = {"deployment", "namespace", "kubeconfig", "context"}
OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
COST: Final = "controller.kubernetes.io/pod-deletion-cost"
RELEASED: Final = "baton.released"
LABELS: Final = ("baton.role", "baton.scenario", "baton.group")
CHEAPEST: Final = "-1000000"
CALL_S: Final = 8.0
SOON_S: Final = 5.0
"""For the Deployment's controller to make a pod, or to begin to end one."""
LOOK_S: Final = 0.1
NOT_FOUND: Final = 404


class KubernetesProvisioner:
    """Pods of one Deployment. See Provisioner."""

    def __init__(self, settings: MonitorSettings) -> None:
        options = check_options(settings, OPTIONS)
        self._name = options.get("deployment") or "standby"
        self._namespace = options.get("namespace", "")
        self._kubeconfig = options.get("kubeconfig", "")
        self._context = options.get("context") or None
        self._most = settings.most_instances
        self._api: client.ApiClient | None = None
        self._selector: dict[str, str] = {}

    async def open(self) -> None:
        """Sign in, and find the Deployment."""
        if self._api is None:
            self._api = client.ApiClient(await self._configuration())
        async with _asking("read", f"deployment {self._name}"):
            found = await self._apps.read_namespaced_deployment(self._name, self._namespace, _request_timeout=CALL_S)
        if found.spec.selector.match_expressions or not found.spec.selector.match_labels:
            raise ConfigError([f"deployment {self._name} must select its pods by labels alone (matchLabels)"])
        self._selector = dict(found.spec.selector.match_labels)

    async def want(self, missing: int, seen: Collection[str]) -> list[str]:
        """Grow the Deployment; see Provisioner.

        Pods that its controller has still to make, or that wait for a node, are on their way, too, however long that
        takes: another one would only wait beside them.
        """
        scale, pods = await self._scale(), await self._pods()
        wanted: int = scale.spec.replicas or 0
        waiting = [pod for pod in pods.values() if not pod.spec.node_name]
        coming = [
            name
            for name, pod in pods.items()
            if name not in seen and (_age_s(pod) < ARRIVE_S or not pod.spec.node_name)
        ]
        short = missing - len(coming) - max(0, wanted - len(pods))
        number = max(0, min(short, self._most - max(wanted, len(pods))))
        if number:
            await self._rescale(scale, wanted + number)
        started = await self._new(set(pods), number)
        if short > number:
            raise Overloaded(
                f"{short - number} more instances are needed, but monitor.most_instances is {self._most}", reason="most"
            )
        late = [pod for pod in waiting if _age_s(pod) >= ARRIVE_S]
        if late:
            raise Overloaded(f"{len(late)} pods wait for a node: {_unscheduled(late[0])}", reason="nodes")
        return started

    async def release(self, instance: str) -> None:
        """Shrink the Deployment by this pod; see Provisioner."""
        pod = (await self._pods()).get(instance)
        if pod is None:
            return
        if RELEASED not in (pod.metadata.annotations or {}):
            await self._annotate(instance, {COST: CHEAPEST, RELEASED: "true"})
            scale = await self._scale()
            await self._rescale(scale, max(0, (scale.spec.replicas or 0) - 1))
        if not await self._leaves(instance):
            # another one, which was not ready yet, was cheaper still: a new pod comes for it
            async with _asking("delete", f"pod {instance}"):
                await self._core.delete_namespaced_pod(instance, self._namespace, _request_timeout=CALL_S)

    async def show(self, places: Mapping[str, Place]) -> None:
        """Label the pods with what their instances are: `kubectl get pods -L baton.role,baton.scenario,baton.group`."""
        for name, pod in (await self._pods()).items():
            if name not in places:
                continue
            labels = {label: value or None for label, value in zip(LABELS, places[name], strict=True)}
            now = pod.metadata.labels or {}
            if any(now.get(label) != value for label, value in labels.items()):
                async with _asking("label", f"pod {name}"):
                    await self._core.patch_namespaced_pod(
                        name,
                        self._namespace,
                        {"metadata": {"labels": labels}},
                        _request_timeout=CALL_S,
                    )

    async def close(self) -> None:
        """Hang up."""
        api, self._api = self._api, None
        if api is not None:
            await api.close()

    @property
    def _core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self._api)

    @property
    def _apps(self) -> client.AppsV1Api:
        return client.AppsV1Api(self._api)

    async def _configuration(self) -> client.Configuration:
        made = client.Configuration()
        try:
            if self._kubeconfig:
                loader: Any = await config.load_kube_config(self._kubeconfig, self._context, made, persist_config=False)
                self._namespace = self._namespace or loader.current_context["context"].get("namespace") or "default"
            else:
                config.load_incluster_config(made)  # type: ignore[no-untyped-call]
                self._namespace = self._namespace or OWN_NAMESPACE.read_text(encoding="utf-8").strip()
        except (config.ConfigException, OSError) as error:
            where = self._kubeconfig or "this is no pod with a service account, and no kubeconfig is given"
            raise ConfigError([f"monitor.provisioner_options, of kubernetes: {where}: {error}"]) from error
        return made

    async def _scale(self) -> Any:  # noqa: ANN401  # the library's
        async with _asking("read", f"the scale of deployment {self._name}"):
            return await self._apps.read_namespaced_deployment_scale(
                self._name, self._namespace, _request_timeout=CALL_S
            )

    async def _rescale(self, scale: Any, replicas: int) -> None:  # noqa: ANN401  # the library's
        """Change the count, unless somebody changed it meanwhile."""
        body = {"metadata": {"resourceVersion": scale.metadata.resource_version}, "spec": {"replicas": replicas}}
        async with _asking("scale", f"deployment {self._name}"):
            await self._apps.patch_namespaced_deployment_scale(
                self._name, self._namespace, body, _request_timeout=CALL_S
            )

    async def _annotate(self, name: str, annotations: dict[str, str]) -> None:
        body = {"metadata": {"annotations": annotations}}
        async with _asking("annotate", f"pod {name}"):
            await self._core.patch_namespaced_pod(name, self._namespace, body, _request_timeout=CALL_S)

    async def _pods(self) -> dict[str, Any]:
        """Find our pods that live and are not about to end."""
        selector = ",".join(f"{name}={value}" for name, value in self._selector.items())
        async with _asking("list", "pods"):
            found: Any = await self._core.list_namespaced_pod(
                self._namespace, label_selector=selector, _request_timeout=CALL_S
            )
        return {
            pod.metadata.name: pod
            for pod in found.items
            if pod.metadata.deletion_timestamp is None and pod.status.phase not in {"Failed", "Succeeded"}
        }

    async def _new(self, before: set[str], number: int) -> list[str]:
        """Wait a little for the names of pods that were asked for; those that come later are seen then."""
        names: set[str] = set()
        until = time.monotonic() + SOON_S
        while len(names) < number and time.monotonic() < until:
            names = set(await self._pods()) - before
            if len(names) < number:
                await asyncio.sleep(LOOK_S)
        return sorted(names)

    async def _leaves(self, name: str) -> bool:
        until = time.monotonic() + SOON_S
        while name in await self._pods():
            if time.monotonic() > until:
                return False
            await asyncio.sleep(LOOK_S)
        return True


def _unscheduled(pod: Any) -> str:  # noqa: ANN401  # the library's
    """Say why no node takes a pod, in Kubernetes' own words."""
    said = [one.message for one in pod.status.conditions or [] if one.type == "PodScheduled" and one.message]
    return said[0] if said else "it does not say why"


def _age_s(pod: Any) -> float:  # noqa: ANN401  # the library's
    return time.time() - float(pod.metadata.creation_timestamp.timestamp())


@asynccontextmanager
async def _asking(what: str, whom: str) -> AsyncIterator[None]:
    """Bound one call, and say in our words how it failed."""
    try:
        async with asyncio.timeout(CALL_S + 1):
            yield
    except ApiException as error:
        if error.status == NOT_FOUND and what in {"delete", "annotate", "label"}:
            return  # it has gone meanwhile
        raise Unavailable(f"Kubernetes refused to {what} {whom}: {error.status} {error.reason}") from error
    except (ClientError, OSError, TimeoutError) as error:
        raise LinkLost(f"the API of Kubernetes does not answer: {error!r}") from error
