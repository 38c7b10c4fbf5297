"""The recipe of the detector that looks at whole tracks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

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
from training.recipes.temporal import cross_fitted_metrics, fit, folds_of
from training.scorers import load_scorers
from training.split_videos import VideoRow
from training.track_windows import TrackWindows


def windows(label: int, source: str, group: str, *, shift: float, seed: int) -> TrackWindows:
    features = np.random.default_rng(seed).normal(shift, 1.0, (9, NUM_FEATURES)).astype(np.float32)
    return TrackWindows(
        VideoRow(f"{source}{group}{seed}.mp4", label, source, f"made by {source}" if label else "", group), "original/1", features
    )


def test_the_line_finds_a_shift_and_is_judged_on_generators_it_did_not_see() -> None:
    rng = range(20)
    reals = [windows(0, "studio", f"person{i}", shift=0.0, seed=i) for i in rng]
    fakes = [windows(1, f"generator{i % 4}", f"idol{i}", shift=0.6, seed=100 + i) for i in rng]
    scored = []
    folds = folds_of([w.row for w in (*reals, *fakes)], 2)
    for fold in range(2):
        kept = [w for w in (*reals, *fakes) if folds[w.row.file] != fold]
        net = fit(kept, 0.01)
        with torch.inference_mode():
            scored += [(w, float(net(torch.from_numpy(w.features)).mean())) for w in (*reals, *fakes) if folds[w.row.file] == fold]

    assert len(scored) == 40
    metrics = cross_fitted_metrics(scored)
    assert metrics["auc_originals"] > 0.95
    assert {name for name in metrics if "made by" in name} == {f"auc_originals_made by generator{i}" for i in range(4)}


def test_no_person_and_no_generator_stands_in_two_folds() -> None:
    # Given sources with two generators each, of which every other one also stands under a further source, and fakes without a name.
    rows = [VideoRow(f"{i}.mp4", 0, f"source{i % 6}", "", f"person{i % 5}") for i in range(30)]
    rows += [VideoRow(f"a{i}.mp4", 1, f"source{i}", f"generator{i}{k}", "x") for i in range(20) for k in "ab"]
    rows = [replace(row, file=f"{row.generator}{row.file}") for row in rows]
    rows += [VideoRow(f"b{i}.mp4", 1, f"more{i}", f"generator{i}a", "x") for i in range(0, 20, 2)]
    rows += [VideoRow(f"c{i}.mp4", 1, f"source{i}", "", "x") for i in range(20)]
    folds = folds_of(rows, 4)
    assert set(folds.values()) == set(range(4))
    for label, key in ((0, "group"), (1, "source"), (1, "generator")):
        found: dict[str, set[int]] = {}
        for row in rows:
            if row.label == label and getattr(row, key):
                found.setdefault(getattr(row, key), set()).add(folds[row.file])
        assert all(len(each) == 1 for each in found.values()), key


def test_a_source_alone_lies_where_it_always_lay() -> None:
    # Given generators under one source each, then their folds are those of the shipped bundle's run.
    known = {"aniportrait": 1, "anitalker": 3}
    rows = [VideoRow(name, 1, name, f"{name} (kind)", "x") for name in known]
    rows += [VideoRow(f"{i}.mp4", 0, "studio", "", f"person{i}") for i in range(8)]
    folds = folds_of(rows, 4)
    assert {name: folds[name] for name in known} == known


def test_a_generator_with_many_videos_under_one_source_weighs_by_the_root_of_its_own() -> None:
    # Given one source that holds a common and a rare generator, then the line learns the rare one as if it had a source of its own.
    reals = [windows(0, "studio", f"p{i}", shift=0.0, seed=i) for i in range(8)]
    common = [windows(1, "house", f"c{i}", shift=0.5, seed=50 + i) for i in range(9)]
    rare = windows(1, "house", "r", shift=-0.5, seed=90)
    rare = replace(rare, row=replace(rare.row, generator="rare"))
    apart = replace(rare, row=replace(rare.row, source="elsewhere"))
    together, alone = fit([*reals, *common, rare], 0.01), fit([*reals, *common, apart], 0.01)
    assert torch.equal(together.head.weight, alone.head.weight)


def test_fakes_of_one_family_are_refused_before_any_video_is_opened(tmp_path) -> None:
    lines = ["file\tlabel\tsource\tgenerator\tidentity"]
    for number, (label, generator) in enumerate((("real", ""), ("real", ""), ("fake", "plain"), ("fake", "enhanced"))):
        (tmp_path / f"{number}.mp4").write_bytes(b"not a video")
        lines.append(f"{number}.mp4\t{label}\thouse\t{generator}\tperson{number}")
    (tmp_path / "MANIFEST.tsv").write_text("\n".join(lines) + "\n")
    recipe = get_recipe("temporal")
    with pytest.raises(DataError, match=r"2 fake videos into 2 folds, got 1 filled, expected at least 2; give videos of more generators"):
        run_recipe(recipe, Context(recipe.settings("smoke"), Material(make_pack(2), "toy", tmp_path), tmp_path / "run"))


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
        lines.append(f"{number}.mp4\t{label}\t{source}\t{source} maker\t{identity}")
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
    elsewhere = save_under_another_name(tmp_path / "run" / "bundle", tmp_path / "renamed")
    assert set(load_scorers([elsewhere], folds_root=tmp_path / "run").folds) == set(folds)


def save_under_another_name(root, destination):
    shutil.copytree(root, destination)
    card = json.loads((destination / "bundle.json").read_text())
    (destination / "bundle.json").write_text(json.dumps({**card, "name": "temporal_second"}))
    return load_bundle(destination)
