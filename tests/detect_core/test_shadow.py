"""A shadow bundle set scores the same crops, has its own opinion, and changes nothing about the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import astronaut_pictures, moving_pictures, write_clip
from detect_core import judging, shadow
from detect_core.bundle import SHIPPED_ROOT
from detect_core.calibration import load_bundle_set
from detect_core.familiarity import distances_of
from detect_core.options import ScreeningOptions
from detect_core.pipeline import Screener
from detect_core.structs import CropScore, Verdict

OPTIONS = ScreeningOptions(num_frames=8, first_look=None)


def candidate_set(
    folder: Path, *, t_review: float = 1e-6, t_fake: float = 2e-6, known_faces: float | None = None, tracks_first: bool = False
) -> Path:
    """The shipped detectors with other thresholds, under another name.

    Args:
        folder: where to write.
        t_review: threshold of `suspicious`.
        t_fake: threshold of `manipulated`.
        known_faces: how far a face may be from known ones; as shipped by default.
        tracks_first: whether the detector of whole tracks stands before the others.
    """
    document = json.loads((SHIPPED_ROOT / "default.json").read_text())
    document["name"] = "candidate"
    if known_faces is not None:
        document["domain"]["limit"] = known_faces
    if tracks_first:
        document["bundles"].insert(0, document["bundles"].pop())
    document["thresholds"] = {"t_review": t_review, "t_fake": t_fake}
    for row in document["bundles"]:
        row["path"] = str(SHIPPED_ROOT / row["path"])
    path = folder / "candidate.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "portrait.mp4"
    write_clip(path, astronaut_pictures(30))
    return path


def judge(path: Path, *, shadow: Path | None) -> Verdict:
    screener = Screener.load(options=OPTIONS, shadow=shadow)
    try:
        with path.open("rb") as file:
            return screener.screen(file)
    finally:
        screener.close()


def test_the_shadow_has_its_own_word_from_the_same_scores_and_the_verdict_does_not_move(clip: Path, tmp_path: Path) -> None:
    alone = judge(clip, shadow=None)
    path = candidate_set(tmp_path)
    watched = judge(clip, shadow=path)

    assert alone.extra["shadow"] is None
    assert (watched.verdict, watched.p_fake, watched.tracks, watched.evidence) == (
        alone.verdict,
        alone.p_fake,
        alone.tracks,
        alone.evidence,
    )
    assert [report.name for report in watched.detectors] == [report.name for report in alone.detectors]
    assert watched.bundle_set == alone.bundle_set
    opinion = watched.extra["shadow"]
    assert opinion.bundle_set == load_bundle_set(path).label
    assert opinion.p_fake == alone.p_fake, "same detectors, same calibration, same crops"
    assert opinion.verdict == "manipulated", "its thresholds decide its word"


def test_the_shadow_abstains_where_there_is_no_face(tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    write_clip(path, moving_pictures(20))
    verdict = judge(path, shadow=candidate_set(tmp_path))
    assert (verdict.extra["shadow"].verdict, verdict.extra["shadow"].p_fake) == ("inconclusive", None)


def test_the_shadow_says_nothing_of_faces_unlike_its_own(clip: Path, tmp_path: Path) -> None:
    """Its word is compared with the verdict, which is bound by the same rule."""
    watched = judge(clip, shadow=candidate_set(tmp_path, known_faces=0.0))
    assert watched.extra["shadow"].verdict == "inconclusive"
    assert "OUT_OF_DOMAIN" not in watched.reason_codes


def test_a_face_is_as_far_from_known_ones_whatever_order_the_detectors_stand_in(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration measured crops of the first detector of single crops; those of a detector of whole tracks are cut otherwise."""
    measured: list[dict[int, float]] = []

    def noted(*args: Any) -> dict[int, float]:
        measured.append(distances_of(*args))
        return measured[-1]

    monkeypatch.setattr(judging, "distances_of", noted)
    monkeypatch.setattr(shadow, "distances_of", noted)
    judge(clip, shadow=candidate_set(tmp_path, tracks_first=True))
    of_set, of_shadow_set = measured
    assert of_set
    assert of_shadow_set == of_set


def test_both_halves_of_a_score_are_told_apart() -> None:
    from detect_core.shadow import of_shadow, without_shadow

    score = CropScore(
        track_id=1, pts_seconds=0.0, logits={"blend": 1.0, "shadow/blend": 2.0}, weight=1.0, side_px=90.0, xyxy=(0.0, 0.0, 90.0, 90.0)
    )
    assert without_shadow(score).logits == {"blend": 1.0}
    assert of_shadow(score).logits == {"blend": 2.0}
