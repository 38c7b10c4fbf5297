"""Architectures are frozen by their exact parameter counts and output shapes."""

import pytest
import torch

from detect_core.errors import BundleMismatchError
from detect_core.nets import NETS, build_net
from detect_core.nets.autogan import UPSAMPLERS, AutoGan, Decoder, Encoder, PatchDiscriminator
from detect_core.nets.dcgan import Generator32, Generator64
from detect_core.nets.spectrum import LogSpectrum


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("num_blocks", "expected"), [(1, 1_558_656), (4, 5_099_136), (9, 10_999_936)])
def test_encoder_has_the_published_size(num_blocks, expected):
    assert count(Encoder(num_blocks)) == expected


@pytest.mark.parametrize(
    ("upsampler", "expected"),
    [("nearest", 378_243), ("bilinear", 378_243), ("transposed", 378_243), ("transposed_k4", 664_963), ("pixelshuffle", 1_484_739)],
)
def test_decoder_has_the_published_size(upsampler, expected):
    assert count(Decoder(upsampler)) == expected


def test_other_published_sizes():
    assert count(PatchDiscriminator()) == 2_764_737
    assert count(AutoGan(1, 16)) == 124_803
    assert count(AutoGan(4, 48)) == 3_085_059
    assert count(build_net("xception")) == 20_809_001
    small = build_net("minixception", widths=(16, 32, 64, 128, 128, 192), num_middle=2)
    assert count(small) - count(small.mask_head) == 246_833
    full = build_net("minixception")
    assert count(full) - count(full.mask_head) == 629_385
    lite = build_net("efficientnet_lite0")
    classifier = 320 * 1280 + 2 * 1280 + 1281 * 1000
    assert count(lite) - count(lite.mask_head) - count(lite.head) == 4_652_008 - classifier


PUBLISHED = [
    ("npr", {}, 1_437_761),
    ("npr", {"width": 32}, 362_529),
    ("spectrum", {}, 11_177_025),
    ("spectrum", {"depth": 34}, 21_285_185),
    ("alexnet64", {}, 28_677_953),
    ("alexnet224", {}, 57_007_937),
    ("dcgan64", {}, 2_765_568),
    ("dcgan64", {"outputs": 2, "first_norm": True}, 2_773_888),
    ("dcgan32", {}, 393_409),
    ("dcgan32", {"last_stride": 2}, 390_337),
    ("vggface16", {}, 66_099_009),
    ("vggface16", {"hidden": 512}, 27_560_769),
    ("densenet121", {}, 6_954_881),
    ("efficientnet_b4", {}, 17_550_409),
    ("cnn5", {}, 393_863),
    ("cnn6", {}, 1_575_303),
    ("cnn_s0", {}, 16_417),
    ("cnn_s0", {"outputs": 2}, 28_082),
    ("cnn_s0", {"outputs": 2, "legacy_shared_bn": True}, 28_050),
    ("dcgan64", {"legacy_softmax_sigmoid": True, "first_norm": True}, 2_773_888),
    ("cnn_s4", {}, 46_114_433),
    ("cnn_s4", {"fixed": True}, 108_545),
    ("meso4", {}, 27_977),
    ("meso4", {"size_px": 128}, 15_689),
    ("mesoinception4", {}, 28_615),
]


@pytest.mark.parametrize(("name", "options", "expected"), PUBLISHED)
def test_net_has_the_published_size(name, options, expected):
    with torch.device("meta"):
        assert count(build_net(name, **options)) == expected


def test_generators_have_the_published_size():
    with torch.device("meta"):
        assert count(Generator64()) == 3_576_704
        assert count(Generator32()) == 1_050_883
        assert count(Generator32(upsampler="transposed")) == 1_222_915


def test_a_flat_picture_has_a_finite_spectrum():
    spectrum = LogSpectrum()(torch.zeros(1, 3, 32, 32))
    assert torch.isfinite(spectrum).all()


def test_the_spectrum_shows_what_nearest_upsampling_leaves():
    # Given noise and the same noise enlarged by repetition, then the second has a zero line at half the rate.
    noise = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    enlarged = torch.nn.functional.interpolate(noise[:, :, ::2, ::2], scale_factor=2.0, mode="nearest")
    plain, copied = LogSpectrum()(noise), LogSpectrum()(enlarged)
    assert copied[0, 0, 16].mean() < -0.99
    assert plain[0, 0, 16].mean() > -0.3


@pytest.mark.parametrize("upsampler", UPSAMPLERS)
def test_autoencoder_keeps_shape_and_range(upsampler):
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    y = AutoGan(1, 4, upsampler)(x)
    assert y.shape == x.shape
    assert y.abs().max() <= 1


def test_patch_discriminator_gives_the_4x4_map_of_the_study():
    assert PatchDiscriminator(4)(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 4, 4)


SMALL = {
    "minixception": ({"widths": (4, 4, 8, 8, 8, 8), "num_middle": 1}, 64),
    "blend_resnet": ({"widths": (8, 8, 16, 16)}, 64),
    "autogan_classifier": ({"ngf": 4, "widths": (8, 8)}, 32),
    "xception": ({}, 96),
    "efficientnet_b4": ({}, 64),
    "efficientnet_lite0": ({}, 64),
    "npr": ({"width": 8}, 33),
    "spectrum": ({}, 32),
    "alexnet64": ({}, 64),
    "dcgan64": ({"ndf": 8}, 64),
    "dcgan32": ({}, 32),
    "densenet121": ({}, 64),
    "cnn5": ({}, 64),
    "cnn6": ({}, 64),
    "cnn_s0": ({}, 64),
    "cnn_s4": ({"size_px": 64}, 64),
    "meso4": ({"size_px": 64}, 64),
    "mesoinception4": ({"size_px": 64}, 64),
    "embedding_svm": (
        {"backbone": "cnn5", "backbone_options": {"num_blocks": 2}, "dim": 32, "num_components": 4, "num_support": 7},
        32,
    ),
}
TOO_LARGE_FOR_A_QUICK_PASS = {"vggface16", "alexnet224"}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_net_gives_one_logit_from_its_embedding_and_uses_each_module_once(name):
    options, side = SMALL[name]
    net = build_net(name, **options).eval()
    calls: dict[str, int] = {}
    for module_name, module in net.named_modules():
        reused = isinstance(module, (torch.nn.ReLU, torch.nn.Identity))  # no parameters, torchvision calls one object often
        if not list(module.children()) and not reused:
            module.register_forward_hook(lambda *_, key=module_name: calls.__setitem__(key, calls.get(key, 0) + 1))
    x = torch.rand(2, 3, side, side) * 2 - 1
    with torch.inference_mode():
        logits = net(x)
        shared = {key: n for key, n in calls.items() if n != 1}
        embedded = net.embed(x)
        again = net(x)
    assert logits.shape == (2,)
    assert torch.equal(logits, again)
    assert embedded.shape[0] == 2
    assert embedded.ndim == 2
    assert not shared, f"used more than once (shared norm?): {shared}"


def test_every_registered_net_is_exercised():
    assert set(SMALL) | TOO_LARGE_FOR_A_QUICK_PASS | {"linear_statistics"} == set(NETS)


def test_a_line_through_statistics_standardises_cuts_and_keeps_the_order():
    net = build_net("linear_statistics", num_features=3)
    net.mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    net.scale.fill_(2.0)
    with torch.no_grad():
        net.head.weight.fill_(1.0)
        net.head.bias.zero_()
    x = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 3.0], [1e6, 2.0, 3.0]])
    assert torch.equal(net(x), torch.tensor([0.0, 1.0, 4.0]))
    assert count(net) == 4


def test_scoring_changes_no_buffer_and_repeats_itself():
    net = build_net("blend_resnet", widths=(8, 8, 16, 16)).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(net(x), net(x))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_initial_loss_is_that_of_a_coin():
    torch.manual_seed(0)
    net = build_net("blend_resnet", widths=(16, 16, 32, 32))
    x = torch.rand(32, 3, 64, 64) * 2 - 1
    labels = torch.arange(32) % 2
    loss = torch.nn.functional.binary_cross_entropy_with_logits(net(x), labels.float())
    assert abs(loss.item() - 0.6931) < 0.12


def test_mask_head_sees_the_map_at_one_eighth():
    net = build_net("blend_resnet", widths=(8, 8, 16, 16))
    logits, mask = net.forward_with_mask(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2,)
    assert mask.shape == (2, 8, 8)


def test_unknown_names_and_options_are_refused_with_what_is_known():
    with pytest.raises(BundleMismatchError, match="unknown net"):
        build_net("nope")
    with pytest.raises(BundleMismatchError, match="does not take"):
        build_net("blend_resnet", colour="red")
    with pytest.raises(BundleMismatchError, match="unknown upsampler"):
        Decoder("magic")
