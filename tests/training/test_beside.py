"""Another detector is judged on the very videos that the set is judged on, and only by its own logits."""

import numpy as np
import pytest

from detect_core.calibration import Fusion, VideoCalibration
from training.beside import beside
from training.errors import DataError
from training.evaluate import beside_rows
from training.video_scores import DISTORTED, TrackLogits, VideoLogits, load_scores, save_scores

CALIBRATION = VideoCalibration(
    fusion=Fusion(kind="weighted_sum", offsets={}, weights={"ours": 1.0}),
    strategy="best_window/1",
    beta=0.0,
    platt_a=1.0,
    platt_c=0.0,
    t_review=0.5,
    t_fake=0.9,
    name="test",
)


def video(name, ours, theirs, *, label=0, generator=""):
    track = TrackLogits({"ours": [ours] * 8, "meso4": [theirs] * 8}, [1.0] * 8)
    return VideoLogits(name, label, name, "toy", generator, "test", [track])


@pytest.fixture
def videos():
    rng = np.random.default_rng(0)
    reals = [video(f"r{i}", rng.normal(-2), rng.normal(0)) for i in range(20)]
    fakes = [video(f"f{i}", rng.normal(2), rng.normal(0), label=1, generator=("a", "b")[i % 2]) for i in range(20)]
    made = [video(f"r{i}#reencoded", -2, 0.1 * i) for i in range(5)] + [
        video(f"r{i}#sim:x", 2, 0.1 * i, label=1, generator="sim:x") for i in range(5)
    ]
    copies = [video(f"{v.file}{DISTORTED}mild", 2.0 * v.label, 0.0, label=v.label) for v in (*reals, *fakes)]
    return [*reals, *fakes, *made, *copies]


def test_every_column_compares_the_same_videos(videos):
    columns = {c.what: c for c in beside(videos, CALIBRATION, other="meso4")}
    assert set(columns) == {
        "AUC: all labelled fakes",
        "AUC: mean over generators",
        "TPR at 1 % FPR",
        "AUC: a",
        "AUC: b",
        "AUC: sim:x",
        "AUC: mild copies",
    }
    assert columns["AUC: all labelled fakes"].ours > 0.95
    assert 0.2 < columns["AUC: all labelled fakes"].theirs < 0.8
    assert columns["AUC: mild copies"].theirs == 0.5


def test_the_row_counts_the_columns_that_are_won_and_a_tie_is_no_win(videos):
    verdict, *rows = beside_rows(videos, CALIBRATION, other="meso4")
    assert (verdict.value, verdict.passed) == (len(rows), True)
    tied = [
        video(v.file, v.tracks[0].logits["ours"][0], v.tracks[0].logits["ours"][0], label=v.label, generator=v.generator) for v in videos
    ]
    verdict, *_ = beside_rows(tied, CALIBRATION, other="meso4")
    assert (verdict.value, verdict.passed) == (0, False)


def test_kept_scores_serve_a_part_of_their_bundles_and_no_others(videos, tmp_path):
    path = tmp_path / "scores.jsonl"
    save_scores(videos, path, hashes={"ours": "1", "meso4": "2"})
    assert load_scores(path, hashes={"ours": "1", "meso4": "2"}) == videos
    assert all(set(track.logits) == {"ours"} for v in load_scores(path, hashes={"ours": "1"}) for track in v.tracks)
    with pytest.raises(DataError, match="scored by bundles"):
        load_scores(path, hashes={"ours": "changed"})
