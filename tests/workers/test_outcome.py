"""What one asks a job or a video for: the job's own facts, also when the judgement was on record, and verdicts that outlived their job."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from typer.testing import CliRunner

from api_caller import make_caller
from verdict_builders import made_body, put_verdict
from workers.case_file import check_case
from workers.cli import app as cli
from workers.errors import UnknownVideoError
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages import VerdictBody, parse_enqueue
from workers.web.auth import key_digest

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


PATHS = ("", "/evidence", "/as/hive", "/evidence.zip")


def retire_job(ledger: Ledger) -> None:
    """End every finished job's time, and leave the verdicts."""
    assert ledger.retire(days=-1) == 1


def test_a_verdict_that_outlived_its_job_is_read_by_id(ledger):
    job = put_verdict(ledger, "vid_1", peaks=(0.95,))
    api = make_caller(ledger)
    before = {path: api.get(f"/v1/videos/vid_1{path}") for path in PATHS[:3]}
    retire_job(ledger)
    assert ledger.latest_job("vid_1") is None
    for path, answer in before.items():
        assert api.get(f"/v1/videos/vid_1{path}").json() == answer.json(), path
    assert api.get(f"/v1/jobs/{job}").json() == before[""].json()
    with zipfile.ZipFile(io.BytesIO(api.get("/v1/videos/vid_1/evidence.zip").content)) as case:
        assert json.loads(case.read("verdict.json")) == before[""].json()
        assert json.loads(case.read("history.json")) == []
    assert api.post("/v1/videos/vid_1/explanation").json()["state"] == "wanted"
    assert api.get("/v1/videos/vid_1", params={"tenant": "acme"}).status_code == 404


def test_a_newer_job_comes_before_a_verdict_that_outlived_its_own(ledger):
    put_verdict(ledger, "vid_1")
    retire_job(ledger)
    ledger.submit(Submission(request=parse_enqueue({"video_id": "vid_1", "content_sha256": "0" * 64}), door="http"))
    assert make_caller(ledger).get("/v1/videos/vid_1").json()["state"] == "queued"


def test_reviewers_reach_a_tenants_video_by_naming_the_tenant(ledger):
    job = put_verdict(ledger, "vid_1", tenant="acme", peaks=(0.7,))
    keys = {"review": ("read,review", ""), "house": ("read", ""), "acme": ("read", "acme"), "bolt": ("read", "bolt")}
    for name, (scopes, tenant) in keys.items():
        digest = key_digest(name)
        ledger.add_key(key_id=name, digest=digest, name=name, scopes=scopes.split(","), tenant=tenant, actor="test")
    api = make_caller(ledger)

    def status(path: str, key: str, method: str = "GET", **params: str) -> int:
        return api.call(method, path, headers={"x-api-key": key}, params=params).status_code

    [waiting] = api.get("/v1/reviews", headers={"x-api-key": "review"}).json()["reviews"]
    assert (waiting["video_id"], waiting["tenant"]) == ("vid_1", "acme")
    for path in PATHS:
        assert status(f"/v1/videos/vid_1{path}", "review") == 404, path
        assert status(f"/v1/videos/vid_1{path}", "review", tenant="acme") == 200, path
        assert status(f"/v1/videos/vid_1{path}", "review", tenant="no tenant!") == 422, path
    assert status("/v1/videos/vid_1/explanation", "review", "POST", tenant="acme") == 202
    assert status("/v1/videos/vid_1/explanation", "review", tenant="acme") == 200
    assert status("/v1/videos/vid_1/explanation/clip", "review", tenant="acme") == 404
    for path in PATHS[:3]:
        assert [status(f"/v1/videos/vid_1{path}", key) for key in keys] == [404, 404, 200, 404]
        assert [status(f"/v1/videos/vid_1{path}", key, tenant="acme") for key in keys] == [200, 403, 200, 403]
    assert [status(f"/v1/jobs/{job}", key) for key in keys] == [200, 404, 200, 404]


def test_the_commands_reach_tenants_and_verdicts_that_outlived_their_job(tmp_path, monkeypatch):
    monkeypatch.setenv("VERIFRAME_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    put_verdict(opened, "vid_1", tenant="acme")
    retire_job(opened)
    opened.close()
    runner = CliRunner()
    shown = runner.invoke(cli, ["verdict", "vid_1", "--json", "--tenant", "acme"])
    assert json.loads(shown.stdout)["verdict"] == "manipulated"
    refused = runner.invoke(cli, ["verdict", "vid_1"])
    assert isinstance(refused.exception, UnknownVideoError)
    assert "--tenant" in str(refused.exception)
    assert runner.invoke(cli, ["evidence", "vid_1", "-o", "case.zip", "--tenant", "acme"]).exit_code == 0
    with (tmp_path / "case.zip").open("rb") as case:
        assert check_case(case)["video_id"] == "vid_1"
