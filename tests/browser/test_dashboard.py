"""The review pages in a real browser: keys, player, chart, two analysts, a phone, no scripts, and what axe finds."""

from __future__ import annotations

import hashlib
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.world import PATIENCE_MS, open_dashboard, put_finished

pytestmark = pytest.mark.integration
expect.set_options(timeout=PATIENCE_MS)


def open_video(page: Page, path: str) -> None:
    """Open a video's page and wait for its chart."""
    page.goto(page.url.split("/review")[0] + "/review" + path)
    expect(page.locator("#video-page")).to_have_attribute("data-ready", "yes")


def complaints(page: Page) -> list[str]:
    """Errors in the browser's console, blocked scripts and styles among them, from now on."""
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    return heard


def until(page: Page, condition: str) -> None:
    """Wait for something to be true in the page. Playwright's own waiting needs `eval`, which our pages forbid."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never came true: {condition}"
        page.wait_for_timeout(20)


def held(page: Page) -> None:
    expect(page.locator("#video-page")).to_have_attribute("data-held", "yes")


def test_a_video_is_opened_decided_undone_and_skipped_by_keys_alone(dashboard, browser):
    first = dashboard.put("vid_1", has_media=True)
    dashboard.put("vid_2", peaks=(0.7,))
    dashboard.put("vid_3", peaks=(0.65,))
    page = dashboard.page(browser, "ana")
    heard = complaints(page)
    page.keyboard.press("j")
    expect(page.locator(".queue .open").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#video-page")).to_have_attribute("data-ready", "yes")
    held(page)
    page.keyboard.press("f")
    page.wait_for_url("**/videos/vid_2?*")
    assert dashboard.ledger.review_item(first).decision == "fake"
    page.keyboard.press("z")
    page.wait_for_url("**/videos/vid_1?*")
    assert dashboard.ledger.review_item(first).is_open
    page.keyboard.press("c")
    page.wait_for_url("**/videos/vid_2?*")
    page.keyboard.press("s")
    page.wait_for_url("**/videos/vid_3?*")
    page.keyboard.press("u")  # the only one left that ana can take is the skipped one
    page.wait_for_url("**/videos/vid_2?*")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("f")  # rests while the help is open
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.locator("#free-note").fill("fcu")  # and while somebody types
    decisions = [entry.decision for entry in dashboard.ledger.review_history() if entry.kind == "decided"]
    assert decisions == ["unsure", "clean", "fake"]
    assert heard == []


def test_player_chart_and_lanes_run_on_one_clock(dashboard, browser):
    dashboard.put("vid_1", peaks=(0.95, 0.4), has_media=True)
    page = dashboard.page(browser, "ana")
    heard = complaints(page)
    open_video(page, "/videos/vid_1")
    expect(page.locator("#chart canvas")).to_be_visible()
    assert page.locator(".lane").count() == 2
    until(page, "document.getElementById('player').readyState >= 1")
    player = "document.getElementById('player').currentTime"

    def where() -> tuple[float, float]:
        """The places of the playhead in chart and lane, as shares of the width."""
        return page.evaluate(
            """() => { const share = (head) => {
                const inner = head.getBoundingClientRect(), outer = head.parentElement.getBoundingClientRect();
                return (inner.left + inner.width / 2 - outer.left) / outer.width; };
              return [share(document.querySelector('#chart .playhead')), share(document.querySelector('.strip .playhead'))]; }"""
        )

    page.keyboard.press("w")  # the worst moment of the made-up track
    until(page, f"Math.abs({player} - 3) < 0.05")
    until(page, "document.getElementById('clock').textContent === '3.00 s'")
    assert where() == [pytest.approx(3 / 7.04, abs=0.01)] * 2
    page.keyboard.press("j")
    until(page, f"Math.abs({player} - 4) < 0.05")
    page.keyboard.press("k")
    until(page, f"Math.abs({player} - 3) < 0.05")
    box = page.locator("#chart .u-over").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 5 / 7.04, box["y"] + box["height"] / 2)
    until(page, f"Math.abs({player} - 5) < 0.1")
    inked = "() => { const c = document.getElementById('outlines'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; return d.some((v, i) => i % 4 === 3 && v > 0); }"
    until(page, inked)
    page.keyboard.press("o")
    assert not page.evaluate(inked)
    page.keyboard.press("b")
    assert "blur" in page.evaluate("getComputedStyle(document.getElementById('player')).filter")
    page.keyboard.press("b")
    assert page.evaluate("getComputedStyle(document.getElementById('player')).filter") == "none"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    until(page, f"{player} > 5.1")
    assert heard == []


def test_two_analysts_on_one_video(dashboard, browser):
    seq = dashboard.put("vid_1")
    ana = dashboard.page(browser, "ana")
    open_video(ana, "/videos/vid_1")
    held(ana)
    ben = dashboard.page(browser, "ben")
    expect(ben.get_by_text("ana has it")).to_be_visible()
    open_video(ben, "/videos/vid_1")
    expect(ben.get_by_text("is looking at this video just now")).to_be_visible()
    ben.keyboard.press("f")
    assert ben.locator(".choice").count() == 0
    assert dashboard.ledger.review_item(seq).is_open
    # ben's page was there first, ana's claim ran out, ben took it: ana's next sign of life says so
    dashboard.ledger.review_release(seq, actor="ana")
    dashboard.ledger.review_decide(seq, actor="ben", decision="clean")
    ana.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(ana.locator("#conflict")).to_contain_text("Somebody else opened or decided this video")
    ana.keyboard.press("f")
    expect(ana.locator(".choice.fake")).to_be_disabled()
    assert dashboard.ledger.review_item(seq).decision == "clean"


def test_on_a_phone_nothing_is_cut_off(dashboard, browser):
    dashboard.put("vid_1", peaks=(0.95, 0.7, 0.3), has_media=True, attributes={"title": "t" * 190})
    dashboard.put("v" * 128, peaks=(0.7,))
    page = dashboard.page(browser, "ana", width=390)
    for path in ("/", "/videos/vid_1", "/videos/" + "v" * 128, "/log", "/agreement", "/thresholds", "/preferences", "/search"):
        page.goto(f"{dashboard.address}/review{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    open_video(page, "/videos/vid_1")
    page.get_by_role("button", name="Clean").click()
    page.wait_for_url("**/videos/vvv*")


def test_without_scripts_the_list_and_the_decision_work(dashboard, browser):
    seq = dashboard.put("vid_1", has_media=True)
    page = dashboard.page(browser, "ana", java_script_enabled=False)
    page.get_by_role("link", name="vid_1").click()
    expect(page.get_by_text("Face 1", exact=True)).to_be_visible()
    assert page.locator(".lane rect.bar").count() == 8
    page.get_by_role("button", name="Manipulated").click()
    expect(page.get_by_text("Nothing waits for people")).to_be_visible()
    assert dashboard.ledger.review_item(seq).decision == "fake"
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="Manipulated")).to_be_visible()


HOSTILE = "\"><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_a_hostile_title_runs_nowhere(dashboard, browser):
    seq = dashboard.put("vid_1", attributes={"title": HOSTILE})
    dashboard.ledger.review_note(seq, actor="ana", note=HOSTILE)
    page = dashboard.page(browser, "ana")
    for path in ("/", "/videos/vid_1", "/log"):
        page.goto(f"{dashboard.address}/review{path}")
        expect(page.get_by_text("onerror").first).to_be_visible()
        assert "owned" not in page.title().removeprefix(HOSTILE)
        assert page.locator("main img[src=x]").count() == 0


def test_a_video_behind_https_is_fetched_and_played_and_one_that_is_gone_is_named(browser, tmp_path):
    store = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "media")))
    threading.Thread(target=store.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{store.server_port}"
    try:
        with open_dashboard(tmp_path, http_allowed_hosts=("127.0.0.1",), http_private_hosts=(address,)) as dashboard:
            digest = hashlib.sha256((dashboard.media / "clip.mp4").read_bytes()).hexdigest()
            for video_id, name in (("vid_1", "clip.mp4"), ("vid_2", "gone.mp4")):
                source = f"http://{address}/{name}"
                put_finished(dashboard.ledger, video_id, peaks=(0.95,), attributes={}, source=source, content_sha256=digest)
            page = dashboard.page(browser, "ana", "/videos/vid_1")
            until(page, "document.getElementById('player').readyState > 0")
            expect(page.locator("#fetching")).to_be_hidden()
            page.locator("[data-seek]").first.click()
            until(page, "document.getElementById('player').currentTime > 1 && !document.getElementById('player').seeking")
            expect(page.locator("#no-media")).to_be_hidden()
            open_video(page, "/videos/vid_2")
            expect(page.locator("#no-media")).to_contain_text("no longer there")
            expect(page.locator("#fetching")).to_be_hidden()
            expect(page.locator(".choice.fake")).to_be_enabled()
            page.context.close()
    finally:
        store.shutdown()
        store.server_close()


class Quiet(SimpleHTTPRequestHandler):
    """A store of files that knows no ranges."""

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""


def test_what_would_change_is_swapped_in_place(dashboard, browser):
    for number, peak in enumerate((0.2, 0.65, 0.7, 0.9)):
        dashboard.put(f"vid_{number}", peaks=(peak,))
    page = dashboard.page(browser, "ana", path="/thresholds")
    heard = complaints(page)
    page.evaluate("window.stayed = true")
    page.get_by_label("Likely manipulated from").fill("0.68")
    page.get_by_label("Likely manipulated from").press("Tab")
    page.wait_for_url("**fake=0.68*")
    expect(page.locator(".tile", has_text="verdicts that flip").locator(".tile-number")).to_have_text("1")
    assert page.evaluate("window.stayed")
    assert heard == []


PAGES = (
    "/",
    "/videos/vid_1",
    "/videos/vid_2",
    "/log",
    "/agreement",
    "/thresholds",
    "/preferences",
    "/search?q=nobody",
    "/search?q=cccccccc",
)


@pytest.mark.parametrize(("scheme", "width", "paths"), [("light", 1280, PAGES), ("dark", 390, PAGES[:2])])
def test_axe_finds_nothing_serious(dashboard, browser, scheme, width, paths):
    fill(dashboard)
    page = dashboard.page(browser, "ana", width=width, color_scheme=scheme)
    found = {path: problems(page, dashboard.address, path) for path in paths}
    assert {path: each for path, each in found.items() if each} == {}


def fill(dashboard) -> None:
    """Something of everything: several faces, all words, a decided video, a note."""
    seq = dashboard.put("vid_1", peaks=(0.95, 0.7, 0.3), has_media=True)
    dashboard.put("vid_2", peaks=(0.7,))
    dashboard.put("vid_3", peaks=(0.85,) * 7, word="inconclusive", reasons=("CROWD_UNCERTAIN",))
    dashboard.put("vid_4", peaks=(0.1,))
    dashboard.ledger.review_note(seq, actor="ben", note="look at the mouth")
    dashboard.ledger.review_decide(dashboard.ledger.review_item_of("vid_2").verdict_seq, actor="ben", decision="clean", second_share=1.0)


def problems(page: Page, address: str, path: str) -> list[str]:
    """What axe calls serious or critical on one page."""
    page.goto(f"{address}/review{path}")
    if urlsplit(path).path.startswith("/videos/"):
        expect(page.locator("#video-page")).to_have_attribute("data-ready", "yes")
    found = Axe().run(page)["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found if each["impact"] in ("serious", "critical")]
