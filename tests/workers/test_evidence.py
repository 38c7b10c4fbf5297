"""`evidence/1`: made from the stored verdict, served with an ETag, there for jobs in every state."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, validate

import workers.messages
from api_caller import KEYS, READ_KEY, SUBMIT_KEY, assert_typed, make_caller
from verdict_builders import made_body, made_verdict, put_verdict
from workers.ledger import Ledger, Submission
from workers.messages import EvidenceBody, JobFacts, VerdictBody, evidence_body, failure_body, parse_enqueue, pending_body, verdict_body

SCHEMA = Path(workers.messages.__file__).parent / "schemas" / "evidence-1.schema.json"


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


def test_the_published_schema_is_the_one_in_the_code():
    published = json.loads(SCHEMA.read_text())
    assert published == EvidenceBody.model_json_schema(by_alias=True), (
        "a contract changed: keep it backward compatible and publish it again"
    )
    Draft202012Validator.check_schema(published)


def test_evidence_says_what_the_verdict_says_in_columns_with_the_worst_face_first():
    verdict = made_body(peaks=(0.3, 0.95))
    evidence = evidence_body(verdict)

    assert (evidence.verdict, evidence.p_fake) == ("manipulated", 0.95)
    assert (evidence.thresholds.review, evidence.thresholds.fake) == (0.6, 0.81)
    assert [track.id for track in evidence.tracks] == [2, 1]
    samples = evidence.tracks[0].samples
    assert len(samples.t) == len(samples.score) == len(samples.bbox) == 8
    assert list(zip(samples.t, samples.score, strict=True)) == verdict.tracks[1].scores
    assert evidence.tracks[0].window == (2.0, 6.0)
    assert evidence.moments[0].score == max(samples.score)
    assert evidence.moments[0].detector == "blend"
    assert all(moment.thumb is None for moment in evidence.moments)
    validate(evidence.to_json(), json.loads(SCHEMA.read_text()))


def test_evidence_names_the_face_that_decided():
    verdict = verdict_body(replace(made_verdict(peaks=(0.3, 0.95)), deciding_track=2), job=JobFacts(video_id="v"))
    assert evidence_body(verdict).to_json()["deciding_track"] == 2

    of_an_older_build = {name: value for name, value in verdict.to_json().items() if name != "deciding_track"}
    assert evidence_body(VerdictBody.model_validate(of_an_older_build)).deciding_track is None


@pytest.mark.parametrize(
    "outcome",
    [
        pending_body(state="queued", job=JobFacts(video_id="v")),
        pending_body(state="processing", job=JobFacts(video_id="v")),
        failure_body(code="NOT_MEDIA", message="m", retryable=False, job=JobFacts(video_id="v")),
        made_body(peaks=()),
    ],
)
def test_an_outcome_without_a_score_has_evidence_without_numbers(outcome):
    evidence = evidence_body(outcome)
    assert (evidence.p_fake, evidence.tracks, evidence.moments) == (None, [], [])
    assert evidence.state == outcome.state
    validate(evidence.to_json(), json.loads(SCHEMA.read_text()))


def test_a_verdict_of_an_older_build_has_evidence_without_boxes():
    old = made_body().to_json()
    for track in old["tracks"]:
        del track["boxes"], track["window"], track["worst"]["detector"]
    evidence = evidence_body(VerdictBody.model_validate(old))
    assert evidence.tracks[0].samples.bbox is None
    assert evidence.tracks[0].window is None


def test_the_api_serves_evidence_with_an_etag_and_only_to_readers(ledger):
    put_verdict(ledger, "vid_1")
    api = make_caller(ledger, api_keys=KEYS)
    path, mine = "/v1/videos/vid_1/evidence", {"X-API-Key": READ_KEY}

    assert_typed(api.get(path), 401, "UNAUTHENTICATED")
    assert_typed(api.get(path, headers={"X-API-Key": SUBMIT_KEY}), 403, "FORBIDDEN")
    first = api.get(path, headers=mine)
    assert first.status_code == 200
    assert first.json() == evidence_body(VerdictBody.model_validate(api.get("/v1/videos/vid_1", headers=mine).json())).to_json()
    again = api.get(path, headers={**mine, "If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert api.get(path, headers={**mine, "If-None-Match": '"other"'}).status_code == 200


def test_evidence_of_waiting_and_unknown_videos(ledger):
    api = make_caller(ledger)
    ledger.submit(Submission(request=parse_enqueue({"video_id": "waiting"}), door="http"))
    assert api.get("/v1/videos/waiting/evidence").json()["state"] == "queued"
    for unknown in ("nobody", "x" * 200, "%3Cscript%3E"):
        assert_typed(api.get(f"/v1/videos/{unknown}/evidence"), 404, "UNKNOWN_VIDEO")
