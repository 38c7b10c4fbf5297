"""Public contracts: what is accepted, what is refused by name, and that the published schemas are the code's."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, validate

import workers.messages
from detect_core.structs import DetectorReport, Evidence, Sampling, Segment, TrackScore, Verdict, VideoInfo
from detect_core.versions import POLICY
from workers.errors import InvalidMessageError, InvalidVideoIdError, UnknownTaskError, UnknownVersionError
from workers.messages import (
    EnqueueRequest,
    Events,
    JobFacts,
    VerdictBody,
    dispatch_message,
    enqueue_message,
    failure_body,
    parse_celery_message,
    parse_cloud_event,
    parse_enqueue,
    parse_event,
    parse_s3_notification,
    pending_body,
    verdict_body,
)
from workers.messages.events import video_id_of_object

SCHEMAS = Path(workers.messages.__file__).parent / "schemas"
EVENT = {"specversion": "1.0", "type": "com.example.video.uploaded", "source": "/uploads", "id": "1", "subject": "vid_1"}


def celery_message(kwargs: object, *, task: str = "veriframe.screen", **changes: object) -> bytes:
    message = {
        "body": base64.b64encode(json.dumps([[], kwargs, {}]).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": "1"},
        "properties": {"body_encoding": "base64", "delivery_tag": "1"},
        **changes,
    }
    return json.dumps(message).encode()


@pytest.mark.parametrize(
    "video_id", ["", "a" * 129, "../etc/passwd", "a/b", "a.mp4", "a\0b", "a b", "ä", "a\n", "..", "%2e%2e", "a\\b", "٣"]
)
def test_ids_with_path_tricks_are_refused_by_name(video_id):
    with pytest.raises(InvalidVideoIdError, match="1-128 characters"):
        parse_enqueue({"video_id": video_id})


@pytest.mark.parametrize("video_id", ["a", "vid_123", "A-Z_09", "x" * 128, "-", "_"])
def test_plain_ids_are_taken(video_id):
    assert parse_enqueue({"video_id": video_id}).video_id == video_id


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([], InvalidMessageError),
        ({}, InvalidMessageError),
        ({"video_id": 5}, InvalidMessageError),
        ({"video_id": "a", "typo": 1}, InvalidMessageError),
        ({"video_id": "a", "lane": "fast"}, InvalidMessageError),
        ({"video_id": "a", "content_sha256": "ABC"}, InvalidMessageError),
        ({"video_id": "a", "callback_url": "file:///etc"}, InvalidMessageError),
        ({"video_id": "a", "attributes": {"k": "x" * 5000}}, InvalidMessageError),
        ({"video_id": "a", "attributes": {"k": []}}, InvalidMessageError),
        ({"video_id": "a", "schema_version": 2}, UnknownVersionError),
        ({"video_id": "a", "schema_version": True}, UnknownVersionError),
    ],
)
def test_breaches_of_the_enqueue_schema_are_named(data, error):
    with pytest.raises(error):
        parse_enqueue(data)


def test_a_policy_that_this_version_does_not_have_is_refused_with_the_one_it_has():
    assert [parse_enqueue({"video_id": "a", "policy": policy}).policy for policy in (None, POLICY)] == [None, POLICY]
    with pytest.raises(InvalidMessageError, match=rf"policy: .*{re.escape(POLICY)}"):
        parse_enqueue({"video_id": "a", "policy": "strict-no-such"})


def test_a_celery_message_takes_its_lane_from_the_inbox_unless_it_names_one():
    assert parse_celery_message(celery_message({"video_id": "a"}), lane="bulk")[0].lane == "bulk"
    assert parse_celery_message(celery_message({"video_id": "a", "lane": "urgent"}), lane="bulk")[0].lane == "urgent"


def test_our_own_enqueue_message_is_read_back():
    request = EnqueueRequest(video_id="a", source="s3://b/k", lane="urgent", attributes={"n": 1})
    assert parse_celery_message(enqueue_message(request).encode(), lane="default")[0] == request


def test_a_plain_text_body_and_a_traceparent_are_read():
    raw = celery_message(
        {}, body=json.dumps([[], {"video_id": "a"}, None]), properties={}, headers={"task": "veriframe.screen", "traceparent": "00-x"}
    )
    assert parse_celery_message(raw, lane="default") == (EnqueueRequest(video_id="a", lane="default"), "00-x")


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", InvalidMessageError),
        (b"\xff\xfe", InvalidMessageError),
        (b"[1]", InvalidMessageError),
        (b"[" * 100_000, InvalidMessageError),
        (b"[" * 30_000, InvalidMessageError),
        (b"{}", UnknownVersionError),
        (json.dumps({"task": "veriframe.screen", "args": [], "kwargs": {}}).encode(), UnknownVersionError),
        (celery_message({"video_id": "a"}, task="os.system"), UnknownTaskError),
        (celery_message({"video_id": "a"}, **{"content-type": "application/x-python-serialize"}), InvalidMessageError),
        (celery_message({"video_id": "a"}, body="!!!"), InvalidMessageError),
        (celery_message({"video_id": "a"}, body=base64.b64encode(b"[[1],{},{}]").decode()), InvalidMessageError),
        (celery_message({"video_id": "a"}, body=base64.b64encode(b'["a"]').decode()), InvalidMessageError),
        (celery_message({"video_id": "a"}, properties=[1]), InvalidMessageError),
        (celery_message({"video_id": "a", "schema_version": 9}), UnknownVersionError),
    ],
)
def test_malformed_queue_messages_are_refused_by_name(raw, error):
    with pytest.raises(error):
        parse_celery_message(raw, lane="default")


@given(
    st.binary(max_size=400)
    | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        lambda x: json.dumps(x).encode()
    )
)
def test_no_bytes_at_all_raise_anything_untyped(raw):
    for parse in (lambda: parse_celery_message(raw, lane="default"), lambda: parse_event(raw)):
        with contextlib.suppress(InvalidMessageError):
            parse()


DEEP = "[" * 900 + "]" * 900


@pytest.mark.parametrize(
    "event",
    [
        {**EVENT, "id": "\ud800"},
        {**EVENT, "source": "/a\udfff"},
        {**EVENT, "data": {"attributes": {"\ud800": 1}}},
        {**EVENT, "data": "[" * 100_000},
        {**EVENT, "data": DEEP},
        {**EVENT, "specversion": json.loads(DEEP)},
        {"Records": [{"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "\ud800.mp4"}}}]},
        {"Records": [{"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "a", "eTag": "\ud800"}}}]},
    ],
)
def test_events_that_decode_but_cannot_be_kept_are_refused_with_a_message_that_can(event):
    with pytest.raises(InvalidMessageError) as refused:
        parse_event(json.dumps(event).encode())
    assert str(refused.value).isascii()


def test_whole_surrogate_pairs_are_characters():
    raw = json.dumps({**EVENT, "data": {"attributes": {"title": "\U0001f3ac"}}}).encode()
    assert b"\\ud83c" in raw
    assert parse_event(raw).requests[0].request.attributes == {"title": "\U0001f3ac"}


def test_cloud_events_name_their_video_and_dedupe_by_source_and_id():
    one = parse_cloud_event({**EVENT, "data": {"url": "s3://b/vid_1.mp4"}})
    assert (one.request.video_id, one.request.source) == ("vid_1", "s3://b/vid_1.mp4")
    assert one.dedupe_key == parse_cloud_event({**EVENT, "data": {"video_id": "vid_1"}}).dedupe_key
    assert one.dedupe_key != parse_cloud_event({**EVENT, "id": "2", "data": {}}).dedupe_key


def test_the_data_of_a_cloud_event_may_come_in_base64():
    data = {"video_id": "vid_2", "url": "s3://b/vid_2.mp4", "lane": "bulk"}
    event = {**EVENT, "datacontenttype": "application/json"}
    wrapped = parse_cloud_event({**event, "data_base64": base64.b64encode(json.dumps(data).encode()).decode()})
    assert wrapped == parse_cloud_event({**event, "data": data})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"specversion": "0.3"}, UnknownVersionError),
        ({"id": ""}, InvalidMessageError),
        ({"source": 5}, InvalidMessageError),
        ({"data": "junk"}, InvalidMessageError),
        ({"data": [1]}, InvalidMessageError),
        ({"data_base64": "!"}, InvalidMessageError),
        ({"data_base64": 5}, InvalidMessageError),
        ({"data_base64": "/w=="}, InvalidMessageError),
        ({"data_base64": "e30=", "data": {}}, InvalidMessageError),
        ({"subject": "../x"}, InvalidVideoIdError),
    ],
)
def test_broken_cloud_events_are_refused_by_name(change, error):
    with pytest.raises(error):
        parse_cloud_event({**EVENT, **change})


def test_s3_notifications_become_requests_and_removals_do_not():
    def record(name: str, key: str, etag: str = "e") -> dict:
        return {"eventName": name, "s3": {"bucket": {"name": "up"}, "object": {"key": key, "eTag": etag}}}

    events = parse_s3_notification(
        {
            "Records": [
                record("s3:ObjectCreated:Put", "a/vid_1.mp4"),
                record("ObjectCreated:Post", "my+clip%21.mp4"),
                record("s3:ObjectRemoved:Delete", "x"),
                record("s3:ObjectCreated:Put", "folder/"),
            ]
        }
    ).requests
    assert [e.request.source for e in events] == ["s3://up/a/vid_1.mp4", "s3://up/my clip!.mp4"]
    assert [e.request.video_id for e in events] == [video_id_of_object("up", "a/vid_1.mp4"), video_id_of_object("up", "my clip!.mp4")]
    again = parse_s3_notification({"Records": [record("s3:ObjectCreated:Put", "a/vid_1.mp4", etag="other")]}).requests
    assert again[0].dedupe_key != events[0].dedupe_key
    assert again[0].request == events[0].request
    assert again[0].source_version != events[0].source_version


def test_one_odd_record_of_a_notification_takes_no_other_with_it():
    records = [
        {"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": key}}}
        for key in ("good_0.mp4", "folder/Icon%0D", "good_1.mp4")
    ]
    events = parse_event(json.dumps({"Records": records}).encode())
    assert [event.request.source for event in events.requests] == ["s3://b/good_0.mp4", "s3://b/good_1.mp4"]
    [refused] = events.refused
    assert (refused.place, json.loads(refused.raw)) == (1, {"Records": [records[1]]})
    assert str(refused.error).startswith("Records[1]: ")


def test_the_notification_with_which_s3_tries_a_target_asks_for_nothing():
    assert parse_event(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}).encode()) == Events()


def test_an_object_is_told_apart_from_its_namesakes_and_its_id_stays_readable():
    objects = [("b", "clip.mp4"), ("b", "alice/clip.mp4"), ("b", "bob/clip.mp4"), ("b", "clip.mov"), ("c", "clip.mp4"), ("b", "clip")]
    ids = [video_id_of_object(*each) for each in objects]
    assert len(set(ids)) == len(objects)
    assert all(video_id.startswith("clip-") and len(video_id) == 21 for video_id in ids)
    odd = [video_id_of_object("b", key) for key in ("x" * 1020 + ".mp4", "x" * 1021 + ".mp4", "my clip!.mp4", ".mp4", "a/", "\u0663.mp4")]
    assert len({*odd}) == len(odd)
    for video_id in (*ids, *odd):
        assert parse_enqueue({"video_id": video_id}).video_id == video_id


@pytest.mark.parametrize(
    "broken", [[], {}, {"Records": 1}, {"Records": [1]}, {"Records": [{"eventName": "s3:ObjectCreated:Put"}]}, {"Records": [{}] * 1001}]
)
def test_broken_notifications_are_refused(broken):
    with pytest.raises(InvalidMessageError):
        parse_s3_notification(broken)


def test_a_dispatch_message_carries_the_row_and_nothing_else():
    message = json.loads(dispatch_message("f" * 32, queue="veriframe.dispatch.bulk"))
    body = json.loads(base64.b64decode(message["body"]))
    assert body == [[], {"ledger_id": "f" * 32, "schema_version": 1}, {}]


def full_verdict() -> Verdict:
    worst = Evidence(track_id=1, pts_seconds=4.2, xyxy=(0, 0, 10, 10), score=0.99, detector="blend", thumbnail_jpeg=b"jpeg")
    return Verdict(
        verdict="manipulated",
        p_fake=0.93,
        reason_codes=(),
        sentence="one face looks pasted",
        video=VideoInfo(
            width_px=64, height_px=48, duration_seconds=9.8, num_packets=245, num_keyframes=3, codec="h264", container="mp4",
            pixel_format="yuv420p", rotation_degrees=0, frame_rate=25.0, warnings=("VFR",),
        ),
        sampling=Sampling(policy="uniform", num_requested=8, num_decoded=8, num_faces=8, pts_seconds=(0.0, 1.0)),
        tracks=(TrackScore(track_id=1, num_crops=8, time_seconds=(0.0, 9.8), p_fake=0.93, z=2.0, worst=worst, scores=((0.0, 0.5),)),),
        segments=(Segment(track_id=1, start_seconds=3.9, end_seconds=5.1, peak=0.99),),
        detectors=(DetectorReport(name="blend", version="1", sha256="ab", state="scored", p_fake=0.9, seconds=0.04),),
        evidence=(worst,),
        warnings=("VFR", "HDR"),
        bundle_set="set@abc",
        policy="standard",
        t_review=0.6,
        t_fake=0.81,
        calibration="iso",
        stage_seconds={"decode": 0.5},
        cpu_seconds=1.5,
    )  # fmt: skip


def test_a_verdict_is_expressed_completely():
    body = verdict_body(full_verdict(), job=JobFacts(video_id="v", job_id="j", timing_ms={"queue": 3, "total": 600})).to_json()
    assert (body["schema"], body["verdict"], body["score"]["p_fake"], body["error"]) == ("verdict/1", "manipulated", 0.93, None)
    assert body["tracks"][0]["worst"] == {
        "t": 4.2,
        "bbox": [0, 0, 10, 10],
        "score": 0.99,
        "detector": "blend",
        "thumb": base64.b64encode(b"jpeg").decode(),
    }
    assert body["timing_ms"] == {"decode": 500, "queue": 3, "total": 600}
    assert body["warnings"] == ["VFR", "HDR"]


def test_a_failure_has_no_score_and_a_pending_job_no_verdict():
    failed = failure_body(code="NOT_MEDIA", message="m", retryable=False, job=JobFacts(video_id="v")).to_json()
    assert (failed["state"], failed["verdict"], failed["score"], failed["error"]["code"]) == ("failed", None, None, "NOT_MEDIA")
    assert pending_body(state="queued", job=JobFacts(video_id="v")).to_json()["state"] == "queued"


@pytest.mark.parametrize(("name", "model"), [("verdict-1.schema.json", VerdictBody), ("enqueue-1.schema.json", EnqueueRequest)])
def test_the_published_schema_is_the_one_in_the_code(name, model):
    published = json.loads((SCHEMAS / name).read_text())
    assert published == model.model_json_schema(by_alias=True), "a contract changed: keep it backward compatible and publish it again"
    Draft202012Validator.check_schema(published)


def test_every_kind_of_body_is_valid_by_the_published_schema():
    schema = json.loads((SCHEMAS / "verdict-1.schema.json").read_text())
    facts = JobFacts(video_id="v")
    for body in (
        verdict_body(full_verdict(), job=facts),
        failure_body(code="X", message="m", retryable=True, job=facts),
        pending_body(state="processing", job=facts),
    ):
        validate(body.to_json(), schema)


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "s3://bucket/a\x00b"},
        {"source": "a\nb"},
        {"policy": "p\x00"},
        {"callback_url": "https://host/\x00"},
        {"callback_url": "https://"},
        {"attributes": {"a": float("nan")}},
        {"attributes": {"a": float("inf")}},
        {"attributes": {"a": "\ud800"}},
        {"attributes": {"\udfff": 1}},
    ],
)
def test_what_no_database_or_answer_could_hold_is_refused_at_the_door(fields):
    with pytest.raises(InvalidMessageError):
        parse_enqueue({"video_id": "a", **fields})
