"""Every training loop keeps its nets and tensors on one device: run on fake CUDA tensors, which refuse to meet CPU ones.

There is no GPU where these tests run. Fake tensors know their shapes and device and hold no numbers, so what would
need numbers (losses as floats, the backward pass, files) is taken out; every forward pass and every optimiser remains.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from training_faces import make_pack

from detect_core.nets import build_net
from detect_core.nets.autogan import AutoGan, PatchDiscriminator
from training import adversarial, face_swap_loop, loop, noise_gan
from training.device import training_device
from training.recipes import dcgan_classifier

GPU = torch.device("cuda", 0)
NARROW = {"widths": (4, 4, 8, 8, 8, 8), "num_middle": 1}


def moved(parameter, target):
    """Fake tensors cannot be swapped for each other, so the one that is there says that it moved."""
    parameter.fake_device = target.fake_device


@pytest.fixture
def on_gpu(monkeypatch):
    seen = []

    def backward(loss):
        seen.append(loss.device)

    for module in (adversarial, face_swap_loop, loop, noise_gan, dcgan_classifier):
        monkeypatch.setattr(module, "training_device", lambda: GPU)
    monkeypatch.setattr(torch.utils, "swap_tensors", moved)
    monkeypatch.setattr(torch.autograd, "backward", backward)
    monkeypatch.setattr(torch.Tensor, "item", lambda _self: 0.5)
    monkeypatch.setattr(torch.Tensor, "__float__", lambda _self: 0.5)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _self: True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield seen


def test_the_fake_gpu_refuses_tensors_of_the_cpu(on_gpu):
    net = nn.Linear(3, 2).to(GPU)
    assert net.weight.device == GPU
    with pytest.raises(RuntimeError, match=r"same device|different devices"):
        net(torch.zeros(1, 3))
    with pytest.raises(RuntimeError, match=r"same device|different devices"):
        _ = torch.zeros(2, device=GPU) + torch.zeros(2)


def test_the_reconstructing_loop(on_gpu, monkeypatch):
    devices = []
    net, judge = AutoGan(1, 4), PatchDiscriminator(4)
    judge.register_forward_pre_hook(lambda _module, inputs: devices.append(inputs[0].device))
    config = adversarial.AdversarialConfig(steps=2, batch=2, pool_size=3, bf16=False)
    adversarial.train_adversarial(net, judge, lambda batch, _generator: torch.zeros(batch, 3, 64, 64), config=config)
    assert set(devices) == set(on_gpu) == {GPU}
    assert next(net.parameters()).device.type == "cpu"  # what comes out is saved and used as a simulator


def test_the_noise_loop(on_gpu, monkeypatch, tmp_path):
    for size_px in (32, 64):
        config = noise_gan.NoiseGanConfig(size_px=size_px, batch=2, width=4)
        net, judge = (part.to(GPU) for part in noise_gan._nets(config))
        adams = [torch.optim.Adam(part.parameters()) for part in (net, judge)]
        monkeypatch.setattr(noise_gan, "gradient_norm", lambda part: next(part.parameters()).new_zeros(()))
        figures = noise_gan._step(net, judge, *adams, torch.zeros(2, 3, size_px, size_px, device=GPU), torch.Generator())
        assert figures.device == GPU
    assert set(on_gpu) == {GPU}


@pytest.mark.parametrize(("cycle_weight", "share"), [(0.0, 0.1), (10.0, 0.45), (0.0, 0.9)])
def test_the_face_swap_loop_in_every_phase(on_gpu, monkeypatch, cycle_weight, share):
    config = face_swap_loop.FaceSwapConfig(size_px=64, base=8, lite=True, batch=2, cycle_weight=cycle_weight, bf16=False)
    nets = {name: net.to(GPU) for name, net in face_swap_loop._nets(config).items()}
    adams = tuple(torch.optim.Adam(nets[name].parameters()) for name in ("encoder", "judge_a"))
    monkeypatch.setattr(face_swap_loop, "draw_faces", lambda *_: (torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)))
    monkeypatch.setattr(face_swap_loop, "_beta", lambda _generator: 0.3)
    eyes = torch.zeros(1, 1, 64, 64, device=GPU)
    face_swap_loop._step(nets, (None, None), adams, config, share, eyes, torch.Generator())
    assert set(on_gpu) == {GPU}


@pytest.mark.parametrize("adversarial_too", [False, True])
def test_the_adversarial_classifier_and_its_plain_twin(on_gpu, monkeypatch, adversarial_too):
    settings = dcgan_classifier.Settings(steps=2, batch=4, width=4, bf16=False)
    monkeypatch.setattr(dcgan_classifier, "_pair", lambda *_: (torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)))
    net = dcgan_classifier._train(None, None, settings, seed=0, adversarial=adversarial_too)
    assert set(on_gpu) == {GPU}
    assert next(net.parameters()).device.type == "cpu"


@pytest.mark.parametrize(("name", "options", "masks"), [("minixception", NARROW, True), ("cnn_s0", {}, False)])
def test_the_supervised_loop_and_its_look_around_a_step(on_gpu, name, options, masks):
    net = build_net(name, **options).to(GPU)
    batch = loop.Batch(torch.zeros(4, 3, 64, 64), torch.zeros(4), torch.zeros(4, 1, 64, 64) if masks else None, paired=True)
    config = loop.LoopConfig(bf16=False)
    optimiser = loop.new_optimiser(net, config)
    loop._backward(net, batch, config, GPU, 1, optimiser)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with loop.at_worst_neighbour(net, 0.05):
        assert {parameter.device for parameter in net.parameters()} == {GPU}
    optimiser.step()
    assert set(on_gpu) == {GPU}


def test_without_a_gpu_training_is_on_the_cpu():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert training_device().type == expected
    assert make_pack(1).images.device.type == "cpu"
