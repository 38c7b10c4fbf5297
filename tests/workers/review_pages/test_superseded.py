"""Pages of videos with more than one verdict or submission: each says what it is about, and offers what can be done."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from api_caller import READ_KEY
from review_reader import put, sign_in
from verdict_builders import made_body, put_verdict
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages import parse_enqueue

OTHER = "d" * 64


def rescore(ledger: Ledger, word: str, peaks: tuple[float, ...] = (0.96,)) -> int:
    """Judge the archive's one video again; gives the revision's number."""
    (old,) = ledger.archive(not_by="new@1")
    body = made_body(old.video_id, job_id=old.ledger_id, word=word, peaks=peaks, bundle_set="new@1")
    body = body.model_copy(update={"revision": old.revision + 1, "supersedes": old.seq}).to_json()
    record = VerdictRecord(content_sha256=old.content_sha256, bundle_set="new@1", policy="p", verdict=word, p_fake=peaks[0], body=body)
    assert ledger.revise(old, verdict=record, urls=[])
    return ledger.verdict_of(old.video_id).seq


def submit_again(ledger: Ledger) -> Claim:
    job = ledger.submit(Submission(request=parse_enqueue({"video_id": "vid_1", "content_sha256": OTHER}), door="http")).ledger_id
    return ledger.claim(job, owner="w", lease_seconds=60)


def test_a_newer_submission_is_told(ana, ledger):
    put_verdict(ledger, "vid_1", peaks=(0.2,))
    assert "submitted again" not in ana.get("/videos/vid_1").text
    ledger.submit(Submission(request=parse_enqueue({"video_id": "vid_1", "content_sha256": OTHER}), door="http"))
    assert "waits for its verdict" in ana.get("/videos/vid_1").text
    claim = submit_again(ledger)
    assert "is being looked at" in ana.get("/videos/vid_1").text
    ledger.fail(claim, code="DECODE_ERROR", message="broken", body={}, urls=[])
    assert "could not be judged" in ana.get("/videos/vid_1").text


def test_an_older_verdict_leads_to_the_newest(ana, ledger):
    first = put(ledger)
    ana.send(f"/items/{first}/decide", decision="fake")
    put_verdict(ledger, "vid_1", peaks=(0.7,), content_sha256=OTHER, asked_sha256=OTHER)
    page = ana.get(f"/videos/vid_1?seq={first}").text
    assert "A newer verdict took this one's place" in page
    for button in ("Undo my decision", "Record an appeal", "Ask for a second reader"):
        assert button not in page
    assert "took this one's place" not in ana.get("/videos/vid_1").text


def test_what_people_decided_is_shown_with_the_revision_that_says_the_same(api, ana, ledger):
    first = put(ledger)
    ana.send(f"/items/{first}/decide", decision="clean", note="her own channel")
    rescore(ledger, "manipulated")
    page = ana.get("/videos/vid_1").text
    for expected in ("Decided by", "said of an earlier verdict", "her own channel", "Record an appeal"):
        assert expected in page
    assert "Undo my decision" not in page
    listed = api.get("/v1/verdicts?reviewed=false", headers={"x-api-key": READ_KEY}).json()
    assert listed["verdicts"] == []


def test_undo_is_offered_where_it_can_be_done(api, ana, ledger):
    seq = put(ledger)
    ana.send(f"/items/{seq}/decide", decision="fake")
    assert "Undo my decision" in ana.get("/videos/vid_1").text
    ben = sign_in(api, ledger, "ben")
    ben.send(f"/items/{seq}/appeal", note="a parody")
    ben.send(f"/items/{seq}/decide", decision="clean")
    assert "Undo my decision" not in ana.get("/videos/vid_1").text
    assert "Undo my decision" in ben.get("/videos/vid_1").text


def test_the_case_file_holds_the_verdict_of_its_page(ana, ledger):
    first = put(ledger)
    newest = rescore(ledger, "manipulated")
    for seq, revision in ((first, 1), (newest, 2)):
        payload = ana.get(f"/videos/vid_1/case.zip?seq={seq}").content
        with zipfile.ZipFile(io.BytesIO(payload)) as case:
            assert json.loads(case.read("verdict.json"))["revision"] == revision
            assert len(json.loads(case.read("revisions.json"))) == 2


@pytest.mark.parametrize("is_past_retention", [False, True])
def test_heat_maps_are_of_the_verdict_on_the_page_or_refused(ana, ledger, is_past_retention):
    first = put(ledger)
    if is_past_retention:
        assert ledger.retire(days=-1) == 1
    explain(ledger, "OLDOLD")
    assert "OLDOLD" in ana.get(f"/videos/vid_1/heatmap?seq={first}").text
    newest = rescore(ledger, "manipulated")
    assert "have expired" in ana.get(f"/videos/vid_1/heatmap?seq={newest}").text, "the set before made it"
    explain(ledger, "NEWNEW")
    assert "NEWNEW" in ana.get(f"/videos/vid_1/heatmap?seq={newest}").text
    for answer in (ana.get(f"/videos/vid_1/heatmap?seq={first}"), ana.send(f"/videos/vid_1/heatmap?seq={first}")):
        assert "not for this older one" in answer.text
    assert ana.get(f"/videos/vid_1/heatmap/clip?seq={first}").status_code == 404
    for seq, has_pictures in ((first, False), (newest, True)):
        with zipfile.ZipFile(io.BytesIO(ana.get(f"/videos/vid_1/case.zip?seq={seq}").content)) as case:
            assert any(name.startswith("pictures/") for name in case.namelist()) is has_pictures


def explain(ledger: Ledger, picture: str) -> None:
    job_id = ledger.latest_outcome("vid_1").ledger_id
    moment = {"t": 3.0, "track": 2, "detector": "blend", "score": 0.9, "pictures": {"grad_cam": picture + "=="}}
    assert ledger.want_explanation(job_id, seconds=60)
    ledger.put_explanation(job_id, body={"moments": [moment], "clip": {"bytes": 4}}, clip=b"clip", seconds=60)
