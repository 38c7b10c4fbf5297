"""A run starts from a bundle of the same net or from a published trunk; anything else is refused before it trains."""

import pytest
import torch

from detect_core.bundle import CropSpec, save_bundle
from detect_core.nets import build_net
from training import device
from training.errors import CheckpointError, ConfigError
from training.recipes import get_recipe
from training.start_weights import named, started, terms_of

LITE = "efficientnet_lite0"
TERMS = "Lite0 of Somebody, learned on ImageNet, Apache-2.0"


def published(net, path, *, change=None):
    """A checkpoint as others name it: the trunk's tensors in order, then a classifier."""
    trunk = [(key, value) for key, value in net.state_dict().items() if key.startswith(("early.", "late."))]
    state = {f"_part{i}.{key.rpartition('.')[2]}": value.clone() for i, (key, value) in enumerate(trunk)}
    state["_conv_head.weight"] = torch.ones(1280, 320, 1, 1)
    if change is not None:
        change(state)
    torch.save(state, path)
    return str(path)


def test_a_published_trunk_is_taken_in_its_order_and_the_heads_stay(tmp_path):
    torch.manual_seed(1)
    source = build_net(LITE)
    for module in source.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    file = published(source, tmp_path / "trunk.pth")
    net = build_net(LITE)
    head = net.head.weight.clone()
    start = started(net, file, LITE, terms=TERMS)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(start.eval().embed(x), source.eval().embed(x))
    assert torch.equal(start.head.weight, head)
    assert all(parameter.requires_grad for parameter in start.parameters())
    assert named(file).startswith("trunk.pth@")
    assert len(named(file)) == len("trunk.pth@") + 12


def test_weights_of_another_net_are_refused(tmp_path):
    net = build_net(LITE)

    def wider(state):
        state["_part6.weight"] = torch.zeros(48, 1, 3, 3)

    def shorter(state):
        for key in list(state)[20:]:
            del state[key]

    with pytest.raises(ConfigError, match=r"_part6.weight is \(48, 1, 3, 3\), expected early"):
        started(net, published(net, tmp_path / "wide.pth", change=wider), LITE, terms=TERMS)
    with pytest.raises(ConfigError, match="the trunk of efficientnet_lite0 has"):
        started(net, published(net, tmp_path / "short.pth", change=shorter), LITE, terms=TERMS)
    with pytest.raises(ConfigError, match="say whose they are"):
        started(net, published(net, tmp_path / "trunk.pth"), LITE)
    with pytest.raises(ConfigError, match="only efficientnet_lite0 can"):
        started(build_net("blend_resnet"), published(net, tmp_path / "trunk.pth"), "blend_resnet", terms=TERMS)
    (tmp_path / "notes.pth").write_text("not weights")
    with pytest.raises(CheckpointError, match="no checkpoint of tensors alone"):
        started(net, str(tmp_path / "notes.pth"), LITE, terms=TERMS)


def test_a_bundle_goes_on_and_one_of_another_net_does_not(tmp_path):
    options = {"widths": (8, 8, 16, 16)}
    first = build_net("blend_resnet", **options)
    save_bundle(
        tmp_path / "bundle",
        first.eval(),
        name="blend",
        version="1",
        detector="blend",
        net="blend_resnet",
        net_options=options,
        crop=CropSpec(size_px=64, margin=1.3),
        temperature=1.0,
        card={"recipe": {"settings": {"init_terms": TERMS}}},
    )
    again = started(build_net("blend_resnet", **options), str(tmp_path / "bundle"), "blend_resnet")
    assert torch.equal(again.head.weight, first.head.weight)
    assert named(str(tmp_path / "bundle")).startswith("blend@")
    assert terms_of(str(tmp_path / "bundle"), "") == TERMS  # what came from others stays theirs through every further round
    with pytest.raises(ConfigError, match="it holds blend_resnet, wanted efficientnet_lite0"):
        started(build_net(LITE), str(tmp_path / "bundle"), LITE)


@pytest.mark.parametrize(
    ("fast", "wanted", "dtype"), [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)]
)
def test_bf16_is_left_out_where_it_would_be_emulated(fast, wanted, dtype, monkeypatch):
    monkeypatch.setattr(device, "has_fast_bf16", lambda _device: fast)
    with device.bf16_where_fast(torch.device("cpu"), wanted):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_setting_that_cannot_be_read_names_one_that_can():
    with pytest.raises(ConfigError, match=r"'128,160' is no list as JSON writes it, for example \[128\]"):
        get_recipe("blend").settings("cpu", ["sizes_px=128,160"])
    with pytest.raises(ConfigError, match="is no bool as JSON writes it, for example true"):
        get_recipe("blend").settings("cpu", ["bf16=False"])
