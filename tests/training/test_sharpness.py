"""Sharpness-aware minimisation and the published rate schedules: against the formulas, and resumable to the same numbers."""

import dataclasses
import json

import pytest
import torch
from test_loop import CONFIG, KilledError, Toy, draw, new_net, train
from torch import nn
from training_faces import make_pack

from training.augment import degrade_as_ffpp
from training.errors import CheckpointError, ConfigError
from training.face_pack import concatenate
from training.geometry import view
from training.loop import Batch, LoopConfig, learning_rate_at, train_supervised
from training.material import Material
from training.optimisers import at_worst_neighbour
from training.recipe import Context, Outcome, Recipe, run_recipe, same_run
from training.recipes import get_recipe
from training.run_key import described, later_defaults
from training.study_data import ClassifySettings, StudyData

SAM = dataclasses.replace(CONFIG, optimiser="sgd", sam_rho=0.05, ema=0.0, rates="linear_tail")


class Quadratic(nn.Module):
    """Half w'Aw, whose gradient is Aw everywhere."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0, -1.0]))
        self.a = torch.tensor([[3.0, 0.5], [0.5, 1.0]])

    def forward(self):
        return 0.5 * self.w @ self.a @ self.w


def test_the_gradient_is_that_of_the_worst_neighbour():
    net, rho = Quadratic(), 0.1
    before = net.w.detach().clone()
    net().backward()
    gradient = net.a @ before
    with at_worst_neighbour(net, rho):
        assert torch.allclose(net.w, before + rho * gradient / gradient.norm())
        net.w.grad = None
        net().backward()
    assert torch.equal(net.w, before)
    assert torch.allclose(net.w.grad, net.a @ (before + rho * gradient / gradient.norm()))


def test_running_statistics_are_those_of_the_net_and_not_of_its_neighbour():
    net = new_net().train()
    images = torch.randn(8, 3, 12, 12)
    net(images).sum().backward()
    statistics = net.body[1].running_mean.clone(), net.body[1].running_var.clone()
    with at_worst_neighbour(net, 0.5):
        net(images).sum().backward()
    assert torch.equal(net.body[1].running_mean, statistics[0])
    assert torch.equal(net.body[1].running_var, statistics[1])
    assert net.body[1].momentum == 0.1


def test_weights_come_back_when_the_second_look_fails():
    net = Quadratic()
    net().backward()
    before = net.w.detach().clone()
    with pytest.raises(RuntimeError), at_worst_neighbour(net, 0.1):
        raise RuntimeError
    assert torch.equal(net.w, before)


def test_a_step_of_the_loop_is_the_formula(tmp_path):
    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.5, -0.25, 1.0]))

        def forward(self, x):
            return x.mean((2, 3)) @ self.w

    def fixed(_step, _generator):
        return Batch(torch.arange(24.0).reshape(2, 3, 2, 2) / 24, torch.tensor([1.0, 0.0]))

    config = LoopConfig(steps=1, optimiser="sgd", learning_rate=0.5, rates="constant", sam_rho=0.2, weight_decay=0.0, ema=0.0, bf16=False)
    net, _ = train_supervised(Line(), fixed, config=config, run_dir=tmp_path, identity="line")
    x, y, w = fixed(0, None).images.mean((2, 3)), torch.tensor([1.0, 0.0]), Line().w.detach()

    def gradient(weights):
        return ((torch.sigmoid(x @ weights) - y)[:, None] * x).mean(0)

    there = w + 0.2 * gradient(w) / gradient(w).norm()
    assert torch.allclose(net.w.detach(), w - 0.5 * gradient(there), atol=1e-6)


def test_a_killed_sharpness_aware_run_resumes_to_the_same_numbers(tmp_path):
    whole, _ = train(tmp_path / "whole", config=SAM)

    def dying(step, generator):
        if step == 10:
            raise KilledError
        return draw(step, generator)

    with pytest.raises(KilledError):
        train(tmp_path / "killed", draw=dying, config=SAM)
    resumed, _ = train(tmp_path / "killed", config=SAM)
    plain, _ = train(tmp_path / "plain", config=dataclasses.replace(SAM, sam_rho=0.0))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert not torch.equal(whole.head.weight, plain.head.weight)
    with pytest.raises(CheckpointError, match="other data or settings"):
        train(tmp_path / "killed", config=dataclasses.replace(SAM, sam_rho=0.1))


def test_separable_data_is_learned(tmp_path):
    config = dataclasses.replace(SAM, steps=150, learning_rate=5e-2, validate_every=1000)
    _, result = train(tmp_path, config=config)
    assert result.loss < 0.3


def test_schedules_are_the_published_ones():
    def rates(kind):
        config = LoopConfig(steps=100, learning_rate=1.0, rates=kind)
        return [learning_rate_at(step, config) for step in range(1, 101)]

    assert set(rates("constant")) == {1.0}
    tail = rates("linear_tail")
    assert set(tail[:75]) == {1.0}
    assert tail[88] == pytest.approx(0.48)
    assert tail[-1] == pytest.approx(0.04)
    assert [rates("halving")[i] for i in (0, 24, 25, 50, 75, 99)] == [1.0, 1.0, 0.5, 0.25, 0.125, 0.125]


def test_without_averaging_the_last_weights_are_what_comes_out(tmp_path):
    net, _ = train(tmp_path, config=SAM)
    last = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["net"]
    assert all(torch.equal(value, last[name]) for name, value in net.state_dict().items())
    assert isinstance(net, Toy)


def test_a_negative_radius_is_refused():
    with pytest.raises(ConfigError, match="sam_rho"):
        LoopConfig(sam_rho=-0.1)


def test_settings_that_came_later_name_a_run_only_where_they_are_used():
    assert set(later_defaults(LoopConfig)) == {"rates", "sam_rho"}
    assert not {"rates", "sam_rho"} & set(described(LoopConfig()))
    assert described(LoopConfig(sam_rho=0.05))["sam_rho"] == 0.05
    old = {k: v for k, v in dataclasses.asdict(ClassifySettings()).items() if k not in later_defaults(ClassifySettings)}
    assert described(ClassifySettings()) == json.loads(json.dumps(old))


def test_an_outcome_from_before_a_setting_existed_counts_while_the_setting_stands_at_its_default(tmp_path):
    recipe = Recipe("a", "s", "s", {"cpu": ClassifySettings()}, lambda _context: Outcome({"test_auc": 0.5}))
    material = Material(make_pack(4), "toy faces")
    context = Context(recipe.settings("cpu"), material, tmp_path)
    run_recipe(recipe, context)
    path = tmp_path / "outcome.json"
    document = json.loads(path.read_text())
    for name in later_defaults(ClassifySettings):
        del document["settings"][name]
    path.write_text(json.dumps(document))
    assert same_run(recipe, context) is not None
    assert same_run(recipe, dataclasses.replace(context, settings=recipe.settings("cpu", ["rates=constant"]))) is None


def test_the_degradation_of_faceforensics_takes_half_of_the_pictures_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(400, 3, 16, 16, generator=generator)
    changed = (degrade_as_ffpp(images, generator) != images).flatten(1).any(1)
    assert 0.68 < changed.float().mean() < 0.82  # 1 - 1/2 * 1/2
    assert torch.equal(
        degrade_as_ffpp(images[:8], torch.Generator().manual_seed(3)), degrade_as_ffpp(images[:8], torch.Generator().manual_seed(3))
    )


def test_faces_for_faceforensics_are_mirrored_and_not_moved():
    pack = concatenate([make_pack(1, split=split, label=label, first_group=50) for split in ("train", "valid", "test") for label in (0, 1)])
    settings = ClassifySettings(size_px=32, degrade="ffpp", value_range="unit", batch=40, sources=("source0",))
    batch = StudyData(pack, None, settings=settings).batch(torch.Generator().manual_seed(1)).images
    straight, _ = view(pack, torch.tensor([1]), size_px=32, margin=1.3)  # the training fake
    fakes = batch[:20]
    untouched = [bool((fakes == kind).flatten(1).all(1).any()) for kind in (straight, straight.flip(3))]
    assert untouched[0]
    near = torch.minimum((fakes - straight).abs().mean((1, 2, 3)), (fakes - straight.flip(3)).abs().mean((1, 2, 3)))
    assert float(near.max()) < 0.1


def test_sbi_and_the_faceforensics_recipes_have_the_published_settings():
    published = get_recipe("sbi_efficientnet_b4").settings("gpu")
    assert (published.size_px, published.pairs, published.learning_rate, published.sam_rho) == (380, 16, 1e-3, 0.05)
    assert published.steps == 100 * 720 // 16  # epochs, videos, pairs
    assert get_recipe("sbi").settings("gpu").net == "xception"
    usual, older = (get_recipe(name).settings("gpu") for name in ("xception_ffpp", "xception_legacy_ffpp"))
    assert (usual.optimiser, usual.learning_rate, usual.weight_decay, usual.batch, usual.size_px) == ("adam", 2e-4, 5e-4, 32, 256)
    assert (usual.rates, usual.degrade, usual.steps) == ("constant", "ffpp", 10 * 3600)
    assert (older.optimiser, older.learning_rate, older.rates, older.size_px, older.steps) == ("adam", 1e-3, "halving", 299, 20 * 3600)
