"""Reviews, bulk submits and unchanged answers over the API."""

from __future__ import annotations

import pytest
from jsonschema import validate

from api_caller import assert_typed, make_caller
from verdict_builders import put_verdict
from workers.ledger import Ledger


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


@pytest.fixture
def api(ledger, tmp_path):
    return make_caller(ledger, state_dir=tmp_path)


def test_a_program_reads_the_queue_and_decides_in_somebodys_name(api, ledger):
    for number in range(3):
        put_verdict(ledger, f"vid_{number}", peaks=(0.7,))
    page = api.get("/v1/reviews", params={"limit": 2}).json()
    rest = api.get("/v1/reviews", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [each["video_id"] for each in page["reviews"] + rest["reviews"]] == ["vid_0", "vid_1", "vid_2"]
    assert rest["next_cursor"] is None
    review_id = page["reviews"][0]["review_id"]
    decided = api.post(f"/v1/reviews/{review_id}/decision", json={"reviewer": "Ana", "decision": "fake", "reason": "mouth"}).json()
    assert (decided["state"], decided["decision"], decided["decided_by"]) == ("decided", "fake", "ana")
    assert [entry["kind"] for entry in api.get(f"/v1/reviews/{review_id}").json()["log"]] == ["decided"]
    again = api.post(f"/v1/reviews/{review_id}/decision", json={"reviewer": "ben", "decision": "clean"})
    assert_typed(again, 409, "REVIEW_CONFLICT")
    assert api.get("/v1/reviews", params={"verdict": "manipulated"}).json()["reviews"] == []


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"reviewer": "a b", "decision": "fake"},
        {"reviewer": "Sampling", "decision": "fake"},
        {"reviewer": "ana", "decision": "real"},
        {"reviewer": "ana", "decision": "fake", "x": 1},
    ],
)
def test_a_decision_that_makes_no_sense_is_refused(api, ledger, given):
    put_verdict(ledger, "vid_1")
    review_id = ledger.review_item_of("vid_1").verdict_seq
    assert_typed(api.post(f"/v1/reviews/{review_id}/decision", json=given), 422, "INVALID_MESSAGE")
    assert ledger.review_item(review_id).is_open


def test_unknown_reviews_are_404(api):
    assert_typed(api.get("/v1/reviews/9"), 404, "UNKNOWN_REVIEW")
    assert_typed(api.post("/v1/reviews/9/decision", json={"reviewer": "ana", "decision": "fake"}), 404, "UNKNOWN_REVIEW")


def test_many_videos_are_taken_in_at_once(api, ledger):
    videos = [{"video_id": f"vid_{number}", "lane": "bulk"} for number in range(50)]
    answer = api.post("/v1/videos/bulk", json={"videos": [*videos, videos[0]]})
    assert answer.status_code == 202
    accepted = answer.json()["accepted"]
    assert sum(each["created"] for each in accepted) == 50
    assert accepted[0]["job_id"] == accepted[-1]["job_id"]
    described = api.get("/openapi.json").json()["paths"]["/v1/videos/bulk"]["post"]["responses"]["202"]
    validate(answer.json(), described["content"]["application/json"]["schema"])
    assert set(described["content"]["application/json"]["schema"]["properties"]["accepted"]["items"]["properties"]) == set(accepted[0])
    assert ledger.count_waiting() == 50


@pytest.mark.parametrize(
    "data", [[], {}, {"videos": []}, {"videos": [{"video_id": "a"}] * 1001}, {"videos": [{"video_id": "a"}, {"video_id": "../b"}]}]
)
def test_a_bulk_submit_with_one_bad_video_takes_nothing_in(api, ledger, data):
    answer = api.post("/v1/videos/bulk", json=data)
    assert answer.status_code == 422
    assert ledger.count_waiting() == 0
    if isinstance(data, dict) and len(data.get("videos", [])) == 2:
        assert "videos[1]" in answer.json()["message"]


def test_an_unchanged_outcome_is_not_sent_twice(api, ledger):
    put_verdict(ledger, "vid_1")
    first = api.get("/v1/videos/vid_1")
    again = api.get("/v1/videos/vid_1", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert api.get("/v1/videos/vid_1", headers={"if-none-match": '"other"'}).status_code == 200


def test_every_reference_of_the_openapi_document_leads_somewhere(api):
    document = api.get("/openapi.json").json()

    def check(node: object) -> int:
        if isinstance(node, list):
            return sum(map(check, node))
        if not isinstance(node, dict):
            return 0
        if isinstance(node.get("$ref"), str):
            target = document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return 1
        return sum(map(check, node.values()))

    assert check(document) > 10
    submit = document["paths"]["/v1/videos"]["post"]
    assert [each["name"] for each in submit["parameters"]] == ["Idempotency-Key"]
    answer = api.post("/v1/videos", json={"video_id": "vid_1"}).json()
    shape = submit["responses"]["202"]["content"]["application/json"]["schema"]
    assert set(shape["required"]) == set(answer) == set(shape["properties"])
