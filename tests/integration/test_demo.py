"""The two doors a newcomer opens: `veriframe demo` and `veriframe scan`, with the real detectors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builders import astronaut_pictures, moving_pictures, write_clip, write_tone
from workers.demo_clips import make_demo_clips

VERIFRAME = [sys.executable, "-m", "workers"]


@pytest.fixture(scope="module")
def own_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own videos")
    write_clip(folder / "a portrait.mp4", astronaut_pictures(30))
    (folder / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomavc1")
    return folder


@pytest.mark.integration
@pytest.mark.slow
def test_the_demo_takes_ones_own_videos_through_the_whole_system(own_videos: Path, tmp_path: Path) -> None:
    done = subprocess.run([*VERIFRAME, "demo", str(own_videos)], cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    verdicts = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "reports" / "demo").glob("*/verdict.json")}
    portrait = next(body for name, body in verdicts.items() if name.startswith("a-portrait-"))
    broken = next(body for name, body in verdicts.items() if name.startswith("broken-"))
    assert portrait["state"] == "complete"
    assert portrait["score"]["p_fake"] is not None
    assert list((tmp_path / "reports" / "demo" / portrait["video_id"]).glob("worst-*.jpg"))
    assert broken["state"] == "failed"
    assert broken["error"]["code"] == "CORRUPT_CONTAINER"


@pytest.mark.integration
def test_the_demo_names_a_place_without_videos(tmp_path: Path) -> None:
    done = subprocess.run(
        [*VERIFRAME, "demo", str(tmp_path / "nowhere.mp4")], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode != 0
    assert "found no video there" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_demo_clips_are_told_apart_by_the_shipped_bundles(tmp_path: Path) -> None:
    clips = {clip.video_id: clip.path for clip in make_demo_clips(tmp_path)}
    done = subprocess.run(
        [*VERIFRAME, "scan", "--json", *map(str, clips.values())], capture_output=True, text=True, timeout=180, check=False
    )
    bodies = {Path(body["video_id"]).stem: body for body in map(json.loads, done.stdout.splitlines())}

    assert done.returncode == 3
    assert bodies["demo-untouched"]["verdict"] == "authentic"
    assert bodies["demo-manipulated"]["verdict"] in ("suspicious", "manipulated")
    assert bodies["demo-no-face"]["reason_codes"] == ["NO_FACE"]
    assert bodies["demo-broken"]["error"]["code"] == "CORRUPT_CONTAINER"


def test_scan_names_what_is_wrong_with_every_file_and_goes_on(tmp_path: Path) -> None:
    write_clip(tmp_path / "fine.mp4", moving_pictures(10))
    write_tone(tmp_path / "tone.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    names = ["empty.mp4", "text.mp4", "tone.mp4", "missing.mp4", "fine.mp4"]
    done = subprocess.run(
        [*VERIFRAME, "scan", "--json", *(str(tmp_path / name) for name in names)], capture_output=True, text=True, timeout=120, check=False
    )
    bodies = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 3
    assert [body["video_id"] for body in bodies] == [str(tmp_path / name) for name in names]
    assert [body["error"]["code"] if body["error"] else body["verdict"] for body in bodies] == [
        "EMPTY_INPUT",
        "NOT_MEDIA",
        "NO_VIDEO_STREAM",
        "FETCH_NOT_FOUND",
        "inconclusive",
    ]
    assert all(body["score"] is None or body["score"]["p_fake"] is None for body in bodies)


def test_scan_refuses_to_start_with_a_missing_or_altered_bundle(tmp_path: Path) -> None:
    done = subprocess.run(
        [*VERIFRAME, "scan", "--bundles", str(tmp_path / "none.json"), str(tmp_path / "x.mp4")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert "MODEL_UNAVAILABLE" in done.stderr
    assert "Traceback" not in done.stderr
