"""Contract tests of the other services' shapes: every state of a verdict, each against a schema written from their documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from jsonschema import Draft202012Validator

from api_caller import KEYS, READ_KEY, SUBMIT_KEY, assert_typed, make_caller
from verdict_builders import made_body, put_verdict
from workers.adapters import ADAPTERS, coop_items
from workers.ledger import Ledger
from workers.messages import JobFacts, VerdictBody, failure_body, pending_body
from workers.web.shapes import Shape

SCHEMAS = Path(__file__).parent / "vendor_shapes"
FACTS = JobFacts(video_id="vid_1", job_id="f" * 32)
OLD = made_body().to_json()
for _track in OLD["tracks"]:
    del _track["boxes"], _track["window"]
OUTCOMES = {
    "queued": pending_body(state="queued", job=FACTS),
    "processing": pending_body(state="processing", job=FACTS),
    "failed": failure_body(code="NOT_MEDIA", message="not a video", retryable=False, job=FACTS),
    "authentic": made_body(peaks=(0.1, 0.2)),
    "suspicious": made_body(peaks=(0.7,)),
    "manipulated": made_body(peaks=(0.3, 0.95)),
    "no face": made_body(peaks=()),
    "crowd": made_body(peaks=(0.9,), word="inconclusive"),
    "older build": VerdictBody.model_validate(OLD),
}


def validator(shape: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{shape}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_every_adapter_has_a_schema_and_an_address():
    assert set(ADAPTERS) == {path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.json")} == set(get_args(Shape))


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("shape", ADAPTERS)
def test_every_outcome_fits_every_shape(shape, outcome):
    made = json.loads(json.dumps(ADAPTERS[shape](OUTCOMES[outcome])))
    assert [error.message for error in validator(shape).iter_errors(made)] == []


@pytest.mark.parametrize(
    ("outcome", "truemedia", "reality_defender", "sensity"),
    [
        ("queued", ("UPLOADING", "uncertain"), "ANALYZING", ("processing", None)),
        ("processing", ("PROCESSING", "uncertain"), "ANALYZING", ("processing", None)),
        ("failed", ("ERROR", "uncertain"), "UNABLE_TO_EVALUATE", ("failed", None)),
        ("authentic", ("COMPLETE", "low"), "AUTHENTIC", ("completed", "real")),
        ("suspicious", ("COMPLETE", "uncertain"), "SUSPICIOUS", ("completed", "fake")),
        ("manipulated", ("COMPLETE", "high"), "FAKE", ("completed", "fake")),
        ("no face", ("COMPLETE", "uncertain"), "UNABLE_TO_EVALUATE", ("completed", None)),
        ("crowd", ("COMPLETE", "uncertain"), "UNABLE_TO_EVALUATE", ("completed", None)),
    ],
)
def test_words_are_translated_as_the_table_says(outcome, truemedia, reality_defender, sensity):
    body = OUTCOMES[outcome]
    analysis, media, report = ADAPTERS["truemedia"](body), ADAPTERS["reality-defender"](body), ADAPTERS["sensity"](body)
    assert (analysis["state"], analysis["verdict"]) == truemedia
    assert media["overallStatus"] == media["resultsSummary"]["status"] == reality_defender
    assert (report["status"], report["result"] and report["result"]["class_name"]) == sensity
    assert report["no_faces"] == (outcome == "no face")


def test_a_failure_or_an_abstention_is_never_a_score():
    for outcome in ("queued", "failed", "no face"):
        body = OUTCOMES[outcome]
        assert ADAPTERS["reality-defender"](body)["resultsSummary"]["metadata"]["finalScore"] is None
        assert ADAPTERS["reality-defender-sdk"](body)["score"] is None
        assert ADAPTERS["sensity"](body)["result"] is None
        assert all(result["score"] is None for result in ADAPTERS["truemedia"](body)["results"].values())
        assert "p_fake" not in ADAPTERS["coop"](body)["items"][0]["data"]
        task = ADAPTERS["hive"](body)
        assert all(entry["bounding_poly"] == [] for each in task.get("status", []) for entry in each["response"]["output"])


def test_hive_has_one_entry_per_moment_and_a_polygon_per_face_with_classes_that_add_up():
    output = ADAPTERS["hive"](OUTCOMES["manipulated"])["status"][0]["response"]["output"]
    assert [entry["time"] for entry in output] == [float(i) for i in range(8)]
    for entry in output:
        assert [face["meta"]["id"] for face in entry["bounding_poly"]] == [1, 2]
        for face in entry["bounding_poly"]:
            assert sum(each["score"] for each in face["classes"]) == pytest.approx(1.0)
    worst = output[3]["bounding_poly"][1]
    assert worst["vertices"][0] == {"x": 13.0, "y": 20.0}
    assert worst["classes"][0]["score"] == OUTCOMES["manipulated"].tracks[1].scores[3][1]
    assert ADAPTERS["hive"](OUTCOMES["failed"])["status"][0]["status"]["code"] == "NOT_MEDIA"


def test_scales_follow_the_service():
    body = OUTCOMES["manipulated"]
    assert ADAPTERS["reality-defender"](body)["resultsSummary"]["metadata"]["finalScore"] == pytest.approx(95.0)
    assert ADAPTERS["reality-defender-sdk"](body)["score"] == 0.95
    assert ADAPTERS["sensity"](OUTCOMES["authentic"])["result"]["class_probability"] == pytest.approx(0.8)
    assert [model["status"] for model in ADAPTERS["reality-defender"](body)["models"]] == ["FAKE", "NOT_EVALUATED"]


def test_sensity_names_the_worst_frame_of_each_face():
    (first, second) = ADAPTERS["sensity"](OUTCOMES["manipulated"])["result"]["explanation"]
    assert (first["id"], first["fake_probability"], second["id"], second["fake_probability"]) == (1, 0.3, 2, 0.95)
    assert (second["fake_frame_ms"], second["fake_frame_idx"]) == (3000, 75)
    assert second["fake_bbox_average_size"] == pytest.approx(80.1)
    assert len(second["tracks"]) == 8
    assert "fake_face" not in second


@pytest.mark.parametrize(("word", "name", "probability"), [("authentic", "real", 0.45), ("manipulated", "fake", 0.55)])
def test_sensity_says_what_the_verdict_says_wherever_its_thresholds_lie(word, name, probability):
    result = ADAPTERS["sensity"](made_body(peaks=(0.55,), word=word))["result"]
    assert (result["class_name"], result["class_probability"]) == (name, pytest.approx(probability))


@pytest.mark.parametrize("outcome", ["authentic", "suspicious", "manipulated", "no face", "crowd"])
def test_coop_hears_that_people_are_needed_exactly_when_the_queue_does(outcome):
    ledger = Ledger.in_memory()
    word = "inconclusive" if outcome == "crowd" else None
    put_verdict(ledger, "vid_1", peaks=tuple(track.p_fake for track in OUTCOMES[outcome].tracks), word=word)
    (item,) = coop_items(OUTCOMES[outcome])["items"]
    assert item["data"]["needs_review"] is (ledger.review_item_of("vid_1") is not None)
    ledger.close()


def test_coop_gets_a_flat_item_of_the_type_that_was_made_there():
    (item,) = coop_items(OUTCOMES["suspicious"], type_id="abc")["items"]
    assert (item["id"], item["typeId"]) == ("vid_1", "abc")
    assert item["data"]["needs_review"] is True
    assert item["data"]["verdict"] == "suspicious"


def test_the_api_serves_each_shape_to_readers():
    ledger = Ledger.in_memory()
    put_verdict(ledger, "vid_1")
    api = make_caller(ledger, api_keys=KEYS)
    mine = {"x-api-key": READ_KEY}
    for shape in ADAPTERS:
        answer = api.get(f"/v1/videos/vid_1/as/{shape}", headers=mine)
        assert answer.status_code == 200
        assert list(validator(shape).iter_errors(answer.json())) == []
        assert api.get(f"/v1/videos/vid_1/as/{shape}", headers={**mine, "if-none-match": answer.headers["etag"]}).status_code == 304
    assert_typed(api.get("/v1/videos/vid_1/as/hive", headers={"x-api-key": SUBMIT_KEY}), 403, "FORBIDDEN")
    assert_typed(api.get("/v1/videos/vid_1/as/nobody", headers=mine), 422, "INVALID_MESSAGE")
    assert_typed(api.get("/v1/videos/unknown/as/hive", headers=mine), 404, "UNKNOWN_VIDEO")
    ledger.close()
