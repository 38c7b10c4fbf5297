"""What the review pages serve beside pages: ranges of a video, heat-maps, case files, and the vendored scripts with their licences."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import pytest

from api_caller import make_caller
from review_reader import Person, put, sign_in
from workers.web import video_page
from workers.web.digests import Digests
from workers.web.media import wanted_range
from workers.web.pages import STATIC


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-", 10, (0, 9)),
        ("bytes=2-3", 10, (2, 3)),
        ("bytes=2-99", 10, (2, 9)),
        ("bytes=-3", 10, (7, 9)),
        ("bytes=-99", 10, (0, 9)),
        ("bytes=-0", 10, None),
        ("bytes=5-2", 10, None),
        ("bytes=10-", 10, None),
        ("bytes=-", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("chars=0-1", 10, None),
        ("bytes=0-", 0, None),
    ],
)
def test_ranges(header, size, expected):
    assert wanted_range(header, size) == expected


# --- what is vendored ------------------------------------------------------------------------------------------------

VENDORED = {
    "htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",  # 2.0.11, 0BSD
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",  # 1.6.32, MIT
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def test_vendored_files_are_the_released_ones_with_their_licences():
    folder: Path = STATIC / "vendor"
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.suffix != ".LICENSE"} == VENDORED
    assert {path.name for path in folder.glob("*.LICENSE")} == {"htmx.LICENSE", "uPlot.LICENSE"}


# --- of one video ---


def put_judged(ledger, folder: Path, content: bytes) -> int:
    """A video that lies where it lay when it was judged."""
    (folder / "vid_1.mp4").write_bytes(content)
    return put(ledger, content_sha256=hashlib.sha256(content).hexdigest())


def test_the_video_is_served_in_ranges_and_only_from_its_folder(ana, ledger, tmp_path):
    put_judged(ledger, tmp_path, bytes(range(256)) * 40)
    whole = ana.get("/videos/vid_1/media")
    assert (whole.status_code, len(whole.content), whole.headers["content-type"]) == (200, 10_240, "video/mp4")
    part = ana.get("/videos/vid_1/media", headers={"range": "bytes=256-260"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, bytes(range(5)), "bytes 256-260/10240")
    assert ana.get("/videos/vid_1/media", headers={"range": "bytes=99999-"}).status_code == 416
    assert "sandbox" in part.headers["content-security-policy"]
    assert Person(ana.api).get("/videos/vid_1/media").status_code == 303
    (tmp_path / "vid_1.mp4").unlink()
    assert ana.get("/videos/vid_1/media").status_code == 404
    assert "no longer there" in ana.get("/videos/vid_1").text


def test_a_file_that_is_not_the_one_that_was_judged_is_not_shown(ana, ledger, tmp_path, monkeypatch):
    put_judged(ledger, tmp_path, b"first upload")
    assert ana.get("/videos/vid_1/media").content == b"first upload"
    (tmp_path / "vid_1.mp4").write_bytes(b"other upload")  # as long, in the same place
    assert "not the one that was judged" in ana.get("/videos/vid_1").text
    answer = ana.get("/videos/vid_1/media")
    assert (answer.status_code, "not the one that was judged" in answer.text) == (404, True)

    monkeypatch.setattr(video_page, "_PAGE_READS_BYTES", 3)
    (tmp_path / "vid_1.mp4").write_bytes(b"third upload")
    assert "<video" in ana.get("/videos/vid_1").text, "the page of a long video does not wait for its hash"
    assert ana.get("/videos/vid_1/media").status_code == 404
    assert "<video" not in ana.get("/videos/vid_1").text, "known by now"


@pytest.mark.parametrize("tenant", ["", "alpha"])
def test_a_video_is_shown_for_as_long_as_its_verdict_and_its_file_are_kept(ledger, tmp_path, tenant):
    template = f"{tmp_path}/{{tenant}}/{{video_id}}.mp4"
    ana = sign_in(make_caller(ledger, state_dir=tmp_path, media_roots=(tmp_path,), media_template=template), ledger)
    file = tmp_path / tenant / "vid_1.mp4"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"first upload")
    seq = put(ledger, content_sha256=hashlib.sha256(b"first upload").hexdigest(), tenant=tenant)
    assert ledger.retire(days=-1) == 1
    assert "<video" in ana.get(f"/videos/vid_1?seq={seq}").text
    assert ana.get(f"/videos/vid_1/media?seq={seq}").content == b"first upload"
    file.write_bytes(b"other upload")
    assert ana.get(f"/videos/vid_1/media?seq={seq}").status_code == 404
    assert "not the one that was judged" in ana.get(f"/videos/vid_1?seq={seq}").text


def test_a_file_is_hashed_once_until_it_is_written_to(tmp_path):
    path, digests = tmp_path / "a", Digests()
    path.write_bytes(b"one")
    with path.open("rb") as file:
        assert digests.of(file.fileno(), at_most_bytes=2) is None
        assert digests.of(file.fileno()) == hashlib.sha256(b"one").hexdigest()
        assert digests.of(file.fileno(), at_most_bytes=2) == hashlib.sha256(b"one").hexdigest()
        path.write_bytes(b"two!")
        assert digests.of(file.fileno()) == hashlib.sha256(b"two!").hexdigest()


def test_a_file_that_cannot_be_read_is_asked_again(tmp_path):
    digests = Digests()
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2):
        with pytest.raises(OSError, match="directory"):
            digests.of(folder)
    os.close(folder)


@pytest.mark.parametrize("source", ["s3://bucket/key.mp4", "https://host/clip.mp4", "file:///etc/passwd", "/etc/passwd"])
def test_sources_out_of_reach_are_not_opened(ana, ledger, source):
    put(ledger, source=source)
    assert ana.get("/videos/vid_1/media").status_code == 404
    assert "another store" in ana.get("/videos/vid_1").text


@pytest.mark.parametrize("source", ["http://[::1", "//[x", "file://{media}/a%00b"])
def test_a_video_whose_source_is_no_location_has_a_page_as_others(ana, ledger, tmp_path, source):
    put(ledger, source=source.replace("{media}", str(tmp_path)))
    assert ana.get("/videos/vid_1").status_code == 200
    assert ana.get("/videos/vid_1/media").status_code == 404


def test_a_link_in_the_media_folder_is_not_followed(ana, ledger, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside.mp4"
    outside.write_bytes(b"secret")
    (tmp_path / "vid_1.mp4").symlink_to(outside)
    put(ledger)
    assert ana.get("/videos/vid_1/media").status_code == 404
    outside.unlink()


def test_heat_maps_are_asked_for_shown_when_ready_and_refused_in_words(ana, ledger):
    seq = put(ledger)
    asked = ana.send(f"/videos/vid_1/heatmap?seq={seq}")
    assert "A worker is making the heat-maps" in asked.text
    assert "tries=2" in ana.get(f"/videos/vid_1/heatmap?seq={seq}&tries=1").text
    assert "No worker has answered" in ana.get(f"/videos/vid_1/heatmap?seq={seq}&tries=90").text
    job_id = ledger.review_item(seq).ledger_id
    moment = {"t": 3.0, "track": 2, "detector": "blend", "score": 0.9, "pictures": {"grad_cam": "AAAA", "<b>": "BBBB"}}
    ledger.put_explanation(job_id, body={"moments": [moment], "clip": {"bytes": 4}}, clip=b"clip", seconds=60)
    ready = ana.get(f"/videos/vid_1/heatmap?seq={seq}").text
    assert 'src="data:image/jpeg;base64,AAAA"' in ready
    assert "<b>" not in ready
    assert "all detectors together: 0.90" in ready
    assert "Shown is blend, the detector with the strongest signal." in ready
    assert ana.get(f"/videos/vid_1/heatmap/clip?seq={seq}").content == b"clip"
    assert ana.get("/videos/nobody/heatmap").status_code == 404
    assert Person(ana.api).get(f"/videos/vid_1/heatmap?seq={seq}").status_code == 303


def test_a_heat_map_of_another_detector_than_the_deciding_one_says_so(ana, ledger):
    seq = put(ledger)
    ana.send(f"/videos/vid_1/heatmap?seq={seq}")
    moment = {"t": 3.0, "track": 2, "detector": "blend", "loudest": "temporal", "score": 0.82, "detector_score": 0.48, "pictures": {}}
    ledger.put_explanation(ledger.review_item(seq).ledger_id, body={"moments": [moment]}, clip=None, seconds=60)
    ready = ana.get(f"/videos/vid_1/heatmap?seq={seq}").text
    assert "Decided mostly by temporal, which looks at whole tracks" in ready
    assert "Shown is blend, the strongest of the others; by itself it gives this picture 0.48." in ready


def test_the_case_file_of_an_appeal_is_a_link_away(ana, ledger):
    seq = put(ledger)
    assert f"/review/videos/vid_1/case.zip?seq={seq}" in ana.get("/videos/vid_1").text
    answer = ana.get(f"/videos/vid_1/case.zip?seq={seq}")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as case:
        assert any(name.endswith("verdict.json") for name in case.namelist())
    assert Person(ana.api).get("/videos/vid_1/case.zip").status_code == 303


def test_heat_maps_can_be_switched_off(ledger, tmp_path):
    seq, person = put(ledger), sign_in(make_caller(ledger, state_dir=tmp_path, explanation_seconds=0), ledger)
    assert "switched off here" in person.send(f"/videos/vid_1/heatmap?seq={seq}").text
