"""What axe finds on every page in light and dark, wide and narrow; and pictures of the pages with real verdicts behind them.

The videos are the demo's: a public-domain portrait, screened for real by the shipped bundles.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from tests.browser.test_dashboard import PAGES, fill, problems
from tests.browser.world import Dashboard, chromium, open_browser, open_dashboard
from tests.chaos.report import Report
from workers.demo_clips import make_demo_clips
from workers.explaining import explain_video
from workers.ledger import Claim, Submission, VerdictRecord
from workers.messages import JobFacts, parse_enqueue, verdict_body
from workers.metrics import Metrics
from workers.screener import load_screener

VIEWS = (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390))
_PICTURED = {
    "queue": "/",
    "thresholds": "/thresholds?review=0.4&fake=0.75",
    "agreement": "/agreement",
    "log": "/log",
    "search": "/search?q=cccccccc",
    "preferences": "/preferences",
    "decided": "/videos/upload-2026-11-20-1202",
    "second": "/videos/upload-2026-11-20-1201",
    "unknown": "/videos/nobody",
}
_TITLES = {
    "demo-untouched": "Greeting from the crew, original",
    "demo-manipulated": "Greeting from the crew, re-upload",
    "demo-no-face": "Breakfast",
}


def measure(report: Report, *, folder: Path) -> None:
    """Count serious problems on all pages, then take the pictures."""
    if chromium() is None:
        report.add("pages in a browser", "no chromium", "", goal="chromium", passed=False)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open_browser() as browser:
        with tempfile.TemporaryDirectory() as place, open_dashboard(Path(place)) as dashboard:
            fill(dashboard)
            found: dict[str, list[str]] = {}
            for scheme, width in VIEWS:
                page = dashboard.page(browser, "ana", width=width, color_scheme=scheme)
                for path in PAGES:
                    found[f"{path} {scheme} {width}"] = problems(page, dashboard.address, path)
                page.context.close()
        report.equals(f"serious problems that axe finds on {len(found)} views", sum(map(len, found.values())), "problems", 0)
        report.detail["axe"] = {view: each for view, each in found.items() if each}
        with tempfile.TemporaryDirectory() as place, open_dashboard(Path(place), evidence_thumbnails=True) as dashboard:
            _screen_demo(dashboard)
            for scheme, width in VIEWS:
                page = dashboard.page(browser, "ana", width=width, color_scheme=scheme)
                _take_pictures(page, dashboard, folder, f"{scheme}-{width}")
                page.context.close()


def _take_pictures(page: Page, dashboard: Dashboard, folder: Path, name: str) -> None:
    for what, path in _PICTURED.items():
        page.goto(f"{dashboard.address}/review{path}")
        page.screenshot(path=folder / f"{what}-{name}.png", full_page=True)
    page.goto(f"{dashboard.address}/review/videos/demo-manipulated")
    page.locator("#video-page[data-ready=yes]").wait_for()
    page.keyboard.press("w")
    page.wait_for_timeout(800)  # the player shows the frame
    page.screenshot(path=folder / f"video-{name}.png", full_page="1280" in name)
    page.keyboard.press("h")
    page.locator(".heat-pictures").first.wait_for()
    page.screenshot(path=folder / f"heatmap-{name}.png", full_page=True)


def _screen_demo(dashboard: Dashboard) -> None:
    """Judge the demo's clips with the shipped bundles, and put some more on record beside them."""
    clips = {clip.video_id: clip.path for clip in make_demo_clips(dashboard.media)}
    screener = load_screener(dashboard.settings, Metrics())
    for video_id, title in _TITLES.items():
        request = parse_enqueue({"video_id": video_id, "source": clips[video_id].as_uri(), "attributes": {"title": title}})
        job_id = dashboard.ledger.submit(Submission(request=request, door="http")).ledger_id
        claim = dashboard.ledger.claim(job_id, owner="figures", lease_seconds=600)
        assert isinstance(claim, Claim)
        with clips[video_id].open("rb") as file:
            verdict = screener.screen(file)
        digest = hashlib.sha256(clips[video_id].read_bytes()).hexdigest()
        body = verdict_body(verdict, job=JobFacts(video_id=video_id, job_id=job_id, content_sha256=digest, attributes={"title": title}))
        record = VerdictRecord(
            content_sha256=digest,
            bundle_set=verdict.bundle_set,
            policy=verdict.policy,
            verdict=verdict.verdict,
            p_fake=verdict.p_fake,
            body=body.to_json(),
        )
        dashboard.ledger.commit_verdict(claim, verdict=record, urls=[])
        if video_id == "demo-manipulated":
            with clips[video_id].open("rb") as file:
                explained = explain_video(file, body, bundle_set=screener.bundle_set)
            dashboard.ledger.want_explanation(job_id, seconds=600)
            dashboard.ledger.put_explanation(job_id, body=explained.body, clip=explained.clip, seconds=3600)
    for number, peak in enumerate((0.72, 0.91, 0.65, 0.78, 0.83)):
        dashboard.put(f"upload-2026-11-20-{1200 + number}", peaks=(peak, 0.3, 0.2)[: 1 + number % 3])
    dashboard.put("upload-2026-11-20-1300", peaks=(0.85,) * 7, word="inconclusive", reasons=("CROWD_UNCERTAIN",))
    first = dashboard.ledger.review_item_of("upload-2026-11-20-1201").verdict_seq
    dashboard.ledger.review_decide(
        first, actor="ben", decision="fake", reason="mouth", note="teeth change between frames", second_share=1.0
    )
    second = dashboard.ledger.review_item_of("upload-2026-11-20-1202").verdict_seq
    dashboard.ledger.review_decide(second, actor="cleo", decision="fake", second_share=1.0)
    dashboard.ledger.review_decide(second, actor="ben", decision="fake")
    dashboard.ledger.review_claim(dashboard.ledger.review_item_of("upload-2026-11-20-1203").verdict_seq, actor="cleo", seconds=600)
