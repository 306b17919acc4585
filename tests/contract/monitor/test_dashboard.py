"""The monitor's dashboard over HTTP: what it shows, and what becomes of a monitor that cannot open it."""

import asyncio

import aiohttp
import pytest

from services.monitor.service import Monitor
from tests.contract.monitor.stages import Stage, whole_fleet


async def test_the_dashboard_shows_the_fleet_to_people_programs_and_prometheus(stage: Stage) -> None:
    monitor, _, _ = await whole_fleet(stage)
    base = f"http://127.0.0.1:{monitor.config.monitor.port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/status") as answer:
            status = await answer.json()
        async with session.get(f"{base}/") as answer:
            page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
        async with session.get(f"{base}/metrics") as answer:
            metrics = await answer.text()
    assert {one["id"] for one in status["instances"]} >= {"prefill-1", "decode-1"}
    assert (status["monitor"], status["leading"], status["scenarios"][0]["ratio"]) == ("monitor-1", True, "1:1")
    assert "<code>decode-1</code>" in page
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert 'baton_map_members{group="main",role="decode",scenario="chat"} 1.0' in metrics
    assert "baton_monitor_leading 1.0" in metrics


async def test_a_taken_dashboard_port_ends_the_monitor_with_a_clear_error(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, _, _ = await whole_fleet(stage)
    second = stage.put_on(Monitor(), "monitor-2", monitor=monitor.config.monitor)
    async with asyncio.timeout(15):
        assert await second.task == 1
    assert f"cannot listen on 127.0.0.1:{monitor.config.monitor.port} for the dashboard" in caplog.text
