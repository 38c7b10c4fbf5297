"""A dashboard with a few videos behind it, in this process on a loopback port, and a real browser to look at it."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from builders import astronaut_pictures, write_clip
from tests.integration.servers import serving
from verdict_builders import made_verdict
from workers.broker import MemoryDispatcher
from workers.intake import Intake
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages import JobFacts, parse_enqueue, verdict_body
from workers.metrics import Metrics
from workers.services import Control
from workers.settings import Settings
from workers.web.app import create_app

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000


def chromium() -> str | None:
    """The system's browser."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True)
class Dashboard:
    """One running dashboard."""

    ledger: Ledger
    settings: Settings
    address: str
    media: Path
    contexts: list[BrowserContext] = field(default_factory=list)
    """Windows that are open on it."""

    def put(self, video_id: str, *, peaks: tuple[float, ...] = (0.95,), attributes: dict | None = None, has_media: bool = False, **options):
        """Put one finished video on record; gives the number of its verdict."""
        source = (self.media / "clip.mp4").as_uri() if has_media else (self.media / f"{video_id}.mp4").as_uri()
        if has_media:
            options.setdefault("content_sha256", hashlib.sha256((self.media / "clip.mp4").read_bytes()).hexdigest())
        return put_finished(self.ledger, video_id, peaks=peaks, attributes=attributes or {}, source=source, **options)

    def context(self, browser: Browser, reviewer: str | None, *, width: int = 1280, **options) -> BrowserContext:
        """A browser window of its own, signed in as somebody by a one-time link."""
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        if reviewer is not None:
            page = context.new_page()
            page.goto(f"{self.address}/review/login/{self.ledger.make_login(reviewer, seconds=60)}")
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/review/")
            page.close()
        return context

    def page(self, browser: Browser, reviewer: str, path: str = "/", **options) -> Page:
        """One page of the dashboard, signed in."""
        page = self.context(browser, reviewer, **options).new_page()
        page.goto(f"{self.address}/review{path}")
        return page


def put_finished(
    ledger: Ledger,
    video_id: str,
    *,
    peaks: tuple[float, ...],
    attributes: dict,
    source: str | None = None,
    content_sha256: str = "c" * 64,
    word: str | None = None,
    reasons: tuple[str, ...] | None = None,
    **options,
) -> int:
    """Submit, claim and commit one video."""
    request = parse_enqueue({"video_id": video_id, "attributes": attributes, **({"source": source} if source else {})})
    job_id = ledger.submit(Submission(request=request, door="http")).ledger_id
    claim = ledger.claim(job_id, owner="tester", lease_seconds=60)
    assert isinstance(claim, Claim)
    verdict = made_verdict(peaks=peaks, **options)
    spoken = word or verdict.verdict
    codes = {"manipulated": ("SCORE_ABOVE_T_FAKE",), "suspicious": ("SCORE_IN_BAND",)}.get(spoken, verdict.reason_codes)
    verdict = replace(verdict, verdict=spoken, reason_codes=codes if reasons is None else reasons)
    facts = JobFacts(video_id=video_id, job_id=job_id, content_sha256=content_sha256, attributes=attributes)
    body = verdict_body(verdict, job=facts)
    record = VerdictRecord(
        content_sha256=content_sha256,
        bundle_set=verdict.bundle_set,
        policy=verdict.policy,
        verdict=verdict.verdict,
        p_fake=verdict.p_fake,
        body=body.to_json(),
    )
    assert ledger.commit_verdict(claim, verdict=record, urls=[])
    found = ledger.verdict_of(video_id)
    assert found is not None
    return found.seq


def make_control(ledger: Ledger, settings: Settings) -> Control:
    """The control side on a ledger, with a broker in memory."""
    dispatcher, metrics = MemoryDispatcher(), Metrics()
    intake = Intake(ledger, dispatcher, metrics=metrics, resend_seconds=30, backlog_limit=settings.backlog_limit)
    return Control(settings, None, ledger, dispatcher, intake, metrics, "owner")  # type: ignore[arg-type]


@contextlib.contextmanager
def open_dashboard(folder: Path, **changes) -> Iterator[Dashboard]:
    """A dashboard on a fresh SQLite ledger, with one clip in its media folder."""
    media = folder / "media"
    media.mkdir()
    write_clip(media / "clip.mp4", astronaut_pictures(36, size=(320, 240)), rate=5, options={"g": "5"})
    settings = Settings(state_dir=folder, media_roots=(media,), media_template=f"{media}/{{video_id}}.mp4", **changes)
    ledger = Ledger.open(settings.resolved_ledger_url)
    try:
        with serving(create_app(make_control(ledger, settings))) as address:
            dashboard = Dashboard(ledger, settings, address, media)
            try:
                yield dashboard
            finally:
                for context in dashboard.contexts:  # a page that plays would keep a core busy until the browser ends
                    context.close()
    finally:
        ledger.close()
