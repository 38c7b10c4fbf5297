"""Every recipe runs its smoke preset on made-up faces and leaves what it promises."""

import json
import math

import pytest
import torch
from training_faces import make_pack

from detect_core.bundle import load_bundle, load_net
from training.errors import ConfigError, DataError
from training.face_pack import concatenate
from training.material import Material
from training.recipe import Context, run_recipe
from training.recipes import RECIPES, get_recipe


@pytest.fixture(scope="module")
def labelled():
    """Both classes in every split, two sources."""
    packs = [make_pack(40, seed=1), make_pack(12, seed=2, kind="video")]
    for i, split in enumerate(("train", "valid", "test")):
        packs += [make_pack(24, seed=10 + 2 * i + label, split=split, label=label, first_group=100) for label in (0, 1)]
    return Material(concatenate(packs), "toy faces")


def overrides(recipe):
    settings = recipe.presets["smoke"]
    return ['sources=["source0", "source1"]'] if hasattr(settings, "sources") else []


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "temporal"])  # it learns from videos: see test_temporal.py
def test_smoke_preset_trains_measures_and_exports(name, labelled, tmp_path):
    recipe = get_recipe(name)
    outcome = run_recipe(recipe, Context(recipe.settings("smoke", overrides(recipe)), labelled, tmp_path))
    assert outcome.metrics
    assert all(math.isfinite(value) for value in outcome.metrics.values() if isinstance(value, float))
    for artefact in outcome.artefacts:
        assert (tmp_path / artefact).exists()
    if "bundle" in outcome.artefacts:
        bundle = load_bundle(tmp_path / "bundle")
        size = bundle.crop.size_px
        with torch.inference_mode():
            logits = load_net(bundle)(torch.zeros(2, 3, size, size))
        assert torch.isfinite(logits).all()
    document = json.loads((tmp_path / "outcome.json").read_text())
    assert (tmp_path / "log.jsonl").read_text()
    assert document["commit"]
    assert document["recipe"] == name
    assert len(document["material_sha256"]) == 64


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_has_the_three_presets_and_says_what_it_is(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert set(recipe.presets) == {"smoke", "cpu", "gpu"}
    assert len({type(settings) for settings in recipe.presets.values()}) == 1
    assert recipe.study
    assert recipe.summary


def test_settings_are_read_by_type_and_wrong_ones_refused():
    recipe = get_recipe("blend")
    settings = recipe.settings("smoke", ["pairs=4", "ema=0.5", "sizes_px=[32]"])
    assert (settings.pairs, settings.ema, settings.sizes_px) == (4, 0.5, (32,))
    for wrong in ("pairs=many", "nope=1", "pairs", "pairs=1.5"):
        with pytest.raises(ConfigError):
            recipe.settings("smoke", [wrong])
    with pytest.raises(ConfigError, match="no preset"):
        recipe.settings("tpu")
    with pytest.raises(ConfigError, match="unknown recipe"):
        get_recipe("nope")


@pytest.mark.parametrize(
    ("name", "wrong", "known"),
    [
        ("cnn5", "trained=Head", "'all', 'head'"),
        ("cnn5", "optimiser=foo", "'adamw', 'adam', 'nadam', 'sgd'"),
        ("cnn5", "rates=cosin", "'cosine', 'constant'"),
        ("autogan_reconstruct", "upsampler=Nearest", "'nearest', 'bilinear'"),
        ("autogan_spectrum", "upsampler=Nearest", "'nearest', 'bilinear'"),
        ("dcgan_baseline", "size_px=48", "32, 64"),
    ],
)
def test_a_setting_with_known_values_takes_no_other(name, wrong, known):
    with pytest.raises(ConfigError, match=f"is not known; give one of {known}"):
        get_recipe(name).settings("smoke", [wrong])


def test_stages_without_their_own_steps_and_rates_are_refused_before_the_first_one():
    recipe = get_recipe("blend")
    with pytest.raises(ConfigError, match="got 2, 1 and 1 of them; give all three the same length"):
        recipe.settings("smoke", ["sizes_px=[128, 160]"])
    with pytest.raises(ConfigError, match="one stage for each"):
        recipe.settings("smoke", ["sizes_px=[]", "steps=[]", "learning_rates=[]"])


def test_a_study_without_one_class_says_so(labelled, tmp_path):
    recipe = get_recipe("cnn5")
    reals = Material(labelled.faces.where(label=0), "reals only")
    with pytest.raises(DataError, match="lacks a class"):
        run_recipe(recipe, Context(recipe.settings("smoke", overrides(recipe)), reals, tmp_path))
    with pytest.raises(DataError, match="no real face"):
        Material(labelled.faces.where(label=1), "fakes only").reals("train")
