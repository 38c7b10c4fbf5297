"""Explanations from the question to the picture: the web asks, a worker makes it from the media, it is refused with a reason or it expires."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import pytest
from celery import Celery

from api_caller import KEYS, READ_KEY, assert_typed, make_caller
from builders import astronaut_pictures, write_clip
from detect_core.options import ScreeningOptions
from detect_core.pipeline import Screener
from verdict_builders import put_verdict
from workers.explaining import ExplainedVideo, Explaining, NothingToExplainError, explain_video
from workers.in_flight import InFlight
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages import EXPLAIN_TASK, JobFacts, VerdictBody, evidence_body, explain_message, parse_enqueue, verdict_body
from workers.settings import Settings
from workers.sources import ConfiguredSources
from workers.tasks import register

ADMIN = {"x-api-key": "admin-secret"}


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "vid_1.mp4", astronaut_pictures(50))
    return folder


@pytest.fixture(scope="module")
def verdict(media) -> VerdictBody:
    """The real verdict about the clip."""
    screener = Screener.load(options=ScreeningOptions(num_frames=8))
    path = media / "vid_1.mp4"
    with path.open("rb") as file:
        made = screener.screen(file)
    screener.close()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return verdict_body(made, job=JobFacts(video_id="vid_1", job_id="f" * 32, content_sha256=digest))


def commit(ledger: Ledger, verdict: VerdictBody, media: Path, **changes) -> str:
    request = parse_enqueue({"video_id": "vid_1", "source": str(media / "vid_1.mp4")})
    job_id = ledger.submit(Submission(request=request, door="http")).ledger_id
    claim = ledger.claim(job_id, owner="tester", lease_seconds=60)
    assert isinstance(claim, Claim)
    body = {**verdict.to_json(), "job_id": job_id, **changes}
    record = VerdictRecord(
        content_sha256=body["content_sha256"],
        bundle_set=body["bundle_set"],
        policy=body["score"]["policy"],
        verdict=body["verdict"],
        p_fake=body["score"]["p_fake"],
        body=body,
    )
    assert ledger.commit_verdict(claim, verdict=record, urls=[])
    return job_id


def make_explaining(ledger: Ledger, media: Path, **changes) -> Explaining:
    settings = Settings(media_roots=(media,), **changes)
    return Explaining(ledger=ledger, sources=ConfiguredSources(settings), settings=settings, in_flight=InFlight())


def test_a_person_asks_a_worker_answers_and_the_pictures_come_back(ledger, verdict, media):
    job_id = commit(ledger, verdict, media)
    api = make_caller(ledger)

    asked = api.post("/v1/videos/vid_1/explanation")
    assert (asked.status_code, asked.json()["state"]) == (202, "wanted")
    assert api.post("/v1/videos/vid_1/explanation").status_code == 202
    assert api.dispatcher.explanations == [job_id], "one question, one message"
    assert_typed(api.get("/v1/videos/vid_1/explanation/clip"), 404, "UNKNOWN_VIDEO")

    assert make_explaining(ledger, media).run(job_id) == "ready"

    answer = api.get("/v1/videos/vid_1/explanation")
    assert answer.headers["cache-control"] == "private, no-store"
    body = answer.json()
    assert body["state"] == "ready"
    worst = body["moments"][0]
    assert worst["t"] == verdict.evidence[0].t
    assert {"crop", "grad_cam"} <= worst["pictures"].keys()
    assert all(base64.b64decode(picture).startswith(b"\xff\xd8") for moment in body["moments"] for picture in moment["pictures"].values())
    clip = api.get("/v1/videos/vid_1/explanation/clip")
    assert clip.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(clip.content)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    assert api.post("/v1/videos/vid_1/explanation").status_code == 200, "it is there already"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"content_sha256": "0" * 64}, "FETCH_CHANGED"),
        ({"bundle_set": "other@0123456789ab"}, "MODEL_UNAVAILABLE"),
        ({"evidence": [], "tracks": []}, "NOTHING_TO_EXPLAIN"),
    ],
)
def test_what_stands_in_the_way_is_named(ledger, verdict, media, changes, code):
    job_id = commit(ledger, verdict, media, **changes)
    api = make_caller(ledger)
    api.post("/v1/videos/vid_1/explanation")
    assert make_explaining(ledger, media).run(job_id) == code
    refused = api.get("/v1/videos/vid_1/explanation").json()
    assert (refused["state"], refused["error"]["code"]) == ("refused", code)
    assert "moments" not in refused


def test_media_that_are_gone_are_named_too(ledger, verdict, media, tmp_path):
    job_id = commit(ledger, verdict, media)
    ledger.want_explanation(job_id, seconds=60)
    assert make_explaining(ledger, tmp_path).run(job_id) == "FETCH_NOT_ALLOWED"
    ledger.want_explanation("0" * 32, seconds=60)
    assert make_explaining(ledger, media).run("0" * 32) == "NOTHING_TO_EXPLAIN"


def test_a_verdict_that_outlived_its_job_is_explained_from_where_the_template_says(ledger, verdict, media):
    job_id = commit(ledger, verdict, media)
    assert ledger.retire(days=-1) == 1
    ledger.want_explanation(job_id, seconds=60)
    assert make_explaining(ledger, media, media_template=f"{media}/{{video_id}}.mp4").run(job_id) == "ready"


def test_only_reviewers_ask_and_only_about_finished_videos(ledger):
    put_verdict(ledger, "vid_1")
    ledger.submit(Submission(request=parse_enqueue({"video_id": "waiting"}), door="http"))
    api = make_caller(ledger, api_keys=KEYS)
    assert_typed(api.post("/v1/videos/vid_1/explanation", headers={"x-api-key": READ_KEY}), 403, "FORBIDDEN")
    assert_typed(api.get("/v1/videos/vid_1/explanation", headers=ADMIN), 404, "UNKNOWN_VIDEO")
    assert api.post("/v1/videos/waiting/explanation", headers=ADMIN).status_code == 409
    off = make_caller(ledger, explanation_seconds=0)
    assert off.post("/v1/videos/vid_1/explanation").status_code == 409
    assert off.dispatcher.explanations == []


def test_requests_wait_without_a_thread_and_without_the_media(ledger, media):
    """Three people ask at once: one thread explains for all, one after the other; who no longer waits is left out."""
    for number in range(4):
        ledger.want_explanation(f"job_{number}", seconds=60 if number < 3 else -1)
    explaining, began, go_on, done = make_explaining(ledger, media), threading.Event(), threading.Event(), []

    def explain(ledger_id: str) -> ExplainedVideo:
        began.set()
        assert go_on.wait(timeout=30)
        done.append((ledger_id, threading.get_ident()))
        return ExplainedVideo(body={"seconds": {}}, pictures={}, clip=None)

    explaining._explain = explain
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(explaining.run, "job_0")
        assert began.wait(timeout=30)
        assert [explaining.run(f"job_{number}") for number in (1, 2, 3)] == ["waiting"] * 3
        assert explaining._in_flight.is_busy
        go_on.set()
        assert first.result(timeout=30) == "ready"
    assert [ledger_id for ledger_id, _thread in done] == ["job_0", "job_1", "job_2"]
    assert len({thread for _ledger_id, thread in done}) == 1
    assert not explaining._in_flight.is_busy


def test_a_worker_that_stops_tells_who_waits(ledger, media):
    ledger.want_explanation("job", seconds=60)
    explaining = make_explaining(ledger, media)
    explaining._in_flight.draining.set()
    assert explaining.run("job") == "DRAINING"
    assert ledger.explanation("job").error_message.endswith("ask again")


class Draining:
    """What `register` needs of a screening that never runs."""

    def __init__(self) -> None:
        self.in_flight = InFlight()


def test_the_worker_knows_the_task_that_the_message_names(ledger, verdict, media):
    job_id = commit(ledger, verdict, media)
    ledger.want_explanation(job_id, seconds=60)
    app = Celery("test", broker="memory://", set_as_current=False)
    register(app, Draining(), make_explaining(ledger, media), on_lost=lambda _channel: None)
    assert f'"task": "{EXPLAIN_TASK}"' in explain_message(job_id, queue="q")
    app.tasks[EXPLAIN_TASK].apply(kwargs={"ledger_id": job_id, "schema_version": 99}, throw=True)
    assert ledger.explanation(job_id).state == "WANTED", "another build's message does nothing"
    app.tasks[EXPLAIN_TASK].apply(kwargs={"ledger_id": job_id, "schema_version": 1}, throw=True)
    assert ledger.explanation(job_id).state == "READY"


@pytest.mark.parametrize(
    ("num_frames", "policy", "requested"),
    [(24, "stratified/4+3_looks/2", 8), (ScreeningOptions().num_frames, "stratified/4+first_look/3", 8)],
)
def test_a_verdict_of_several_looks_or_a_first_one_is_explained_too(media, num_frames, policy, requested):
    """Its moments lie where the whole decode looked, not where so few frames alone would lie."""
    from detect_core.calibration import load_bundle_set

    screener = Screener.load(options=ScreeningOptions(num_frames=num_frames, first_look=None, num_looks_undecided=1))
    with (media / "vid_1.mp4").open("rb") as file:
        made = screener.screen(file)
        screener.close()
        sampling = replace(made.sampling, policy=policy, num_requested=requested)
        body = verdict_body(replace(made, sampling=sampling), job=JobFacts(video_id="vid_1", job_id="f" * 32))
        file.seek(0)
        explained = explain_video(file, body, bundle_set=load_bundle_set())
    assert [moment["t"] for moment in explained.body["moments"]] == [moment.t for moment in made_moments(body)[:3]]


def test_a_track_detector_that_decided_is_named_beside_the_one_that_is_shown(verdict, media):
    from detect_core.calibration import load_bundle_set

    first = made_moments(verdict)[0].model_copy(update={"detector": "temporal"})
    with (media / "vid_1.mp4").open("rb") as file:
        explained = explain_video(file, verdict.model_copy(update={"evidence": [first]}), bundle_set=load_bundle_set())
    (shown,) = explained.body["moments"]
    assert shown["loudest"] == "temporal"
    assert shown["detector"] in {"blend", "synthesis", "autogan"}
    assert shown["score"] == first.score
    assert shown["detector_score"] == pytest.approx(1 / (1 + math.exp(-shown["logit"])))


def test_moments_that_do_not_come_back_are_an_answer_too(verdict, tmp_path):
    from detect_core.calibration import load_bundle_set

    write_clip(tmp_path / "other.mp4", astronaut_pictures(50), rate=7)
    with (tmp_path / "other.mp4").open("rb") as file, pytest.raises(NothingToExplainError, match="sampled otherwise"):
        explain_video(file, verdict, bundle_set=load_bundle_set())


def made_moments(body: VerdictBody) -> list:
    return [moment for moment in evidence_body(body).moments if moment.detector is not None]


def test_the_same_verdict_is_explained_the_same_way(verdict, media):
    from detect_core.calibration import load_bundle_set

    def once():
        with (media / "vid_1.mp4").open("rb") as file:
            return explain_video(file, verdict, bundle_set=load_bundle_set())

    first, second = once(), once()
    assert first.pictures == second.pictures
    assert first.body["moments"] == second.body["moments"]
    assert {name.split("-")[1] for name in first.pictures} == {"1", "2", "3"}
