"""The monitor's face: a page for people at /, JSON at /status, metrics at /metrics. Read only, no build step.

Whatever it shows is escaped.
"""

import base64
import hashlib
from collections.abc import Callable
from html import escape
from pathlib import Path

from aiohttp import web

from shared.errors import LinkLost
from shared.health import PROMETHEUS_TEXT
from shared.pages import Pages
from shared.report import InstanceEntry, Report, ScenarioEntry
from shared.telemetry import Telemetry

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
SCRIPT = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
COLUMNS = ("Instance", "Role", "Scenario", "Group", "State", "Load", "Epoch", "Process")


class View:
    """Serves what `report` returns. `leading` says whether this monitor leads."""

    def __init__(
        self, instance: str, telemetry: Telemetry, report: Callable[[], Report], leading: Callable[[], bool]
    ) -> None:
        self._instance = instance
        self._telemetry = telemetry
        self._report = report
        self._leading = leading
        self._pages = Pages(
            [web.get("/", self._page), web.get("/status", self._status), web.get("/metrics", self._metrics)]
        )

    async def open(self, host: str, port: int) -> None:
        """Listen. Raises LinkLost when the port cannot be had."""
        try:
            await self._pages.open(host, port)
        except OSError as error:
            raise LinkLost(f"cannot listen on {host}:{port} for the dashboard: {error.strerror}") from error

    async def close(self) -> None:
        """Stop listening; idempotent."""
        await self._pages.close()

    async def _page(self, _request: web.Request) -> web.Response:
        text = page(self._report(), self._instance, leading=self._leading())
        return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response({**self._report(), "monitor": self._instance, "leading": self._leading()})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._telemetry.exposition(), headers={"Content-Type": PROMETHEUS_TEXT})


def page(report: Report, monitor: str, *, leading: bool) -> str:
    """Write the page."""
    instances = report["instances"]
    ready = sum(1 for one in instances if one["state"] == "ready")
    rows = "".join(map(_row, instances)) or f'<tr><td colspan="{len(COLUMNS)}">Nobody has reported yet.</td></tr>'
    seen_by = f"{escape(monitor)}{'' if leading else ', which does not lead'}"
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Baton: {ready} of {len(instances)} ready</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>Baton</h1>
<p>{ready} of {len(instances)} instances ready, as seen by {seen_by}</p>
</header>
{"".join(map(_scenario, report["scenarios"])) or "<p>No scenario has a map yet.</p>"}
<h2>Instances</h2>
<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
<footer><a href="/status">status</a> <a href="/metrics">metrics</a></footer>
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _scenario(scenario: ScenarioEntry) -> str:
    groups = "".join(
        f"<div><h3>{escape(group['name'])}</h3><dl>"
        f"<dt>prefill</dt><dd>{_members(group['prefill'])}</dd>"
        f"<dt>decode</dt><dd>{_members(group['decode'])}</dd></dl></div>"
        for group in scenario["groups"]
    )
    about = f"{escape(scenario['ratio'])} prefill to decode, map version {scenario['version']}"
    return (
        f"<section><h2>{escape(scenario['name'])} <small>{about}</small></h2><div class=groups>{groups}</div></section>"
    )


def _members(names: list[str]) -> str:
    return " ".join(f"<code>{escape(name)}</code>" for name in names) or "<em>nobody</em>"


def _row(one: InstanceEntry) -> str:
    state = escape(one["state"])
    reason = f' title="{escape(one["reason"])}"' if one["reason"] else ""
    load = f'<meter min="0" max="{one["slots"]}" value="{one["load"]}"></meter> {one["load"]}/{one["slots"]}'
    cells = (
        f"<code>{escape(one['id'])}</code>",
        escape(one["role"]),
        escape(one["scenario"]) or "&ndash;",
        escape(one["group"]) or "&ndash;",
        f'<span class="state {state}"{reason}>{state}</span>',
        load if one["slots"] else "&ndash;",
        ".".join(map(str, one["epoch"])),
        f"{one['pid']} on {escape(one['host'])}" if one["pid"] else "&ndash;",
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


POLICY = (
    f"default-src 'none'; connect-src 'self'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)};"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
