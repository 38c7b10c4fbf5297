"""A faster way to run a net must say the same as the plain one, and a verdict's word must not depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from builders import astronaut_pictures, write_clip
from detect_core.bundle import load_net
from detect_core.calibration import DEFAULT_SET, BundleSet, load_bundle_set
from detect_core.detectors import crop_net, is_track_bundle, load_detector, runtime
from detect_core.detectors.packed import PackedConv, pack
from detect_core.detectors.runtime import choose_runtime
from detect_core.engine import Engine
from detect_core.errors import OptionError
from detect_core.nets import build_net
from detect_core.options import ScreeningOptions
from detect_core.pipeline import Screener
from detect_core.self_test import golden_path, run_self_test
from detect_core.structs import Verdict


class Branching(nn.Module):
    """Python that looks at values cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = self.conv(x_BCHW)
        return maps.mean(dim=(1, 2, 3)) if float(maps.sum()) > 0 else maps.amax(dim=(1, 2, 3))


class Tangled(nn.Module):
    """Everything that a careless rewrite would get wrong: a shared convolution, maps used twice, chains of sums."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.shared_norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 8, 5, padding="same")
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.relu6 = nn.ReLU6()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        a = self.norm(self.first(x_BCHW))
        b = self.shared_norm(self.shared(torch.relu(a)))
        c = self.shared(b) + a
        d = self.grouped(c)
        e = self.relu(d + c)
        f = self.wide(e) + self.grouped(b) + 1.0
        g = self.relu6(20.0 * self.wide(f)) + self.relu6(self.wide(b) + 5.0 * b)
        return (f * d + g).mean(dim=(1, 2, 3))


def settled(net: nn.Module) -> nn.Module:
    """Batch norms that do something."""
    generator = torch.Generator().manual_seed(3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.running_mean, -0.5), (module.bias, -0.5), (module.running_var, 0.5), (module.weight, 0.5)):
                values.data.copy_(torch.rand(values.shape, generator=generator) + low)
    return net.eval().requires_grad_(False)


def crops(count: int, size_px: int) -> Tensor:
    values = torch.rand(count, 3, size_px, size_px, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return values.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["minixception", "blend_resnet", "efficientnet_lite0", "xception", "autogan_classifier", "densenet121"])
def test_a_packed_net_gives_the_same_logits(name: str) -> None:
    torch.manual_seed(0)
    net = settled(build_net(name)).to(memory_format=torch.channels_last)
    x_BCHW = crops(2, 64)
    packed = pack(net, x_BCHW, dtype=torch.float32)
    assert packed is not None
    assert any(isinstance(module, PackedConv) for module in packed.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in packed.modules()) or name == "densenet121"
    with torch.inference_mode():
        for batch in (1, 2):
            torch.testing.assert_close(packed(x_BCHW[:batch]), net(x_BCHW[:batch]), atol=2e-5, rtol=1e-4)


def test_a_tangled_net_survives_the_rewriting() -> None:
    torch.manual_seed(0)
    net = settled(Tangled())
    x_BCHW = crops(3, 16)
    packed = pack(net, x_BCHW, dtype=torch.float32)
    assert packed is not None
    with torch.inference_mode():
        torch.testing.assert_close(packed(x_BCHW), net(x_BCHW), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(packed(x_BCHW), net(x_BCHW), atol=1e-5, rtol=1e-4)


def test_the_shipped_detectors_keep_their_scores() -> None:
    for bundle in (each for each in load_bundle_set().bundles if not is_track_bundle(each)):
        size = bundle.crop.size_px
        net, x_BCHW = load_net(bundle), crops(8, size)
        with torch.inference_mode():
            plain = torch.sigmoid(net(x_BCHW) / bundle.temperature)
            for wish, tolerance in (("fp32", 1e-5), ("bf16", 1e-2)):
                chosen = choose_runtime(net, x_BCHW, wish=wish, temperature=bundle.temperature)
                scores = torch.sigmoid(chosen.run(x_BCHW) / bundle.temperature)
                assert chosen.precision == wish
                assert float((scores - plain).abs().max()) <= tolerance


def test_a_net_that_cannot_be_traced_runs_as_it_is() -> None:
    net = Branching().eval().requires_grad_(False)
    chosen = choose_runtime(net, crops(2, 16), wish="fp32", temperature=1.0)

    assert (chosen.engine, chosen.precision) == ("eager", "fp32")


class Fragile(nn.Module):
    """Loses its answer in the eight bits that bf16 keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1, bias=False)
        self.conv.weight.data.fill_(1.0)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return 300.0 * ((self.conv(x_BCHW) + 1000.0).mean(dim=(1, 2, 3)) - 1000.0)


def test_bf16_that_strays_is_not_used() -> None:
    chosen = choose_runtime(Fragile().eval().requires_grad_(False), crops(4, 16), wish="bf16", temperature=1.0)

    assert chosen.precision == "fp32"


def test_without_fast_bf16_auto_stays_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_fast_bf16", lambda _device: False)
    bundle = load_bundle_set().bundles[0]

    assert load_detector(bundle, precision="auto").precision == "fp32"
    monkeypatch.setattr(runtime, "has_fast_bf16", lambda _device: True)
    assert load_detector(bundle, precision="auto").precision == "bf16"


@pytest.fixture
def tf32() -> Iterator[Callable[[], list[bool]]]:
    """Whether convolutions and matrix products on a card may be rounded to TF32; at first both may."""
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = True
    yield lambda: [switch.allow_tf32 for switch in switches]
    for switch, was in zip(switches, before, strict=True):
        switch.allow_tf32 = was


def test_an_engine_on_a_card_computes_fp32_in_fp32(tf32: Callable[[], list[bool]], exact: Screener) -> None:
    made = Engine(replace(exact.bundle_set, bundles=()), device="cuda:0", face_detector=exact.engine.face_detector)
    made.close()

    assert tf32() == [False, False]


def test_a_detector_alone_on_a_card_computes_fp32_in_fp32(tf32: Callable[[], list[bool]], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_there(_device: torch.device) -> None:
        raise InterruptedError

    monkeypatch.setattr(crop_net, "Uploader", stop_there)
    with pytest.raises(InterruptedError):
        load_detector(load_bundle_set().bundles[0], device="cuda")

    assert tf32() == [False, False]


def test_on_a_cpu_the_switches_of_the_card_are_left_alone(tf32: Callable[[], list[bool]]) -> None:
    load_detector(load_bundle_set().bundles[0])

    assert tf32() == [True, True]


def test_what_is_asked_for_must_be_known() -> None:
    with pytest.raises(OptionError, match="fp16"):
        load_detector(load_bundle_set().bundles[0], precision="fp16")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "portrait.mp4"
    write_clip(path, astronaut_pictures(30))
    return path


@pytest.fixture(scope="module")
def exact() -> Iterator[Screener]:
    made = Screener.load(options=ScreeningOptions(num_frames=12, first_look=None))
    yield made
    made.close()


def judge(screener: Screener, path: Path) -> Verdict:
    with path.open("rb") as file:
        return screener.screen(file)


def test_a_verdict_in_bf16_has_the_same_word_and_says_what_it_was_computed_in(exact: Screener, portrait: Path) -> None:
    fast = Screener(exact.bundle_set, options=exact.options, precision="bf16")
    quick, slow = judge(fast, portrait), judge(exact, portrait)
    fast.close()

    assert quick.verdict == slow.verdict
    assert quick.p_fake == pytest.approx(slow.p_fake, abs=1e-2)
    assert {report.precision for report in slow.detectors} == {"fp32"}
    scored = {report.precision for report in quick.detectors if report.state == "scored"}
    assert scored == ({"fp32"} if fast._is_close_call(quick) else {"bf16"})


def test_next_to_a_threshold_the_exact_net_decides(exact: Screener, portrait: Path) -> None:
    slow = judge(exact, portrait)
    assert slow.p_fake is not None
    near = thresholds_at(exact.bundle_set, slow.p_fake)
    fast = Screener(near, options=exact.options, precision="bf16")
    quick = judge(fast, portrait)
    fast.close()

    assert {report.precision for report in quick.detectors if report.state == "scored"} == {"fp32"}
    assert quick.p_fake == pytest.approx(slow.p_fake, abs=1e-6)


def test_a_steep_calibration_takes_its_thresholds_further_away(exact: Screener, portrait: Path) -> None:
    calibration = exact.bundle_set.calibration
    steep = replace(calibration, platt_a=10 * calibration.platt_a, platt_c=10 * calibration.platt_c)
    certain = Screener(replace(exact.bundle_set, calibration=steep), options=exact.options)
    p_fake = judge(certain, portrait).p_fake
    assert p_fake is not None
    away = p_fake + 0.1 if p_fake < 0.5 else p_fake - 0.1
    near = replace(exact.bundle_set, calibration=replace(steep, t_review=away, t_fake=max(away, 0.99)))
    fast = Screener(near, options=exact.options, precision="bf16")
    quick = judge(fast, portrait)
    for screener in (certain, fast):
        screener.close()

    assert {report.precision for report in quick.detectors if report.state == "scored"} == {"fp32"}


def thresholds_at(bundle_set: BundleSet, p_fake: float) -> BundleSet:
    calibration = replace(bundle_set.calibration, t_review=min(p_fake, 0.98), t_fake=0.99)
    return replace(bundle_set, calibration=calibration)


def test_a_worker_in_bf16_passes_its_self_test(exact: Screener) -> None:
    fast = Screener(exact.bundle_set, options=exact.options, precision="bf16")
    outcome = run_self_test(exact.bundle_set, golden_path(DEFAULT_SET), engine=fast.engine)
    fast.close()

    assert outcome.passed, outcome.sentence
