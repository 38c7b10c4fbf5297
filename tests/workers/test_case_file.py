"""Case files: complete, the same bytes for the same record, and any change is noticed."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import pytest

from api_caller import KEYS, READ_KEY, assert_typed, make_caller
from verdict_builders import put_verdict
from workers.case_file import BrokenCaseError, case_zip, check_case, read_case
from workers.ledger import Ledger

ADMIN = {"x-api-key": "admin-secret"}


@pytest.fixture
def ledger():
    opened = Ledger.in_memory()
    yield opened
    opened.close()


@pytest.fixture
def case(ledger):
    job_id = put_verdict(ledger, "vid_1")
    (item,) = ledger.review_queue()
    ledger.review_decide(item.verdict_seq, actor="anna", decision="fake", note="edge around the chin")
    return read_case(ledger, ledger.job(job_id))


def members(payload: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(payload: bytes, **changes: bytes | None) -> io.BytesIO:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in {**members(payload), **{k.replace("__", "."): v for k, v in changes.items()}}.items():
            if content is not None:
                archive.writestr(name, content)
    target.seek(0)
    return target


def test_a_case_holds_verdict_evidence_history_revisions_and_what_people_did(case):
    found = members(case_zip(case, pictures={"moment-1-grad_cam.jpg": b"jpeg"}))
    assert set(found) == {
        "manifest.json",
        "SHA256SUMS",
        "verdict.json",
        "evidence.json",
        "history.json",
        "revisions.json",
        "reviews.json",
        "pictures/moment-1-grad_cam.jpg",
    }
    assert json.loads(found["verdict.json"])["verdict"] == "manipulated"
    assert json.loads(found["evidence.json"])["schema"] == "evidence/1"
    assert [event["kind"] for event in json.loads(found["history.json"])] == ["submitted", "claimed", "verdict"]
    assert [body["revision"] for body in json.loads(found["revisions.json"])] == [1]
    reviews = json.loads(found["reviews.json"])
    assert [(entry["actor"], entry["decision"], entry["note"]) for entry in reviews if entry["kind"] == "decided"] == [
        ("anna", "fake", "edge around the chin")
    ]
    for line in found["SHA256SUMS"].decode().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(found[name]).hexdigest() == digest


def test_the_same_record_gives_the_same_bytes_and_passes_its_own_check(case):
    payload = case_zip(case)
    assert payload == case_zip(case)
    manifest = check_case(io.BytesIO(payload))
    assert (manifest["video_id"], manifest["verdict"], manifest["revision"]) == ("vid_1", "manipulated", 1)
    assert manifest["case_sha256"] == hashlib.sha256(members(payload)["SHA256SUMS"]).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict__json": b'{"verdict": "authentic"}'},
        {"reviews__json": None},
        {"added__json": b"{}"},
        {"SHA256SUMS": b""},
        {"manifest__json": b"{}"},
        {"manifest__json": b"[]"},
        {"manifest__json": b"not json"},
        {"manifest__json": None},
    ],
)
def test_every_change_is_noticed(case, changes):
    with pytest.raises(BrokenCaseError):
        check_case(rewritten(case_zip(case), **changes))


def test_a_manifest_that_was_changed_with_its_file_is_noticed(case):
    payload = case_zip(case)
    manifest = json.loads(members(payload)["manifest.json"])
    other = b'{"verdict": "authentic"}'
    for row in manifest["files"]:
        if row["path"] == "verdict.json":
            row["sha256"] = hashlib.sha256(other).hexdigest()
    with pytest.raises(BrokenCaseError, match="SHA256SUMS"):
        check_case(rewritten(payload, verdict__json=other, manifest__json=json.dumps(manifest).encode()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("video_id", "vid_2"),
        ("job_id", "0" * 32),
        ("content_sha256", "0" * 64),
        ("bundle_set", "other@0"),
        ("verdict", "authentic"),
        ("revision", 2),
        ("files", None),
    ],
)
def test_a_manifest_that_says_other_than_the_files_is_noticed(case, name, value):
    payload = case_zip(case)
    manifest = json.loads(members(payload)["manifest.json"])
    manifest[name] = [{**row, "bytes": 1} for row in manifest["files"]] if name == "files" else value
    with pytest.raises(BrokenCaseError, match=f"{name} in manifest.json"):
        check_case(rewritten(payload, manifest__json=json.dumps(manifest).encode()))


def test_what_a_manifest_says_beside_is_not_passed_on(case):
    payload = case_zip(case)
    manifest = json.loads(members(payload)["manifest.json"])
    checked = check_case(rewritten(payload, manifest__json=json.dumps({**manifest, "author": "someone"}).encode()))
    assert checked == manifest


def test_a_job_with_the_verdict_of_an_earlier_one_has_a_case_of_its_own(ledger):
    put_verdict(ledger, "vid_1", peaks=(0.2,))
    second = put_verdict(ledger, "vid_1", peaks=(0.2,), asked_sha256="c" * 64)
    payload = case_zip(read_case(ledger, ledger.job(second)))
    assert check_case(io.BytesIO(payload))["job_id"] == second


def test_files_that_are_no_case_are_refused_though_their_hashes_fit():
    files = {"verdict.json": b"[]", "history.json": b"[]"}
    hashes = {name: hashlib.sha256(payload).hexdigest() for name, payload in files.items()}
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())).encode()
    rows = [{"path": name, "sha256": digest} for name, digest in hashes.items()]
    manifest = {"schema": "case/1", "case_sha256": hashlib.sha256(sums).hexdigest(), "files": rows}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, payload in {**files, "SHA256SUMS": sums, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, payload)
    with pytest.raises(BrokenCaseError, match="not made here"):
        check_case(target)


@pytest.mark.parametrize("junk", [b"", b"PK\x03\x04" + bytes(100), b"hello"])
def test_what_is_no_zip_is_named(junk):
    with pytest.raises(BrokenCaseError, match="no case file"):
        check_case(io.BytesIO(junk))


def test_the_api_gives_the_case_to_reviewers_and_pictures_only_when_asked(ledger, case):
    api = make_caller(ledger, api_keys=KEYS)
    path = "/v1/videos/vid_1/evidence.zip"
    assert_typed(api.get(path, headers={"x-api-key": READ_KEY}), 403, "FORBIDDEN")
    assert_typed(api.get("/v1/videos/nobody/evidence.zip", headers=ADMIN), 404, "UNKNOWN_VIDEO")
    answer = api.get(path, headers=ADMIN)
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="vid_1-case.zip"'
    assert answer.content == case_zip(case)

    job_id = case.job.ledger_id
    ledger.want_explanation(job_id, seconds=60)
    body = {"moments": [{"t": 1.0, "pictures": {"grad_cam": "aGVhdA=="}}]}
    ledger.put_explanation(job_id, body=body, clip=b"mp4", seconds=60)
    assert api.get(path, headers=ADMIN).content == case_zip(case)
    shown = members(api.get(path, headers=ADMIN, params={"pictures": "true"}).content)
    assert (shown["pictures/moment-1-grad_cam.jpg"], shown["pictures/annotated.mp4"]) == (b"heat", b"mp4")
