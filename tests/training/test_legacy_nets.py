"""Defects of the studies that can be switched on: what they do, and that the default does not."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from detect_core.bundle import CropSpec, load_bundle, load_net, save_bundle
from detect_core.nets import build_net
from training.recipes import get_recipe

FLOOR = math.log(1 + math.exp(-1))
"""Where the loss of a logit between -1 and 1 ends."""


def norm_uses(net):
    counts = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *_, key=name: counts.__setitem__(key, counts.get(key, 0) + 1))
    with torch.inference_mode():
        net.eval()(torch.rand(1, 3, 64, 64))
    return sorted(counts.values())


def test_the_shared_norm_runs_twice_and_the_default_has_two_of_its_own():
    assert norm_uses(build_net("cnn_s0")) == [1, 1]
    assert norm_uses(build_net("cnn_s0", legacy_shared_bn=True)) == [2]


def test_a_shared_norm_in_use_is_another_net_than_in_training():
    torch.manual_seed(0)
    images = torch.rand(16, 3, 64, 64)
    gaps = {}
    for shared in (False, True):
        net = build_net("cnn_s0", legacy_shared_bn=shared)
        net.features[-1] = nn.Identity()  # dropout would hide the difference
        with torch.no_grad():
            net.features[4].bias.add_(3.0)  # the second convolution gives other values than the first
            for _ in range(50):
                learned = net.train()(images)
            gaps[shared] = float((net.eval()(images) - learned).abs().mean())
    assert gaps[False] < 0.05
    assert gaps[True] > 5 * gaps[False]


def test_a_copy_of_a_net_with_a_shared_norm_shares_its_own():
    net = build_net("cnn_s0", legacy_shared_bn=True)
    twin = copy.deepcopy(net)
    assert twin.features[5]._other[0] is twin.features[1]
    assert twin.features[1] is not net.features[1]


def test_a_net_with_a_shared_norm_travels_in_a_bundle(tmp_path):
    net = build_net("cnn_s0", legacy_shared_bn=True, outputs=2).eval()
    options = {"legacy_shared_bn": True, "outputs": 2}
    crop = CropSpec(size_px=64, margin=1.3)
    save_bundle(
        tmp_path / "b",
        net,
        name="cnn_s0",
        version="1",
        detector="synthesis",
        net="cnn_s0",
        net_options=options,
        crop=crop,
        temperature=1.0,
        card={},
        half=False,
    )
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(load_net(load_bundle(tmp_path / "b"))(images), net(images))


def learned(net, steps=40):
    """Loss on separable toy pictures, first and last."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(16).remainder(2).float()
    images = torch.randn(16, 3, 64, 64, generator=generator) * 0.2 + (2 * labels - 1)[:, None, None, None]
    adam = torch.optim.Adam(net.parameters(), lr=2e-3)
    losses = []
    for _ in range(steps):
        loss = bce(net(images), labels)
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
    return losses[0], losses[-1]


def test_a_head_without_sigmoid_learns_separable_pictures_and_the_legacy_one_cannot():
    torch.manual_seed(0)
    first, last = learned(build_net("dcgan64", ndf=8, first_norm=True))
    assert first == pytest.approx(math.log(2), abs=0.12)
    assert last < 0.05
    torch.manual_seed(0)
    _, legacy = learned(build_net("dcgan64", ndf=8, first_norm=True, legacy_softmax_sigmoid=True))
    assert legacy >= FLOOR - 1e-6


def test_the_legacy_head_is_the_cross_entropy_of_two_sigmoids():
    torch.manual_seed(0)
    net = build_net("dcgan64", ndf=4, legacy_softmax_sigmoid=True).eval()
    images, labels = torch.rand(6, 3, 64, 64), torch.tensor([0, 1, 1, 0, 1, 0])
    with torch.inference_mode():
        outputs, logits = net.head(net.features(images)).flatten(1).sigmoid(), net(images)
    assert bce(logits, labels.float()).item() == pytest.approx(nn.functional.cross_entropy(outputs, labels).item(), abs=1e-6)
    assert logits.abs().max().item() <= 1.0


def test_no_recipe_but_the_legacy_ones_switches_a_defect_on():
    for name in ("autogan_cnn_raw", "dcgan_classifier", "autogan_cnn_reconstruction"):
        assert "legacy" not in getattr(get_recipe(name).settings("cpu"), "net_options", "")
        assert not getattr(get_recipe(name).settings("cpu"), "legacy_softmax_sigmoid", False)
    assert get_recipe("dcgan_classifier_legacy").settings("cpu").legacy_softmax_sigmoid
    assert '"legacy_shared_bn": true' in get_recipe("autogan_cnn_legacy").settings("cpu").net_options


def test_bands_are_disjoint_and_make_up_the_spectrum():
    from detect_core.nets.spectrum import LogSpectrum

    torch.manual_seed(0)
    images = torch.rand(2, 3, 56, 56) * 2 - 1
    whole = LogSpectrum()(images)
    parts = [LogSpectrum(band)(images) for band in ("low", "mid", "high")]
    assert torch.equal(sum(parts), whole)
    assert torch.equal(parts[0][..., 0, 0], whole[..., 0, 0])  # the zero frequency is the lowest
    assert torch.equal(parts[2][..., 28, 28], whole[..., 28, 28])
    shares = [float((part != 0).float().mean()) for part in parts]
    assert shares == pytest.approx([(120 / 224) ** 2, (182 / 224) ** 2 - (120 / 224) ** 2, 1 - (182 / 224) ** 2], abs=0.03)
