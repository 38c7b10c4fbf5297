"""IDs through every door of a real system: embedded Valkey, SQLite ledger, ingest, janitor, a worker process, the API."""

from __future__ import annotations

import base64
import json
import sys
import time
import uuid

import httpx
import pytest
import redis
from celery import Celery
from jsonschema import validate

from tests.chaos.screener import POISONS, hash_verdict, media_bytes
from tests.integration.servers import serving
from workers.app import celery_url
from workers.messages import VerdictBody
from workers.settings import Settings
from workers.up import start_system
from workers.web.app import create_app

pytestmark = pytest.mark.integration
WORKER = [sys.executable, "-m", "tests.chaos.worker_process"]


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    for i in range(40):
        (folder / f"vid_{i}.mp4").write_bytes(media_bytes(f"vid_{i}"))
    for kind in POISONS:
        (folder / f"{kind}.mp4").write_bytes(media_bytes(kind, poison=kind))
    return folder


@pytest.fixture(scope="module")
def system(tmp_path_factory, media):
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("state"),
        media_template=f"{media}/{{video_id}}.mp4",
        media_roots=(media,),
        concurrency=4,
        lease_seconds=4,
        resend_seconds=4,
        drain_seconds=2,
        exit_seconds=8,
        log_level="warning",
    )
    with (
        start_system(settings, command=WORKER) as running,
        serving(create_app(running.control)) as base,
        httpx.Client(base_url=base) as http,
    ):
        yield running, http


def wait_until_done(http: httpx.Client, video_id: str, *, seconds: float = 30.0) -> dict:
    end = time.monotonic() + seconds
    while True:
        answer = http.get(f"/v1/videos/{video_id}")
        if answer.status_code == 200 and answer.json()["state"] in ("complete", "failed"):
            return answer.json()
        assert time.monotonic() < end, (answer.status_code, answer.text)
        time.sleep(0.05)


def raw_message(video_id: str) -> str:
    """Door 1b as its documentation shows it, written by hand: no code of ours."""
    message_id = str(uuid.uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps([[], {"video_id": video_id}, {}]).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": "veriframe.screen", "id": message_id},
            "properties": {
                "correlation_id": message_id,
                "body_encoding": "base64",
                "delivery_mode": 2,
                "delivery_tag": message_id,
                "delivery_info": {"exchange": "", "routing_key": "default"},
                "priority": 0,
            },
        }
    )


def assert_hash_verdict(body: dict, video_id: str) -> None:
    import hashlib

    expected = hash_verdict(hashlib.sha256(media_bytes(video_id)).digest())
    validate(body, VerdictBody.model_json_schema(by_alias=True))
    assert (body["state"], body["verdict"], body["score"]["p_fake"]) == ("complete", expected.verdict, expected.p_fake)
    assert body["content_sha256"] == hashlib.sha256(media_bytes(video_id)).hexdigest()


def test_send_task_by_name_ends_in_a_verdict(system):
    running, http = system
    with Celery(broker=celery_url(running.broker_url)) as celery:
        celery.conf.task_serializer = "json"
        celery.send_task("veriframe.screen", kwargs={"video_id": "vid_0"}, queue="default", headers={"traceparent": "00-abc-def-01"})
        celery.send_task("veriframe.screen", kwargs={"video_id": "vid_1"}, queue="bulk")
    body = wait_until_done(http, "vid_0")
    assert_hash_verdict(body, "vid_0")
    assert body["trace_id"] == "00-abc-def-01"
    assert_hash_verdict(wait_until_done(http, "vid_1"), "vid_1")


def test_raw_lpush_ends_in_a_verdict(system):
    running, http = system
    running.control.client.lpush("urgent", raw_message("vid_2"))
    assert_hash_verdict(wait_until_done(http, "vid_2"), "vid_2")


def test_http_ends_in_a_verdict_and_says_where(system):
    _running, http = system
    answer = http.post("/v1/videos", json={"video_id": "vid_3", "attributes": {"uploader": "u1"}})
    assert (answer.status_code, answer.headers["location"]) == (202, "/v1/videos/vid_3")
    body = wait_until_done(http, "vid_3")
    assert_hash_verdict(body, "vid_3")
    assert body["attributes"] == {"uploader": "u1"}


def test_cloud_events_by_http_and_stream(system):
    running, http = system
    event = {"specversion": "1.0", "type": "t", "source": "/uploads", "id": "e1", "subject": "vid_4", "data": {"video_id": "vid_4"}}
    for _ in range(2):  # delivered twice
        assert http.post("/v1/videos", json=event, headers={"content-type": "application/cloudevents+json"}).status_code == 202
    binary = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/uploads", "ce-id": "e2", "ce-subject": "vid_5"}
    assert http.post("/v1/videos", json={}, headers=binary).status_code == 202
    stream_event = {**event, "id": "e3", "data": {"video_id": "vid_6"}}
    running.control.client.xadd("video-events", {"event": json.dumps(stream_event)})
    for video_id in ("vid_4", "vid_5", "vid_6"):
        assert_hash_verdict(wait_until_done(http, video_id), video_id)
    pending = running.control.client.xpending("video-events", "veriframe")
    assert pending["pending"] == 0


def test_an_unknown_id_fails_with_a_sentence(system):
    _running, http = system
    http.post("/v1/videos", json={"video_id": "nobody"})
    body = wait_until_done(http, "nobody")
    assert (body["state"], body["error"]["code"], body["score"]) == ("failed", "FETCH_NOT_FOUND", None)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("child-segfault", "DECODER_CRASH"),
        ("child-oom", "DECODE_RESOURCE_LIMIT"),
        ("child-hang", "DECODE_TIMEOUT"),
        ("memory-error", "DECODE_RESOURCE_LIMIT"),
    ],
)
def test_poison_in_the_child_ends_typed_and_the_worker_lives(system, kind, code):
    running, http = system
    http.post("/v1/videos", json={"video_id": kind})
    body = wait_until_done(http, kind)
    assert (body["state"], body["error"]["code"]) == ("failed", code)
    assert running.worker.is_running


def test_malformed_messages_become_dead_letters_and_nothing_else_stops(system):
    running, http = system
    client = running.control.client
    bad = [b"not json", b"{}", raw_message("../etc/passwd").encode(), raw_message("vid_7").replace("veriframe.screen", "x.y").encode()]
    for message in bad:
        client.lpush("default", message)
    client.xadd("video-events", {"event": "junk"})
    client.xadd("video-events", {"wrong_field": "x"})
    client.lpush("default", raw_message("vid_7"))
    assert_hash_verdict(wait_until_done(http, "vid_7"), "vid_7")
    end = time.monotonic() + 10
    while (
        len(
            codes := {letter["code"] for letter in running.control.ledger.list_dead_letters()}
            & {"INVALID_MESSAGE", "UNKNOWN_VERSION", "INVALID_VIDEO_ID", "UNKNOWN_TASK"}
        )
        < 4
        and time.monotonic() < end
    ):
        time.sleep(0.1)
    assert codes == {"INVALID_MESSAGE", "UNKNOWN_VERSION", "INVALID_VIDEO_ID", "UNKNOWN_TASK"}
    assert client.llen("default") == 0


def test_the_same_id_through_every_door_is_one_verdict(system):
    running, http = system
    for _ in range(3):
        running.control.client.lpush("default", raw_message("vid_8"))
        assert http.post("/v1/videos", json={"video_id": "vid_8"}).status_code == 202
    wait_until_done(http, "vid_8")
    time.sleep(0.5)
    verdicts = [v for v in http.get("/v1/verdicts", params={"limit": 500}).json()["verdicts"] if v["video_id"] == "vid_8"]
    assert len(verdicts) == 1


def test_process_poison_is_quarantined_and_neighbours_finish(system):
    running, http = system
    http.post("/v1/videos", json={"video_id": "process-segfault"})
    for i in range(20, 40):
        http.post("/v1/videos", json={"video_id": f"vid_{i}"})
    body = wait_until_done(http, "process-segfault", seconds=60)
    assert (body["state"], body["error"]["code"]) == ("failed", "POISONED")
    for i in range(20, 40):
        assert_hash_verdict(wait_until_done(http, f"vid_{i}", seconds=60), f"vid_{i}")
    [letter] = [x for x in running.control.ledger.list_dead_letters(code="POISONED")]
    assert letter["attempts"] == 3


def test_health_and_metrics_speak(system):
    _running, http = system
    assert http.get("/livez").text == "ok"
    assert http.get("/readyz").status_code == 200
    assert http.get("/health").json()["status"] == "ok"
    metrics = http.get("/metrics").text
    assert 'veriframe_videos_enqueued_total{queue="default",source="http"}' in metrics
    assert "veriframe_reconciler_leader 1.0" in metrics


def test_the_embedded_broker_refuses_strangers_and_eviction(system):
    running, _http = system
    path = running.broker_url.removeprefix("unix://").split("?")[0]
    client = redis.Redis(unix_socket_path=path)
    assert client.config_get("maxmemory-policy") == {b"maxmemory-policy": b"noeviction"} or client.config_get("maxmemory-policy") == {
        "maxmemory-policy": "noeviction"
    }
    assert client.info("persistence")["aof_enabled"] == 1
    assert client.config_get("port") in ({b"port": b"0"}, {"port": "0"})
    client.close()
