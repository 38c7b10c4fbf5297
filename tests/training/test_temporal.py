"""The recipe of the detector that looks at whole tracks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from training_faces import make_pack

from builders import astronaut_pictures, write_clip
from detect_core.bundle import load_bundle
from detect_core.detectors.temporal import NUM_FEATURES
from training.errors import DataError
from training.material import Material
from training.recipe import Context, run_recipe
from training.recipes import get_recipe
from training.recipes.temporal import cross_fitted_metrics, fit, fold_of
from training.scorers import load_scorers
from training.split_videos import VideoRow
from training.track_windows import TrackWindows


def windows(label: int, source: str, group: str, *, shift: float, seed: int) -> TrackWindows:
    features = np.random.default_rng(seed).normal(shift, 1.0, (9, NUM_FEATURES)).astype(np.float32)
    return TrackWindows(VideoRow(f"{source}{group}{seed}.mp4", label, source, "toy" if label else "", group), "original/1", features)


def test_the_line_finds_a_shift_and_is_judged_on_generators_it_did_not_see() -> None:
    rng = range(20)
    reals = [windows(0, "studio", f"person{i}", shift=0.0, seed=i) for i in rng]
    fakes = [windows(1, f"generator{i % 4}", f"idol{i}", shift=0.6, seed=100 + i) for i in rng]
    scored = []
    for fold in range(2):
        kept = [w for w in (*reals, *fakes) if fold_of(w.row, 2) != fold]
        net = fit(kept, 0.01)
        with torch.inference_mode():
            scored += [(w, float(net(torch.from_numpy(w.features)).mean())) for w in (*reals, *fakes) if fold_of(w.row, 2) == fold]

    assert len(scored) == 40
    assert cross_fitted_metrics(scored)["auc_originals"] > 0.95


def test_no_person_and_no_generator_stands_in_two_folds() -> None:
    rows = [VideoRow(f"{i}.mp4", i % 2, f"source{i % 6}", "", f"person{i % 5}") for i in range(60)]
    for label, key in ((0, "group"), (1, "source")):
        folds: dict[str, set[int]] = {}
        for row in rows:
            if row.label == label:
                folds.setdefault(getattr(row, key), set()).add(fold_of(row, 4))
        assert all(len(found) == 1 for found in folds.values())


def test_one_label_alone_and_no_videos_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="both sides"):
        fit([windows(0, "studio", "a", shift=0, seed=1)], 0.01)
    recipe = get_recipe("temporal")
    with pytest.raises(DataError, match="--videos"):
        run_recipe(recipe, Context(recipe.settings("smoke"), Material(make_pack(2), "toy"), tmp_path))


def test_the_recipe_learns_from_clips_and_leaves_a_bundle_with_its_folds(tmp_path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    lines = ["file\tlabel\tsource\tgenerator\tidentity"]
    clips = [("real", "studio", "ann"), ("real", "studio", "cleo"), ("fake", "alpha", "x"), ("fake", "beta", "y")]
    for number, (label, source, identity) in enumerate(clips):
        write_clip(videos / f"{number}.mp4", astronaut_pictures(8, zoom=1.0 + 0.1 * number))
        lines.append(f"{number}.mp4\t{label}\t{source}\ttoy\t{identity}")
    (videos / "MANIFEST.tsv").write_text("\n".join(lines) + "\n")
    recipe = get_recipe("temporal")
    context = Context(recipe.settings("smoke"), Material(make_pack(2), "toy", videos), tmp_path / "run")

    outcome = run_recipe(recipe, context)

    bundle = load_bundle(tmp_path / "run" / "bundle")
    assert outcome.metrics["bundle_sha256"] == bundle.sha256
    folds = json.loads((tmp_path / "run" / "folds.json").read_text())
    assert set(folds) == {f"{number}.mp4" for number in range(4)}
    scorers = load_scorers([bundle], folds_root=tmp_path / "run")
    assert set(scorers.folds) == set(folds)
    other = tmp_path / "elsewhere"
    other.mkdir()
    with pytest.raises(DataError, match=r"folds\.json"):
        load_scorers([bundle], folds_root=other)
