"""An explanation all the way: asked for at the API, told by a real redis-server, made by a real worker, read at the API and on the page."""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Callable

import av
import httpx
import pytest
from PIL import Image

from builders import astronaut_pictures, write_clip
from tests.integration.servers import serving
from workers.settings import Settings
from workers.up import start_system
from workers.web.app import create_app

pytestmark = pytest.mark.integration
_PATIENCE_SECONDS = 240.0
"""The worker imports torch, loads the shipped bundles and tests itself before its first video."""


@pytest.fixture
def system(redis_server, tmp_path):
    """API, ingest, janitor and a worker process with the shipped bundles, on a redis-server; a portrait as two videos."""
    media = tmp_path / "media"
    media.mkdir()
    for name in ("vid_1.mp4", "vid_2.mp4"):
        write_clip(media / name, astronaut_pictures(50))
    settings = Settings(
        state_dir=tmp_path / "state",
        broker_url=redis_server.url,
        media_template=f"{media}/{{video_id}}.mp4",
        media_roots=(media,),
        concurrency=1,
        drain_seconds=2,
        exit_seconds=20,
        log_level="warning",
    )
    log = tmp_path / "worker.log"
    with (
        start_system(settings, worker_log=log) as running,
        serving(create_app(running.control)) as base,
        httpx.Client(base_url=base, timeout=60) as http,
    ):
        yield running, http, log, media


def until(look: Callable[[], dict | None], log) -> dict:
    end = time.monotonic() + _PATIENCE_SECONDS
    while (found := look()) is None:
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)
    return found


def finished(http: httpx.Client, video_id: str) -> dict | None:
    body = http.get(f"/v1/videos/{video_id}").json()
    return body if body["state"] in ("complete", "failed") else None


def settled(http: httpx.Client, video_id: str) -> dict | None:
    body = http.get(f"/v1/videos/{video_id}/explanation").json()
    return body if body["state"] != "wanted" else None


def test_pictures_come_back_from_the_worker_and_a_missing_video_is_named(system):
    running, http, log, media = system
    for video_id in ("vid_1", "vid_2"):
        assert http.post("/v1/videos", json={"video_id": video_id}).status_code == 202
    verdict, other = (until(lambda video_id=video_id: finished(http, video_id), log) for video_id in ("vid_1", "vid_2"))
    assert (verdict["state"], other["state"]) == ("complete", "complete"), (verdict, other)
    evidence = http.get("/v1/videos/vid_1/evidence").json()

    asked = http.post("/v1/videos/vid_1/explanation")
    assert (asked.status_code, asked.json()["state"]) == (202, "wanted")
    ready = until(lambda: settled(http, "vid_1"), log)
    assert ready["state"] == "ready", ready
    assert ready["bundle_set"] == verdict["bundle_set"]
    worst = ready["moments"][0]
    assert (worst["t"], worst["track"]) == (evidence["moments"][0]["t"], evidence["moments"][0]["track"])
    assert {"crop", "grad_cam"} <= worst["pictures"].keys()
    for picture in worst["pictures"].values():
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert image.format == "JPEG"
            assert min(image.size) >= 100
    with av.open(io.BytesIO(http.get("/v1/videos/vid_1/explanation/clip").content)) as container:
        assert container.streams.video[0].codec_context.name == "h264"

    # the analyst's page shows the same pictures
    http.post(f"/review/login/{running.control.ledger.make_login('ana', seconds=60)}")
    page = http.get("/review/videos/vid_1").text
    assert http.get("/review/videos/vid_1/media", headers={"range": "bytes=4-7"}).content == b"ftyp"
    csrf = re.search(r'name="csrf" value="([0-9a-f]+)"|"csrf": "([0-9a-f]+)"', page)
    fragment = http.post("/review/videos/vid_1/heatmap", data={"csrf": csrf[1] or csrf[2]}).text
    assert worst["pictures"]["grad_cam"][:200] in fragment

    # the next question is about a video whose file is gone by now: it is answered too, with the reason
    (media / "vid_2.mp4").unlink()
    http.post("/v1/videos/vid_2/explanation")
    refused = until(lambda: settled(http, "vid_2"), log)
    assert (refused["state"], refused["error"]["code"]) == ("refused", "FETCH_NOT_FOUND")
    assert "no longer there" in http.get("/review/videos/vid_2").text
