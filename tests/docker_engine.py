"""A small Docker engine over a unix socket: it keeps containers in memory, and every request that it was sent."""

import json
import time
from pathlib import Path
from typing import Any

from aiohttp import web

Json = dict[str, Any]
VERSION = {"Version": "27.0.0", "ApiVersion": "1.46", "MinAPIVersion": "1.24"}


class DockerEngine:
    """What a provisioner needs of an engine. Containers are as the real one's inspection shows them."""

    def __init__(self, socket: Path) -> None:
        self.host = f"unix://{socket}"
        self.containers: dict[str, Json] = {}
        self.requests: list[str] = []
        self.created: list[Json] = []
        self.refuses: dict[str, tuple[int, str]] = {}  # by what the path ends with
        self._socket = socket
        self._runner: web.AppRunner | None = None

    async def start(self) -> "DockerEngine":
        """Listen."""
        app = web.Application(middlewares=[self._noted])
        app.add_routes(
            [
                web.get("/version", self._version),
                web.get("/v1.46/version", self._version),
                web.get("/v1.46/containers/json", self._list),
                web.post("/v1.46/containers/create", self._create),
                web.get("/v1.46/containers/{id}/json", self._show),
                web.post("/v1.46/containers/{id}/start", self._begin),
                web.post("/v1.46/containers/{id}/stop", self._stop),
                web.delete("/v1.46/containers/{id}", self._delete),
            ]
        )
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket)).start()
        return self

    async def close(self) -> None:
        """Vanish."""
        if self._runner is not None:
            await self._runner.cleanup()

    def put(self, name: str, labels: dict[str, str], state: str = "running", **config: Any) -> Json:
        """Have a container, as somebody else made it."""
        made = {
            "Id": name.ljust(64, "0"),
            "Name": f"/{name}",
            "Created": time.time(),
            "State": {"Status": state},
            "Config": {"Labels": labels, "Image": "baton", **config},
            "HostConfig": {},
            "NetworkSettings": {"Networks": {"shop_default": {"IPAddress": "172.18.0.9"}}},
        }
        self.containers[made["Id"]] = made
        return made

    def states(self) -> dict[str, str]:
        """Each container's state, by name."""
        return {one["Name"][1:]: one["State"]["Status"] for one in self.containers.values()}

    @web.middleware
    async def _noted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path.removeprefix('/v1.46')}")
        for end, (status, message) in self.refuses.items():
            if request.path.endswith(end):
                return _fault(status, message)
        try:
            response: web.StreamResponse = await handler(request)
        except LookupError as error:
            return _fault(404, str(error))
        return response

    def _one(self, request: web.Request) -> Json:
        wanted = request.match_info["id"]
        for identity, one in self.containers.items():
            if identity.startswith(wanted):
                return one
        raise LookupError(f"No such container: {wanted}")

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response(VERSION)

    async def _list(self, request: web.Request) -> web.Response:
        assert request.query["all"] == "true"
        asked = [label.partition("=")[::2] for label in json.loads(request.query["filters"])["label"]]
        return web.json_response(
            [
                {
                    "Id": one["Id"],
                    "State": one["State"]["Status"],
                    "Created": int(one["Created"]),
                    "Labels": one["Config"]["Labels"],
                }
                for one in self.containers.values()
                if dict(asked).items() <= one["Config"]["Labels"].items()
            ]
        )

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self._one(request))

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.created.append(body)
        made = self.put(request.query["name"], body["Labels"], "created")
        return web.json_response({"Id": made["Id"], "Warnings": []}, status=201)

    async def _begin(self, request: web.Request) -> web.Response:
        self._one(request)["State"]["Status"] = "running"
        return web.Response(status=204)

    async def _stop(self, request: web.Request) -> web.Response:
        assert 0 < int(request.query["t"]) < 30
        self._one(request)["State"]["Status"] = "exited"
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        assert {request.query["force"], request.query["v"]} <= {"1", "true", "True"}  # what Go reads as true
        del self.containers[self._one(request)["Id"]]
        return web.Response(status=204)


def _fault(status: int, message: str) -> web.Response:
    body = json.dumps({"message": message}).encode()
    return web.Response(body=body, status=status, content_type="application/json")  # the engine names no character set
