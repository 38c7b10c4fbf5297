"""Videos from a bucket or an https host in the player: fetched once through the guard, served in ranges, refused with a reason."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from api_caller import make_caller
from review_reader import sign_in
from verdict_builders import put_verdict
from workers.ledger import Ledger
from workers.settings import Settings
from workers.web.copies import AWAY, CHANGED, TOO_LARGE, Copies
from workers.web.media import ELSEWHERE, GONE, Media, Remote, open_media

from .test_s3_source import CONTENT as OBJECT
from .test_s3_source import sources  # noqa: F401 - an object store on loopback

VIDEO = bytes(range(256)) * 64
SHA256 = hashlib.sha256(VIDEO).hexdigest()


@pytest.fixture
def host():
    """An http server with two videos; its `asked` tells how often."""

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            found = self.path in ("/clip.webm", "/other.mp4")
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(VIDEO) if found else 0))
            self.end_headers()
            if found:
                server.may_answer.wait(timeout=60)
                self.wfile.write(VIDEO)

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.asked, server.may_answer = [], threading.Event()
    server.may_answer.set()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.may_answer.set()
    server.shutdown()
    server.server_close()
    thread.join()


def settings_for(host, **changes) -> dict:
    return {"http_allowed_hosts": ("127.0.0.1",), "http_private_hosts": (f"127.0.0.1:{host.server_port}",), **changes}


def remote(host, path: str = "/clip.webm") -> Remote:
    return Remote("vid_1", f"http://127.0.0.1:{host.server_port}{path}")


def opened(copies: Copies, *wanted: Remote, sha256: str | None = SHA256) -> list[Media | str]:
    async def together() -> list[Media | str]:
        return await asyncio.gather(*(copies.open(each, content_sha256=sha256) for each in wanted))

    return asyncio.run(together())


def content(media: Media | str) -> bytes:
    assert isinstance(media, Media), media
    read = os.pread(media.descriptor, media.num_bytes, 0)
    media.close()
    return read


def test_a_player_gets_ranges_of_one_fetch(host, tmp_path):
    with_ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    put_verdict(with_ledger, "vid_1", source=remote(host).location, content_sha256=SHA256)
    ana = sign_in(make_caller(with_ledger, state_dir=tmp_path, **settings_for(host)), with_ledger)
    page = ana.get("/videos/vid_1").text
    assert "Fetching the video from its store" in page
    assert host.asked == [], "the page does not wait for the store"
    part = ana.get("/videos/vid_1/media", headers={"range": "bytes=256-260"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, bytes(range(5)), f"bytes 256-260/{len(VIDEO)}")
    assert part.headers["content-type"] == "video/webm"
    assert ana.get("/videos/vid_1/media").content == VIDEO
    assert host.asked == ["/clip.webm"]
    with_ledger.erase_video("vid_1", actor="test")
    assert ana.get("/videos/vid_1/media").status_code == 404, "nothing is shown of a video that was erased"
    with_ledger.close()


def test_what_stands_in_the_way_is_named(host, tmp_path):
    copies = Copies(Settings(**settings_for(host)))
    assert opened(copies, remote(host), sha256="0" * 64) == [CHANGED]
    assert opened(copies, remote(host, "/nobody.mp4")) == [GONE]
    assert opened(copies, Remote("vid_1", "http://127.0.0.2/clip.mp4")) == [ELSEWHERE]
    assert opened(Copies(Settings(**settings_for(host, review_copy_bytes=4 * len(VIDEO) - 4))), remote(host)) == [TOO_LARGE]
    assert content(opened(Copies(Settings(**settings_for(host, review_copy_bytes=4 * len(VIDEO)))), remote(host))[0]) == VIDEO
    host.shutdown()
    host.server_close()
    assert opened(copies, remote(host, "/other.mp4")) == [AWAY]


def test_each_revision_gets_the_file_that_it_judged_or_none(host):
    """The same address, overwritten between two revisions."""
    copies = Copies(Settings(**settings_for(host)))
    assert opened(copies, remote(host), sha256="0" * 64) == [CHANGED]
    assert content(opened(copies, remote(host))[0]) == VIDEO
    assert opened(copies, remote(host), sha256="0" * 64) == [CHANGED]


def test_a_refusal_is_asked_for_once_and_not_for_ever(host, monkeypatch):
    copies = Copies(Settings(**settings_for(host)))
    assert opened(copies, *[remote(host, "/nobody.mp4")] * 3) + opened(copies, remote(host, "/nobody.mp4")) == [GONE] * 4
    assert host.asked == ["/nobody.mp4"]
    monkeypatch.setattr("workers.web.copies._REFUSAL_SECONDS", -1.0)
    assert opened(copies, remote(host, "/nobody.mp4")) == [GONE]
    assert len(host.asked) == 2


def test_those_who_wait_together_share_a_fetch_and_one_who_leaves_takes_nothing_away(host):
    copies = Copies(Settings(**settings_for(host)))
    host.may_answer.clear()

    async def leave_and_stay() -> Media | str:
        leaving = asyncio.create_task(copies.open(remote(host), content_sha256=SHA256))
        staying = asyncio.create_task(copies.open(remote(host), content_sha256=SHA256))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        host.may_answer.set()
        return await staying

    assert content(asyncio.run(leave_and_stay())) == VIDEO
    assert host.asked == ["/clip.webm"]


def test_copies_have_a_budget_and_an_end(host, monkeypatch):
    copies = Copies(Settings(**settings_for(host, review_copy_bytes=4 * len(VIDEO))))  # keeps two
    held = opened(copies, remote(host))[0]
    for path in ("/other.mp4", "/clip.webm?again", "/clip.webm?more"):
        opened(copies, remote(host, path))
    assert opened(copies, remote(host, "/other.mp4"))
    assert content(held) == VIDEO, "an answer on its way is sent to its end"
    kept = [copy.num_bytes for copy in copies._copies.values()]
    assert sum(kept) <= 2 * len(VIDEO)
    monkeypatch.setattr("workers.web.copies._KEEP_SECONDS", -1.0)
    before = len(host.asked)
    assert content(opened(copies, remote(host))[0]) == VIDEO
    assert len(host.asked) == before + 1


def test_nobody_has_to_come_back_for_a_copy_to_end(host, monkeypatch):
    monkeypatch.setattr("workers.web.copies._SWEEP_SECONDS", 0.01)
    copies = Copies(Settings(**settings_for(host)))
    assert content(opened(copies, remote(host))[0]) == VIDEO
    [kept] = [copy.future.result() for copy in copies._copies.values()]
    assert kept.close.alive, "it was looked at just now"
    monkeypatch.setattr("workers.web.copies._KEEP_SECONDS", -1.0)
    end = time.monotonic() + 60
    while kept.close.alive:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert copies._copies == {}


def test_an_object_of_a_bucket_is_shown(sources):  # noqa: F811
    allowed = Settings(s3_allowed_buckets=("uploads",))
    found = open_media(allowed, video_id="vid", source="s3://uploads/vid.mp4")
    assert isinstance(found, Remote)
    assert content(opened(Copies(allowed), found, sha256=hashlib.sha256(OBJECT).hexdigest())[0]) == OBJECT
    assert open_media(allowed, video_id="vid", source="s3://else/vid.mp4") == ELSEWHERE
    assert (
        open_media(Settings(s3_allowed_buckets=("uploads",), review_copy_bytes=0), video_id="v", source="s3://uploads/v.mp4") == ELSEWHERE
    )
