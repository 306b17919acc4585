"""The dashboard as a person has it, in headless Chromium: drawn, live, pressed, read aloud, narrow, dark, and large."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.monitor.dashboard.figures import DrainOrder, Order
from shared.messages import ExplainOrder, Happening, Health, Member, Role, ScaleOrder, State, UpgradeOrder
from tests.browser import Tab, browser, chromium
from tests.contract.monitor.scene import EPOCH, Scene, large, other, realistic
from tests.contract.monitor.screenshots import ready, shown
from tests.waiting import until

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium on the PATH (Debian: apt-get install chromium)"),
]
TOKEN = "a-token"
EVIL = "<img src=x onerror=document.title='owned'>"
PRESS = "[...document.querySelectorAll('{where} button')].find(one => one.textContent === '{text}').click()"
ANSWER = "document.querySelector('dialog .answer')?.textContent"
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    async with browser() as opened:
        await opened.size(1280, 900)
        yield opened
    assert opened.console == []


async def _press(tab: Tab, where: str, text: str) -> None:
    await tab.run(PRESS.format(where=where, text=text))


async def _key(tab: Tab, key: str, code: int, **more: object) -> None:
    for kind in ("keyDown", "keyUp"):
        await tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)


async def _unlock(tab: Tab, token: str) -> None:
    await tab.until("document.getElementById('token') !== null")
    await tab.run(f"document.getElementById('token').value = '{token}'")
    await _press(tab, "dialog", "Unlock")


async def test_the_fleet_is_drawn_and_stays_fresh_without_a_reload(tab: Tab) -> None:
    scene = realistic()
    async with shown(scene) as url:
        await tab.open(url)
        await ready(tab)
        await tab.run("window.same = true")
        assert await tab.run("document.title") == "Baton: 23 of 28 ready"
        assert await tab.run("[...document.querySelectorAll('.scenario h2')].map(h => h.textContent)") == [
            "chat",
            "code",
        ]
        assert await tab.run("document.querySelectorAll('.group').length") == 4
        assert await tab.run("document.querySelectorAll('.tile.joining').length") == 4
        assert await tab.run("document.querySelectorAll('.tile.ghost').length") == 1
        assert await tab.run("document.querySelectorAll('.tile.draining').length") == 1
        assert await tab.run("document.querySelector('.group').querySelectorAll('.flows').length") == 12
        assert await tab.run("document.querySelector('.stat .spark .line').getAttribute('d').length") > 500
        assert await tab.run("document.querySelectorAll('#events li').length") == 10
        scene.kinds[0].groups[0].decode.append(Member("decode-p5", EPOCH))
        scene.told.append(Happening(2_000_000_000_000, "code", "joined", "decode-p5 is in"))
        await tab.until("[...document.querySelectorAll('.tile .id')].some(one => one.textContent === 'decode-p5')")
        await tab.until("document.querySelector('#events p').textContent === 'decode-p5 is in'")
        scene.kinds.pop()
        await tab.until("document.querySelectorAll('.scenario').length === 1")
        assert await tab.run("window.same")


async def test_events_are_sifted_by_scenario(tab: Tab) -> None:
    async with shown(realistic()) as url:
        await tab.open(url)
        await ready(tab)
        await tab.run("filter.value = 'chat'; filter.dispatchEvent(new Event('change'))")
        left = await tab.run("[...document.querySelectorAll('#events li:not([hidden]) .of')].map(li => li.textContent)")
        assert left == ["chat"] * 4


async def test_a_page_without_a_stream_asks_and_one_whose_monitor_is_gone_says_so(
    tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.monitor.dashboard.stream.MOST_VIEWERS", 0)
    async with shown(realistic()) as url:
        await tab.open(url)
        await tab.until("document.getElementById('pulse').textContent === 'asked every 3 s'")
        await ready(tab)
    await tab.until("document.getElementById('pulse').textContent.startsWith('the monitor has been silent since')")
    assert await tab.run("document.querySelectorAll('.tile').length") > 0
    assert all("503" in line or "REFUSED" in line for line in tab.console), tab.console
    tab.console.clear()


async def test_orders_need_the_token_and_are_given_with_it(tab: Tab) -> None:
    placed: list[Order] = []
    async with shown(realistic(), token=TOKEN, placed=placed) as url:
        await tab.open(url)
        await ready(tab)
        await _press(tab, ".scenario", "Explain")
        await _unlock(tab, "wrong")
        await tab.until(f"({ANSWER} ?? '').startsWith('The token is wrong')")
        assert [line for line in tab.console if "401" not in line] == []
        tab.console.clear()
        await _press(tab, "dialog", "Close")
        await _press(tab, ".scenario", "Explain")
        await _unlock(tab, TOKEN)
        await tab.until(f"{ANSWER} === 'understood: ExplainOrder'")
        await _press(tab, ".scenario", "Scale")
        await tab.run("document.querySelectorAll('dialog input')[1].value = 6")
        for button in ("What would be done?", "Scale"):
            await _press(tab, "dialog", button)
            await tab.until(f"{ANSWER} === 'understood: ScaleOrder'")
            await tab.run(f"{ANSWER.replace('?.textContent', '.textContent')} = ''")
        await _press(tab, ".scenario", "Upgrade")
        await tab.run("document.querySelectorAll('dialog input')[0].value = 'gemma-3-4b'")
        await tab.run("document.querySelectorAll('dialog input')[1].value = '{\"dtype\": '")
        await _press(tab, "dialog", "Upgrade")
        assert "not JSON" in await tab.run(ANSWER)
        await tab.run("document.querySelectorAll('dialog input')[1].value = '{\"dtype\": \"bfloat16\"}'")
        await _press(tab, "dialog", "Upgrade")
        await tab.until(f"{ANSWER} === 'understood: UpgradeOrder'")
        await _press(tab, "dialog", "Roll back")
        await _press(tab, "dialog", "Roll back")
        await until(lambda: UpgradeOrder("chat", back=True) in placed, "the rollback is ordered")
        await tab.run("document.querySelector('.tile.decode').click()")
        await _press(tab, "dialog", "Drain …")
        assert "Drain decode-" in await tab.run("document.getElementById('dialog-title').textContent")
        await _press(tab, "dialog", "Drain")
        await until(lambda: isinstance(placed[-1], DrainOrder), "the drain is ordered")
    assert placed[:-2] == [
        ExplainOrder("chat"),
        ScaleOrder("chat", 3, 6, 2, dry_run=True),
        ScaleOrder("chat", 3, 6, 2),
        UpgradeOrder("chat", "gemma-3-4b", {"dtype": "bfloat16"}),
    ]
    assert placed[-1] in [DrainOrder(f"decode-p{number}") for number in range(1, 5)]


async def test_without_a_token_there_are_no_buttons(tab: Tab) -> None:
    async with shown(realistic()) as url:
        await tab.open(url)
        await ready(tab)
        seen = "[...document.querySelectorAll('button')].filter(one => one.checkVisibility())"
        assert await tab.run(f"{seen}.every(one => one.matches('.tile, .chip'))")
        assert "monitor.token" in await tab.run("document.getElementById('read-only').textContent")
        assert await tab.run("document.getElementById('read-only').checkVisibility()")
        await tab.run("document.querySelector('.tile').click()")
        assert "Drain" not in await tab.run("document.querySelector('dialog').textContent")


def _evil() -> Scene:
    scene = realistic()
    scene.others.append(other(EVIL, Role.STANDBY, host=EVIL, reason=EVIL))
    scene.kinds[0].groups[0].decode.append(Member(EVIL, EPOCH))
    scene.states[EVIL] = (State.READY, Health.DEGRADED, EVIL)
    scene.told.append(Happening(2_000_000_000_000, EVIL, EVIL, EVIL))
    return scene


async def test_whatever_an_instance_calls_itself_stays_text(tab: Tab) -> None:
    async with shown(_evil()) as url:
        await tab.open(url)
        await ready(tab)
        assert await tab.run("document.querySelectorAll('#events p')[0].textContent") == EVIL
        await tab.run("[...document.querySelectorAll('.tile')].find(one => one.title.startsWith('<img')).click()")
        assert await tab.run("document.getElementById('dialog-title').textContent") == EVIL
        assert await tab.run("document.querySelectorAll('img').length") == 0
        assert await tab.run("document.title") == "Baton: 25 of 30 ready"


async def test_all_can_be_done_from_the_keyboard_and_everything_has_a_name(tab: Tab) -> None:
    async with shown(realistic(), token=TOKEN) as url:
        await tab.open(url)
        await ready(tab)
        await _key(tab, "Tab", 9)
        assert await tab.run("document.activeElement.className") == "skip"
        await tab.run("document.querySelector('.tile').focus()")
        assert await tab.run("document.querySelectorAll('.wires .near').length") == 4
        await _key(tab, "Enter", 13, text="\r")
        await tab.until("document.getElementById('dialog').open")
        await _key(tab, "Escape", 27)
        await tab.until("!document.getElementById('dialog').open")
        assert await tab.run("document.activeElement.matches('.tile')")
        nodes = (await tab.call("Accessibility.getFullAXTree"))["nodes"]
        active = {"button", "combobox", "link", "image", "log", "textbox", "spinbutton"}
        asked = [one for one in nodes if one.get("role", {}).get("value") in active and not one.get("ignored")]
        assert len(asked) > 30
        assert [one["role"] for one in asked if not one.get("name", {}).get("value")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_wide_and_narrow_and_can_be_read_light_and_dark(tab: Tab, scheme: str) -> None:
    async with shown(realistic(), token=TOKEN) as url:
        await tab.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
        for width in (1280, 390):
            await tab.size(width, 5000)
            await tab.open(url)
            await ready(tab)
            assert await tab.run("document.documentElement.scrollWidth") == width
            read = await tab.run(CONTRAST)
            assert read["seen"] > 150
            assert read["poor"] == []
            assert await tab.run("getComputedStyle(document.querySelector('.track .bar')).transitionDuration") == "0s"


async def test_two_hundred_instances_are_drawn_and_a_change_touches_only_its_own_group(tab: Tab) -> None:
    scene = large()
    still = scene.figures()
    scene.figures = lambda: still  # type: ignore[method-assign]
    scene._load = lambda kind, role, place: 4  # type: ignore[method-assign]
    async with shown(scene) as url:
        await tab.open(url)
        await tab.until("document.querySelectorAll('.tile').length === 200")
        assert await tab.run("document.querySelectorAll('.wires path').length") == 20 * 4 * 6
        await tab.run("""
            const all = { subtree: true, childList: true, attributes: true, characterData: true };
            for (const card of document.querySelectorAll('.group'))
                new MutationObserver(() => (card.touched = true)).observe(card, all);
        """)
        scene.kinds[0].groups[3].prefill.pop()
        await tab.until("document.querySelectorAll('.tile:not(.ghost)').length === 199")
        touched = "[...document.querySelectorAll('.group')].filter((one) => one.touched)"
        assert await tab.run(f"{touched}.map((one) => one.getAttribute('aria-label'))") == ["Group chat-06"]
