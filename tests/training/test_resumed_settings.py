"""A run folder goes on only with the settings that it was begun with; the same ones give the same numbers."""

import dataclasses
import itertools
import json

import optuna
import pytest
from training_faces import make_pack

from training.autogan_bank import AutoGanConfig, train_autogan
from training.errors import CheckpointError
from training.face_pack import concatenate
from training.material import Material
from training.recipe import Context, run_recipe
from training.recipes import get_recipe, xception_search


@pytest.fixture(scope="module")
def labelled():
    packs = [make_pack(24, seed=10 + 2 * i + k, split=s, label=k) for i, s in enumerate(("train", "valid", "test")) for k in (0, 1)]
    return Material(concatenate(packs), "toy faces")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("blend", ("sizes_px=[48]", "pairs=10", 'net_options={"widths": [16, 16, 16, 16]}')),
        ("synthesis", ("size_px=64", "pairs=6")),
        ("autogan_classifier", ("size_px=56", "pairs=10", "whole_share=0.1")),
    ],
)
def test_a_changed_setting_is_refused_and_the_same_ones_change_nothing(name, other, labelled, tmp_path):
    recipe = get_recipe(name)

    def ran(*overrides):
        return run_recipe(recipe, Context(recipe.settings("smoke", overrides), labelled, tmp_path)).metrics

    first = ran()
    before = (tmp_path / "config.json").read_text()
    for override in other:
        with pytest.raises(CheckpointError, match="other data or settings"):
            ran(override)
    assert (tmp_path / "config.json").read_text() == before  # it says what lies in the folder
    assert ran() == first


class StoppedError(Exception):
    """Stands for a kill."""


def test_a_stopped_autoencoder_does_not_go_on_at_another_size(labelled, tmp_path):
    def stop(_row):
        raise StoppedError

    config = AutoGanConfig(ngf=4, ndf=4, steps=300, batch=1, size_px=32, bf16=False)  # a checkpoint at step 250, the next row at 300
    pack = labelled.reals("train")
    rows = itertools.count(1)
    with pytest.raises(StoppedError):
        train_autogan(pack, config, tmp_path, on_log=lambda row: stop(row) if next(rows) == 6 else None)
    with pytest.raises(CheckpointError, match="other data or settings"):
        train_autogan(pack, dataclasses.replace(config, size_px=48), tmp_path)


def test_a_search_counts_only_trials_of_its_settings_and_repeats_none(labelled, tmp_path, monkeypatch):
    recipe = get_recipe("xception_search")
    cells = []

    def run_cell(_context, cell, _folder):
        cells.append(str(cell))
        return {"cell": str(cell), "valid_log_loss": 0.5}

    def ran(**changes):
        del cells[:]
        settings = dataclasses.replace(recipe.presets["smoke"], **changes)
        run_recipe(recipe, Context(settings, labelled, tmp_path))
        return list(cells)

    monkeypatch.setattr(xception_search, "_run_cell", run_cell)
    first = ran(trials=4)
    assert len(first) == 4
    assert ran(trials=4) == []
    second = ran(trials=8)
    assert len(second) == 4
    assert not set(first) & set(second)
    assert len(ran(trials=4, size_px=64)) == 4
    names = optuna.get_all_study_names(
        optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "search.journal")))
    )
    assert len(names) == 2
    assert json.loads((tmp_path / "outcome.json").read_text())["metrics"]["cells"] == 4
