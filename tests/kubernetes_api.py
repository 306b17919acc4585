"""A small Kubernetes API with one Deployment and its controller, over HTTP; it keeps every request that it was sent."""

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

Json = dict[str, Any]
NAMESPACE = "baton"
NAME = "standby"
SELECTED = {"app": "baton", "part": "standby"}
PATCHES = "application/strategic-merge-patch+json"
TOKEN = "a-token"


class KubernetesApi:
    """What a provisioner needs of an API server. The controller acts at once, as far as `makes` and `ends` say."""

    def __init__(self) -> None:
        self.replicas = 0
        self.pods: dict[str, Json] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.makes = True
        self.ends = True
        self.conflict = False
        self.refuses: dict[str, int] = {}  # by what the path ends with
        self._version = 1
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self) -> "KubernetesApi":
        """Listen."""
        app = web.Application(middlewares=[self._noted])
        deployment = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}"
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        app.add_routes(
            [
                web.get(deployment, self._show),
                web.get(f"{deployment}/scale", self._scale),
                web.patch(f"{deployment}/scale", self._rescale),
                web.get(pods, self._list),
                web.patch(f"{pods}/{{name}}", self._change),
                web.delete(f"{pods}/{{name}}", self._delete),
            ]
        )
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def close(self) -> None:
        """Vanish."""
        if self._runner is not None:
            await self._runner.cleanup()

    def kubeconfig(self, path: Path) -> str:
        """Write how to sign in."""
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "here",
                    "contexts": [
                        {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}},
                    ],
                    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self._port}"}}],
                    "users": [{"name": "u", "user": {"token": TOKEN}}],
                }
            )
        )
        return str(path)

    def put(self, name: str, *, phase: str = "Running", age_s: float = 0.0, ready: bool = True, **labels: str) -> Json:
        """Have a pod; a pending one has no node yet."""
        unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: no GPU"}
        made = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)
        self.pods[name] = {
            "metadata": {
                "name": name,
                "labels": {**SELECTED, **labels},
                "annotations": {},
                "creationTimestamp": made.isoformat(),
            },
            "spec": {"containers": []} if phase == "Pending" else {"containers": [], "nodeName": "node-1"},
            "status": {"phase": phase, "conditions": [unscheduled] if phase == "Pending" else []},
            "ready": ready,
        }
        return self.pods[name]

    def changes(self) -> list[tuple[str, str, Any]]:
        """All requests that changed something: method, path within the namespace, body."""
        return [
            (method, path.rpartition(f"/{NAMESPACE}/")[2], body)
            for method, path, body in self.requests
            if method != "GET"
        ]

    def control(self) -> None:
        """Do what the Deployment's controller does."""
        while self.makes and len(self.pods) < self.replicas:
            self.put(f"{NAME}-{next(self._numbers)}", phase="Pending", ready=False)
        while self.ends and len(self.pods) > self.replicas:

            def order(name: str) -> tuple[bool, int]:
                cost = self.pods[name]["metadata"]["annotations"].get("controller.kubernetes.io/pod-deletion-cost", "0")
                return self.pods[name]["ready"], int(cost)

            del self.pods[min(self.pods, key=order)]

    @web.middleware
    async def _noted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.json_response({"reason": "Unauthorized"}, status=401)
        body = await request.json() if request.can_read_body else None
        if request.method == "PATCH":
            assert request.content_type == PATCHES
        self.requests.append((request.method, request.path, body))
        for end, status in self.refuses.items():
            if request.path.endswith(end):
                return web.json_response({"kind": "Status", "code": status}, status=status)
        response: web.StreamResponse = await handler(request)
        return response

    async def _show(self, request: web.Request) -> web.Response:
        spec = {"selector": {"matchLabels": SELECTED}, "template": {"metadata": {"labels": SELECTED}}}
        return web.json_response({"metadata": {"name": NAME}, "spec": spec})

    async def _scale(self, request: web.Request) -> web.Response:
        metadata = {"name": NAME, "resourceVersion": str(self._version)}
        return web.json_response({"metadata": metadata, "spec": {"replicas": self.replicas}})

    async def _rescale(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.conflict or body["metadata"]["resourceVersion"] != str(self._version):
            return web.json_response({"kind": "Status", "reason": "Conflict"}, status=409)
        self._version += 1
        self.replicas = body["spec"]["replicas"]
        self.control()
        return await self._scale(request)

    async def _list(self, request: web.Request) -> web.Response:
        assert request.query["labelSelector"] == "app=baton,part=standby"
        return web.json_response({"metadata": {}, "items": list(self.pods.values())})

    async def _change(self, request: web.Request) -> web.Response:
        pod = self.pods.get(request.match_info["name"])
        if pod is None:
            return web.json_response({"kind": "Status", "reason": "NotFound"}, status=404)
        for part, entries in (await request.json())["metadata"].items():
            for name, value in entries.items():
                if value is None:
                    pod["metadata"][part].pop(name, None)
                else:
                    pod["metadata"][part][name] = value
        return web.json_response(pod)

    async def _delete(self, request: web.Request) -> web.Response:
        if self.pods.pop(request.match_info["name"], None) is None:
            return web.json_response({"kind": "Status", "reason": "NotFound"}, status=404)
        self.control()
        return web.json_response({"metadata": {}})
