"""Batches are made where the net learns: every simulator, augmentation and codec runs on a pretended GPU, with the same numbers."""

import copy

import pytest
import torch
from torch import nn
from training_faces import make_pack

from pretended_gpu import GPU, OnGpu, OnGpuGenerator, PretendedGpu
from training import device
from training.augment import AugmentConfig
from training.codec import simulate_h264, simulate_jpeg
from training.device import Placed, drawing_on
from training.face_pack import concatenate
from training.labelled import LabelledSource, MixConfig
from training.leave_one_out import batch_of, pool_of
from training.pairs import PairConfig, PairSource
from training.simulators.blends import CrossBlend, DecoderBlend, MouthResynthesis, SelfBlend, WarpBlend
from training.study_data import ClassifySettings, StudyData

ALWAYS = AugmentConfig(colour=1, resample=1, soft_or_sharp=1, noise=1, overlay=1, codec=1, second_codec=1, grey=0.3)


class Softened(nn.Module):
    """An autoencoder without weights that minds where it was put."""

    at = torch.device("cpu")

    def to(self, device):
        self.at = device
        return self

    def forward(self, x):
        assert x.device == self.at
        return nn.functional.avg_pool2d(x, 3, 1, 1)


@pytest.fixture(autouse=True)
def _autocast_of_the_cpu(monkeypatch):
    """The pretended GPU reckons on the CPU, whose half precision it needs for equal numbers."""
    real = torch.autocast
    fast = device.has_fast_bf16(torch.device("cpu"))
    monkeypatch.setattr(device, "has_fast_bf16", lambda _device: fast)
    monkeypatch.setattr(torch, "autocast", lambda _kind, dtype, *, enabled=True: real("cpu", dtype, enabled=enabled))


@pytest.fixture(scope="module")
def both():
    packs = [make_pack(8, seed=1), make_pack(8, seed=2, label=1, first_group=50)]
    return concatenate(
        [*packs, *(make_pack(4, seed=5 + i, split=s, label=i % 2) for i, s in enumerate(("valid", "valid", "test", "test")))]
    )


def test_the_pretended_gpu_refuses_what_a_real_one_refuses():
    with PretendedGpu() as gpu:
        with drawing_on(GPU):
            there = torch.zeros(3)
            assert torch.rand(3, generator=OnGpuGenerator()).device == GPU
            with pytest.raises(RuntimeError, match="another device"):
                torch.rand(3, generator=torch.Generator())
        with pytest.raises(RuntimeError, match="meet 1 of the CPU"):
            there + torch.zeros(3)
        assert isinstance(there + 1, OnGpu)
        assert type(there.cpu()) is torch.Tensor
        assert gpu.met > 0
        with pytest.raises(RuntimeError, match="another device"):
            torch.rand(3, generator=OnGpuGenerator())


def same_on_both(draw):
    """What `draw` gives with a generator, on the CPU and on the pretended GPU."""
    plain = draw(torch.Generator().manual_seed(7))
    with PretendedGpu() as gpu, drawing_on(GPU):
        generator = OnGpuGenerator()
        generator.manual_seed(7)
        there = draw(generator)
        tensors = [x for x in there if isinstance(x, torch.Tensor)]
        assert all(isinstance(x, OnGpu) for x in tensors)
        back = [x.cpu() for x in tensors]
    assert gpu.met > 50
    for a, b in zip((x for x in plain if isinstance(x, torch.Tensor)), back, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "simulator",
    [SelfBlend(), CrossBlend(), WarpBlend(), MouthResynthesis(), DecoderBlend([Softened()], whole_share=0.5)],
    ids=lambda simulator: simulator.family,
)
def test_pairs_of_every_family(simulator, both):
    source = PairSource(both.where(label=0, split="train"), [(simulator, 1.0)], config=PairConfig(size_px=48, work_px=64), augment=ALWAYS)

    def draw(generator):
        batch = source.batch(6, generator)
        return batch.images, batch.labels, batch.masks

    same_on_both(draw)


def test_labelled_faces(both):
    config = MixConfig(size_px=48, work_px=64)
    source = LabelledSource(both.where(split="train"), DecoderBlend([Softened()], whole_share=0.5), config=config, augment=ALWAYS)

    def draw(generator):
        batch = source.batch(6, generator)
        return batch.images, batch.labels

    same_on_both(draw)


def test_pairs_of_generators_that_were_drawn_before(both):
    reals = both.where(label=0, split="train")
    pools = [pool_of(reals, simulator, name=simulator.family, pairs=6, size_px=48, seed=1) for simulator in (SelfBlend(), CrossBlend())]

    def draw(generator):
        batch = batch_of(pools, 16, generator)
        return batch.images, batch.labels, batch.masks

    same_on_both(draw)


@pytest.mark.parametrize("changes", [{}, {"degrade": "ffpp"}, {"fakes": "reconstruction", "through_autogan": True}])
def test_study_batches(changes, both):
    settings = ClassifySettings(size_px=48, batch=12, augment=1.0, sources=("source0", "source1"), **changes)
    data = StudyData(both, Softened(), settings=settings)

    def draw(generator):
        batch = data.batch(generator)
        return batch.images, batch.labels

    same_on_both(draw)


def test_both_codecs():
    images = torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    strength = torch.tensor([20.0, 30.0, 40.0, 90.0])
    plain = [simulate_jpeg(images, strength), simulate_h264(images, strength / 3)]
    with PretendedGpu(), drawing_on(GPU):
        there = [simulate_jpeg(images.to(GPU), strength.to(GPU)), simulate_h264(images.to(GPU), strength.to(GPU) / 3)]
        back = [x.cpu() for x in there]
    assert all(torch.equal(a, b) for a, b in zip(plain, back, strict=True))


def test_a_net_has_one_copy_on_each_device(monkeypatch):
    net = nn.Linear(2, 2)
    monkeypatch.setattr(nn.Module, "to", lambda self, _device: copy.copy(self))
    placed = Placed(net)
    assert placed.on(torch.device("cpu")) is net
    there = placed.on(GPU)
    assert there is not net
    assert placed.on(GPU) is there
    assert placed.on(torch.device("cpu")) is net
