"""`veriframe replay`, `evidence` and `explain` on a real clip and the shipped bundles: the verdict repeats bit for bit, or it is said what differs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from builders import astronaut_pictures, write_clip
from verdict_builders import made_body
from workers import cli
from workers.case_file import check_case
from workers.errors import FileAccessError, MediaChangedError, UnknownVideoError
from workers.ledger import Claim, Ledger, Submission, VerdictRecord
from workers.messages import JobFacts, VerdictBody, parse_enqueue, pending_body
from workers.metrics import Metrics
from workers.replay import BATCHING_NOISE, Difference, NotReplayableError, Replay, compare, replay
from workers.scan import scan_files
from workers.screener import load_screener
from workers.settings import Settings


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("media") / "vid_1.mp4"
    write_clip(path, astronaut_pictures(40))
    return path


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Nets on one torch thread, as a replay runs them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recorded(clip) -> VerdictBody:
    """The verdict as one worker alone makes it."""
    screener = load_screener(Settings(precision="fp32"), Metrics())
    (body,) = scan_files([clip], screener=screener)
    screener.close()
    return body


def repeat(recorded: VerdictBody, clip: Path, **settings) -> Replay:
    with clip.open("rb") as file:
        return replay(recorded, file, content_sha256=recorded.content_sha256, settings=Settings(**settings))


def test_a_verdict_repeats_bit_for_bit(recorded, clip):
    before = torch.get_num_threads()
    outcome = repeat(recorded, clip)
    assert outcome.differences == ()
    assert outcome.is_bit_equal
    assert outcome.circumstances == ()
    assert outcome.sentence() == "The verdict repeats bit for bit."
    assert outcome.verdict.to_json()["tracks"] == recorded.to_json()["tracks"]
    assert torch.get_num_threads() == before


def test_a_verdict_among_others_is_the_one_it_gets_alone(recorded, clip, tmp_path):
    others = [tmp_path / f"other{i}.mp4" for i in range(2)]
    for i, path in enumerate(others):
        write_clip(path, astronaut_pictures(30 + 7 * i, zoom=1.2))
    screener = load_screener(Settings(precision="fp32"), Metrics())
    with ThreadPoolExecutor(3) as pool:
        bodies = list(pool.map(lambda path: next(iter(scan_files([path], screener=screener))), [clip, *others, clip]))
    screener.close()
    for body in (bodies[0], bodies[3]):
        outcome = compare(recorded, body)
        step = outcome.largest_step
        assert step is not None
        assert step < BATCHING_NOISE, outcome.sentence()  # 0 where it was written; another processor may add in another order


def test_what_differs_is_named_place_by_place(recorded, clip):
    tampered = recorded.to_json()
    tampered["verdict"], tampered["score"]["p_fake"] = "manipulated", 0.99
    tampered["runtime"]["torch"] = "1.0"
    tampered["bundle_set"] = "older@0123456789ab"
    outcome = repeat(VerdictBody.model_validate(tampered), clip)
    assert not outcome.is_bit_equal
    assert {each.where for each in outcome.differences} == {"bundle_set", "score.p_fake", "verdict"}
    assert {each.where for each in outcome.circumstances} == {"torch", "bundle set"}
    assert "does not repeat: 3 places differ" in outcome.sentence()
    assert "another bundle set, torch" in outcome.sentence()
    assert outcome.largest_step is None


def test_the_order_of_additions_is_told_from_a_real_difference():
    one = made_body()
    moved = one.to_json()
    moved["score"]["p_fake"] += 1e-8
    outcome = compare(one, VerdictBody.model_validate(moved))
    assert not outcome.is_bit_equal
    assert outcome.largest_step == pytest.approx(1e-8, rel=1e-3)
    assert "another order of additions" in outcome.sentence()
    assert compare(one, one).is_bit_equal
    far = replace(outcome, differences=(Difference("score.p_fake", 0.5, 0.6),))
    assert "does not repeat" in far.sentence()
    assert compare(one, VerdictBody.model_validate({**one.to_json(), "worker": "w2", "created_at": "later", "timing_ms": {}})).is_bit_equal


def test_only_finished_verdicts_repeat(clip):
    with clip.open("rb") as file, pytest.raises(NotReplayableError, match="is queued"):
        replay(pending_body(state="queued", job=JobFacts(video_id="v")), file, content_sha256="0" * 64, settings=Settings())


@pytest.fixture
def on_record(recorded, clip, tmp_path, monkeypatch) -> str:
    """A ledger with the verdict on record; gives the job's ID."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    monkeypatch.setenv("VERIFRAME_LEDGER_URL", url)
    monkeypatch.setenv("VERIFRAME_MEDIA_ROOTS", json.dumps([str(clip.parent)]))
    monkeypatch.chdir(tmp_path)
    ledger = Ledger.open(url)
    job_id = ledger.submit(Submission(request=parse_enqueue({"video_id": "vid_1", "source": str(clip)}), door="cli")).ledger_id
    claim = ledger.claim(job_id, owner="tester", lease_seconds=60)
    assert isinstance(claim, Claim)
    body = {**recorded.to_json(), "video_id": "vid_1", "job_id": job_id}
    record = VerdictRecord(
        content_sha256=body["content_sha256"], bundle_set=body["bundle_set"], policy="p", verdict=body["verdict"], p_fake=0.1, body=body
    )
    ledger.commit_verdict(claim, verdict=record, urls=[])
    ledger.close()
    return job_id


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


def test_the_command_replays_a_job_from_where_its_video_lies(on_record):
    answer = invoke("replay", on_record, "--json")
    assert answer.exit_code == 0, answer.output
    report = json.loads(answer.output)
    assert report == {
        "bit_equal": True,
        "largest_step": 0.0,
        "sentence": "The verdict repeats bit for bit.",
        "differences": [],
        "circumstances": [],
    }


def test_the_commands_write_a_case_file_and_pictures_from_a_copy_of_the_video(on_record, clip, tmp_path):
    copy = tmp_path / "elsewhere" / "copy.mp4"
    copy.parent.mkdir()
    copy.write_bytes(clip.read_bytes())

    answer = invoke("evidence", "vid_1", "--out", "case.zip", "--pictures", "--file", str(copy))
    assert answer.exit_code == 0, answer.output
    with Path("case.zip").open("rb") as case:
        manifest = check_case(case)
    names = {row["path"] for row in manifest["files"]}
    assert {"verdict.json", "evidence.json", "pictures/moment-1-grad_cam.jpg", "pictures/annotated.mp4"} <= names
    checked = invoke("evidence", "case.zip", "--check")
    assert checked.exit_code == 0
    assert "unchanged" in checked.output

    answer = invoke("explain", on_record, "--out", "pictures")
    assert answer.exit_code == 0, answer.output
    assert {path.name for path in Path("pictures").iterdir()} >= {"annotated.mp4", "moment-1-crop.jpg", "moment-3-grad_cam.jpg"}

    for command in ("evidence", "explain"):
        refused = invoke(command, "vid_1", "--out", str(copy / "below-a-file"), "--file", str(copy)).exception
        assert isinstance(refused, FileAccessError)
        assert "cannot write" in str(refused)


def test_another_file_and_an_unknown_job_are_refused(on_record, tmp_path):
    other = tmp_path / "other.mp4"
    write_clip(other, astronaut_pictures(10))
    assert isinstance(invoke("replay", on_record, "--file", str(other)).exception, MediaChangedError)
    assert isinstance(invoke("replay", "nobody").exception, UnknownVideoError)
    assert not Path("nobody-case.zip").exists()
