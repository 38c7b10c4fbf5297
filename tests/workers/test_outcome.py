"""What a job is answered with: its own ID and attributes, also when the judgement was on record."""

from __future__ import annotations

import json

import pytest

from api_caller import make_caller
from verdict_builders import made_body
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages import VerdictBody, parse_enqueue

HOOK = "https://b.example/hook"


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


def judged(ledger: Ledger, *, upload: int, trace_id: str | None = None, **fields: object) -> str:
    """Submit the same bytes of `vid_1` with attributes of their own, and judge them; gives the job's ID."""
    request = parse_enqueue({"video_id": "vid_1", "attributes": {"upload": upload}, "callback_url": HOOK, **fields})
    job = ledger.submit(Submission(request=request, door="http", trace_id=trace_id)).ledger_id
    claim = ledger.claim(job, owner="w", lease_seconds=60)
    assert isinstance(claim, Claim)
    body = made_body("vid_1", job_id=job).to_json() | {"attributes": claim.attributes, "trace_id": claim.trace_id}
    record = VerdictRecord(
        content_sha256="c" * 64,
        bundle_set=body["bundle_set"],
        policy=body["score"]["policy"],
        verdict=body["verdict"],
        p_fake=body["score"]["p_fake"],
        body=body,
    )
    ledger.commit_verdict(claim, verdict=record, urls=[HOOK])
    return job


def test_a_job_whose_judgement_was_on_record_is_answered_with_its_own_facts(ledger):
    first, second = judged(ledger, upload=1, trace_id="one"), judged(ledger, upload=2, trace_id="two", content_sha256="c" * 64)
    api = make_caller(ledger)
    told = [json.loads(event.payload) for event in ledger.due_events(page=10, hold_seconds=60)]
    [listed] = ledger.list_verdicts()
    for job, upload, trace in ((first, 1, "one"), (second, 2, "two")):
        own = {"job_id": job, "attributes": {"upload": upload}, "trace_id": trace}
        assert listed.body | own == api.get(f"/v1/jobs/{job}").json() == told[upload - 1]
        assert VerdictBody.model_validate(told[upload - 1]).verdict == "manipulated"
    assert api.get("/v1/videos/vid_1").json()["job_id"] == second
    assert listed.body["job_id"] == first  # a list of verdicts names the job that was judged
