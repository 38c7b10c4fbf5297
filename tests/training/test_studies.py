"""What the supervised studies share: early stop, transfer, balanced sources, run folders, refusals."""

import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from training_faces import make_pack

from detect_core.nets import build_net
from training.errors import CheckpointError, ConfigError, DataError, DivergedError, OutOfMemoryError
from training.face_pack import concatenate
from training.loop import Batch, EarlyStop, LoopConfig, train_supervised
from training.material import Material
from training.recipe import Context, Outcome, Recipe, run_recipe
from training.recipes import get_recipe
from training.recipes.xception_search import Cell
from training.recipes.xception_search import Settings as GridSettings
from training.study_data import ClassifySettings, StudyData, sources_with_both
from training.transfer import freeze, start_from


@pytest.fixture(scope="module")
def labelled():
    packs = [make_pack(12, seed=10 + 2 * i + k, split=s, label=k) for i, s in enumerate(("train", "valid", "test")) for k in (0, 1)]
    return concatenate(packs)


def flat_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 1), nn.Flatten(0))


def draw(_step, generator):
    return Batch(torch.randn(4, 3, 2, 2, generator=generator), torch.tensor([0.0, 1.0, 0.0, 1.0]))


def train(run_dir, losses, *, patience=2, steps=12):
    said = iter(losses)
    nets = []

    def validate(net):
        nets.append({k: v.clone() for k, v in net.state_dict().items()})
        return {"valid_log_loss": next(said)}

    config = LoopConfig(steps=steps, validate_every=2, bf16=False)
    stop = EarlyStop("valid_log_loss", patience=patience)
    net, result = train_supervised(flat_net(), draw, config=config, run_dir=run_dir, identity="t", validate=validate, early_stop=stop)
    return net, result, nets


def test_a_run_that_no_longer_improves_ends_with_its_best_weights(tmp_path):
    net, result, nets = train(tmp_path, [0.6, 0.4, 0.5, 0.45, 0.1, 0.1])
    assert result.steps == 8
    assert result.validation == {"valid_log_loss": 0.4}
    assert torch.equal(net.state_dict()["1.weight"], nets[1]["1.weight"])
    # And asking again does not train on: the run was over.
    again, result, seen = train(tmp_path, [])
    assert not seen
    assert torch.equal(again.state_dict()["1.weight"], net.state_dict()["1.weight"])


def test_an_early_stop_looks_at_validation_only():
    with pytest.raises(ConfigError, match="named valid_"):
        EarlyStop("test_auc", patience=1)


def test_an_early_stop_on_something_that_is_not_measured_is_refused(tmp_path):
    stop = EarlyStop("valid_auc_loss", patience=1)
    config = LoopConfig(steps=2, validate_every=1, bf16=False)
    with pytest.raises(ConfigError, match="validation gave valid_x"):
        train_supervised(
            flat_net(), draw, config=config, run_dir=tmp_path, identity="t", validate=lambda _net: {"valid_x": 1.0}, early_stop=stop
        )


def test_a_frozen_xception_moves_its_head_alone():
    net = build_net("xception", dense_width=8)
    freeze(net, all_but_head=True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.5)
    net(torch.rand(2, 3, 48, 48)).sum().backward()
    optimiser.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("backbone.fc.") for name in moved)
    freeze(net, all_but_head=False)
    net.train()
    assert net.backbone.bn1.training


def test_a_net_whose_norms_would_go_on_learning_cannot_be_frozen():
    with pytest.raises(ConfigError, match="batch norms"):
        freeze(build_net("cnn5"), all_but_head=True)


def test_weights_of_the_user_start_everything_but_the_head(tmp_path):
    torch.manual_seed(1)
    donor, net = build_net("xception"), build_net("xception", dense_width=16)
    plain = {name.removeprefix("backbone."): value.contiguous() for name, value in donor.state_dict().items() if ".fc." not in name}
    save_file(plain, tmp_path / "imagenet.safetensors")
    digest = start_from(net, str(tmp_path / "imagenet.safetensors"))
    assert len(digest) == 64
    assert torch.equal(net.backbone.conv1.weight, donor.backbone.conv1.weight)
    with pytest.raises(CheckpointError, match="no such file"):
        start_from(net, str(tmp_path / "none.safetensors"))
    (tmp_path / "torn.pth").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"torn\.pth: not readable"):
        start_from(net, str(tmp_path / "torn.pth"))
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="of another net"):
        start_from(net, str(tmp_path / "other.safetensors"))
    save_file({**plain, "conv1.weight": torch.zeros(3, 3)}, tmp_path / "shape.safetensors")
    with pytest.raises(CheckpointError, match="the net wants"):
        start_from(net, str(tmp_path / "shape.safetensors"))


def test_both_classes_draw_every_source_equally_often(labelled):
    # Given a source with few fakes and one with few reals, a batch shows no source with one label more often.
    keep = [i for i, r in enumerate(labelled.rows) if r.split != "train" or (r.source == "source0") == (r.label == 0) or i % 5 == 0]
    pack = labelled.take(keep)
    assert sources_with_both(pack) == ("source0", "source1")
    data = StudyData(pack, None, settings=ClassifySettings(size_px=32))
    shares = []
    for label, weights in ((0, data._pick_real), (1, data._pick_fake)):
        rows = pack.where(split="train", label=label).rows
        share = sum(float(w) for w, r in zip(weights, rows, strict=True) if r.source == "source0") / float(weights.sum())
        shares.append(share)
    assert shares[0] == pytest.approx(shares[1])


def test_a_source_with_one_class_is_left_out_by_default(labelled):
    extra = make_pack(4, seed=99, first_group=500)
    extra = dataclasses.replace(extra, rows=tuple(dataclasses.replace(r, source="reals only") for r in extra.rows))
    data = StudyData(concatenate([labelled, extra]), None, settings=ClassifySettings(size_px=32))
    assert len(data.train_reals) == 12


def test_parts_of_a_split_are_the_split(labelled):
    data = StudyData(labelled, None, settings=ClassifySettings(size_px=32))
    labels, origins = data.listed("test")
    images = torch.cat(list(data.images("test")))
    assert len(labels) == len(origins) == len(images) == 24
    assert labels.tolist() == [1] * 12 + [0] * 12
    assert all(bool(origin.generator) == bool(label) for origin, label in zip(origins, labels, strict=True))
    thin, _ = data.listed("test", most=12)
    assert thin.tolist() == [1] * 6 + [0] * 6
    assert torch.equal(torch.cat(list(data.images("test", most=12)))[0], images[0])


def recipe_of(run):
    return Recipe("toy", "none", "toy", {"smoke": ClassifySettings()}, run)


def context_of(pack, folder, **changes):
    return Context(ClassifySettings(), Material(pack, f"{len(pack)} faces"), folder, **changes)


def test_a_run_folder_tells_everything(labelled, tmp_path):
    def run(context):
        for step in (1, 2, 3):
            context.on_log({"step": step, "loss": 1.0 / step})
        return Outcome({"auc": 0.5})

    run_recipe(recipe_of(run), context_of(labelled, tmp_path, tensorboard=True))
    document = json.loads((tmp_path / "outcome.json").read_text())
    assert {"recipe", "settings", "material", "material_sha256", "commit", "torch", "threads", "device", "seconds", "metrics"} <= set(
        document
    )
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_run_never_goes_on_with_less_data(labelled, tmp_path):
    recipe = recipe_of(lambda _context: Outcome({}))
    run_recipe(recipe, context_of(labelled, tmp_path))
    with pytest.raises(CheckpointError, match="begun on other material"):
        run_recipe(recipe, context_of(labelled.take(range(20)), tmp_path))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    ],
)
def test_out_of_memory_says_what_to_lower(error, labelled, tmp_path):
    def run(_context):
        raise error

    with pytest.raises(OutOfMemoryError, match="lower batch"):
        run_recipe(recipe_of(run), context_of(labelled, tmp_path))
    assert (tmp_path / "config.json").is_file()


def test_memory_that_truly_runs_out_is_reported(labelled, tmp_path):
    def run(_context):
        torch.empty(2**60, dtype=torch.uint8)
        raise AssertionError

    with pytest.raises(OutOfMemoryError):
        run_recipe(recipe_of(run), context_of(labelled, tmp_path))


def test_other_runtime_errors_stay_what_they_are(labelled, tmp_path):
    def run(_context):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run_recipe(recipe_of(run), context_of(labelled, tmp_path))


def test_a_diverging_run_stops_and_leaves_no_outcome(labelled, tmp_path):
    recipe = get_recipe("autogan_cnn_raw")
    settings = dataclasses.replace(recipe.presets["smoke"], learning_rate=1e30, steps=30, bf16=False)
    with pytest.raises(DivergedError, match="lower the learning rate"):
        run_recipe(recipe, Context(settings, Material(labelled, "toy"), tmp_path))
    assert not (tmp_path / "outcome.json").exists()


def test_a_study_resumes_only_with_its_own_settings(labelled, tmp_path):
    recipe = get_recipe("autogan_cnn_raw")
    settings = recipe.presets["smoke"]
    run_recipe(recipe, Context(settings, Material(labelled, "toy"), tmp_path))
    with pytest.raises(CheckpointError, match="other data or settings"):
        run_recipe(recipe, Context(dataclasses.replace(settings, margin=1.5), Material(labelled, "toy"), tmp_path))


def test_one_class_missing_in_a_split_is_named(labelled):
    pack = labelled.take([i for i, r in enumerate(labelled.rows) if not (r.split == "valid" and r.label)])
    with pytest.raises(DataError, match="'valid fake': 0"):
        StudyData(pack, None, settings=ClassifySettings())


def test_the_grid_has_every_cell_once_and_cells_are_read_strictly():
    cells = GridSettings().grid()
    assert len(cells) == len(set(cells)) == 3 * 3 * 3 * 4
    assert Cell.read(str(cells[17])) == cells[17]
    for wrong in ("sgd 0.01", "sgd fast 0 0", "lion 0.1 0 0", "sgd 0.1 1.0 0"):
        with pytest.raises(ConfigError):
            Cell.read(wrong)


def test_a_stopped_grid_does_not_repeat_its_cells(labelled, tmp_path):
    recipe = get_recipe("xception_ablation")
    settings = dataclasses.replace(recipe.presets["smoke"], size_px=40)
    seen = []

    def stop(row):
        if row.get("cell"):
            seen.append(row["cell"])
            if len(seen) == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, Context(settings, Material(labelled, "toy"), tmp_path, on_log=stop))
    before = (tmp_path / "cell00" / "net" / "checkpoint.pt").stat().st_mtime_ns
    outcome = run_recipe(recipe, Context(settings, Material(labelled, "toy"), tmp_path, on_log=stop))
    assert outcome.metrics["cells"] == 2
    assert (tmp_path / "cell00" / "net" / "checkpoint.pt").stat().st_mtime_ns == before
    assert "best" in outcome.metrics
    assert math.isfinite(outcome.metrics["best_log_loss"])
