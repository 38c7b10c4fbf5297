"""Heat-maps of stored moments, their pictures, and the annotated clip: on real decoding and the shipped bundles."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import nn

from builders import astronaut_pictures, write_clip
from detect_core.annotate import DrawnTrack, annotated_clip
from detect_core.bundle import SHIPPED_ROOT
from detect_core.calibration import BundleSet, Fusion, load_bundle_set
from detect_core.errors import BundleMismatchError, OptionError, UndecodableError
from detect_core.explain import Moment, explain
from detect_core.heatmap import blend_mask, grad_cam, log_spectrum, overlay
from detect_core.nets import build_net
from detect_core.options import ScreeningOptions
from detect_core.pipeline import Screener
from detect_core.structs import Verdict
from detect_core.video.decode import DecodeSession

NUM_FRAMES = 8


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "portrait.mp4"
    write_clip(path, astronaut_pictures(50))
    return path


@pytest.fixture(scope="module")
def blend_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of expert A alone: a crop's score is its own, so that a re-cut crop can be held against it."""
    document = json.loads((SHIPPED_ROOT / "default.json").read_text())
    document["bundles"] = [{**row, "path": str(SHIPPED_ROOT / row["path"])} for row in document["bundles"] if row["name"] == "blend"]
    document["fusion"] = {"kind": "max", "offsets": {}, "weights": {}}
    path = tmp_path_factory.mktemp("sets") / "blend.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def verdict(portrait: Path, blend_alone: Path) -> Iterator[Verdict]:
    screener = Screener.load(blend_alone, options=ScreeningOptions(num_frames=NUM_FRAMES))
    with portrait.open("rb") as file:
        yield screener.screen(file)
    screener.close()


def moments_of(verdict: Verdict, *, detector: str | None = None) -> list[Moment]:
    return [
        Moment(track_id=each.track_id, pts_seconds=each.pts_seconds, xyxy=each.xyxy, detector=detector or str(each.detector))
        for each in verdict.evidence
    ]


class Spotlight(nn.Module):
    """Its logit is the brightness of the upper left quarter: what Grad-CAM must find."""

    def __init__(self) -> None:
        super().__init__()
        self.copy = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.copy.weight, 1.0)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        features = self.copy(x_BCHW)
        return features.mean(dim=(1, 2, 3))


def test_grad_cam_points_at_what_raises_the_logit() -> None:
    x_1CHW = torch.full((1, 3, 16, 16), -1.0)
    x_1CHW[:, :, :8, :8] = 1.0
    cam = grad_cam(Spotlight().eval(), x_1CHW)
    assert cam.shape == (16, 16)
    assert cam[:8, :8].min() == cam.max() == 1.0
    assert cam[8:].max() == cam[:, 8:].max() == 0.0


def test_a_net_without_a_map_is_refused() -> None:
    with pytest.raises(BundleMismatchError, match="height and width"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).eval(), torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("blend_resnet", {}, 128),
        ("minixception", {}, 128),
        ("autogan_classifier", {}, 64),
        ("npr", {"width": 32}, 64),
        ("spectrum", {}, 64),
        ("meso4", {}, 256),
        ("alexnet64", {}, 64),
        ("xception", {}, 224),
    ],
)
def test_every_kind_of_net_has_a_map_of_probabilities(name: str, options: dict[str, object], side: int) -> None:
    torch.manual_seed(0)
    net = build_net(name, **options).eval().requires_grad_(False)
    x_1CHW = torch.rand(1, 3, side, side) * 2 - 1
    before = net(x_1CHW)
    cam = grad_cam(net, x_1CHW)
    assert cam.ndim == 2
    assert min(cam.shape) > 1
    assert np.isfinite(cam).all()
    assert 0.0 <= cam.min() <= cam.max() <= 1.0
    assert torch.equal(net(x_1CHW), before), "hooks must be gone afterwards"
    mask = blend_mask(net, x_1CHW)
    assert (mask is not None) == (name in ("blend_resnet", "minixception"))


def test_a_regular_pattern_is_a_bright_point_in_the_spectrum() -> None:
    x = np.mgrid[0:64, 0:64][1]
    stripes = np.repeat((127 + 100 * np.cos(2 * np.pi * 8 * x / 64))[..., None], 3, axis=2).astype(np.uint8)
    spectrum = log_spectrum(stripes)
    assert (spectrum.min(), spectrum.max()) == (0.0, 1.0)
    assert spectrum[32, 32 + 8] == spectrum[32, 32 - 8] == 1.0
    assert spectrum[32 + 20, 32] < 0.5


def test_a_silent_map_leaves_the_picture_as_it_is() -> None:
    crop = np.full((32, 32, 3), 90, np.uint8)
    assert (overlay(crop, np.zeros((4, 4), np.float32)) == 90).all()
    assert (overlay(crop, np.ones((4, 4), np.float32)) != 90).any()


def test_the_worst_moments_are_cut_again_bit_for_bit_and_shown(verdict: Verdict, portrait: Path, blend_alone: Path) -> None:
    bundle_set = load_bundle_set(blend_alone)
    moments = moments_of(verdict)[:2]
    with portrait.open("rb") as file:
        explained = explain(file, moments, bundle_set=bundle_set, num_frames=NUM_FRAMES)

    assert [each.moment for each in explained] == moments
    for each, stored in zip(explained, verdict.evidence, strict=False):
        calibration = bundle_set.calibration
        again = calibration.probability(calibration.fusion.fuse({each.detector: each.logit}))
        assert again == pytest.approx(stored.score, abs=1e-5), "the crop that is explained must be the crop that was scored"
        assert {"crop", "grad_cam"} <= each.pictures.keys()
        assert {picture.shape for picture in each.pictures.values()} == {(320, 320, 3)}


def test_each_detector_shows_what_it_works_with(verdict: Verdict, portrait: Path) -> None:
    kinds = {}
    for name in ("blend", "autogan"):
        with portrait.open("rb") as file:
            (one,) = explain(file, moments_of(verdict, detector=name)[:1], bundle_set=load_bundle_set(), num_frames=NUM_FRAMES)
        kinds[name] = set(one.pictures)
    assert kinds == {"blend": {"crop", "grad_cam", "blend_mask"}, "autogan": {"crop", "grad_cam", "spectrum"}}


def set_that_hears(*names: str) -> BundleSet:
    """The shipped set, in which only these detectors count."""
    loaded = load_bundle_set()
    weights = {name: weight if name in names else 0.0 for name, weight in loaded.calibration.fusion.weights.items()}
    fusion = Fusion("evidence_sum", {}, weights)
    return replace(loaded, calibration=replace(loaded.calibration, fusion=fusion))


def test_where_a_track_detector_decided_the_loudest_of_the_others_is_shown(verdict: Verdict, portrait: Path) -> None:
    def drawn(bundle_set: BundleSet, *, detector: str = "temporal") -> list[tuple[str, float]]:
        with portrait.open("rb") as file:
            found = explain(file, moments_of(verdict, detector=detector)[:1], bundle_set=bundle_set, num_frames=NUM_FRAMES)
        return [(each.detector, each.logit) for each in found]

    every = set_that_hears("blend", "synthesis", "autogan", "temporal")
    logits = dict(drawn(every, detector=name)[0] for name in ("blend", "synthesis", "autogan"))
    loudest = max(logits, key=lambda name: every.calibration.fusion.weights[name] * logits[name])
    assert drawn(every) == [(loudest, logits[loudest])]
    others = tuple(name for name in logits if name != loudest)
    assert drawn(set_that_hears(*others, "temporal"))[0][0] in others, "one that has faded away is not shown"
    assert drawn(set_that_hears("temporal")) == []


def test_what_cannot_be_explained_is_named(verdict: Verdict, portrait: Path) -> None:
    with portrait.open("rb") as file:
        with pytest.raises(BundleMismatchError, match="no detector nobody"):
            explain(file, moments_of(verdict, detector="nobody"), bundle_set=load_bundle_set(), num_frames=NUM_FRAMES)
        with pytest.raises(OptionError, match="at most"):
            explain(file, moments_of(verdict) * 7, bundle_set=load_bundle_set(), num_frames=NUM_FRAMES)
        elsewhere = Moment(track_id=1, pts_seconds=0.123, xyxy=(0, 0, 50, 50), detector="blend")
        assert explain(file, [elsewhere], bundle_set=load_bundle_set(), num_frames=NUM_FRAMES) == []


def frames_within(path: Path, within: tuple[float, float] | None, num_frames: int) -> list[float]:
    options = ScreeningOptions(num_frames=num_frames, within_seconds=within)
    with path.open("rb") as file, DecodeSession(file, options=options) as session:
        session.open()
        frames, more = session.next_frames(num_frames)
        assert not more
        return [frame.pts_seconds for frame in frames]


def test_a_stretch_of_a_video_is_sampled_alone(portrait: Path) -> None:
    inside = frames_within(portrait, (0.5, 1.0), 50)
    assert inside == [t for t in frames_within(portrait, None, 50) if 0.5 <= t <= 1.0]
    assert len(frames_within(portrait, (0.5, 1.0), 4)) == 4
    with pytest.raises(UndecodableError):
        frames_within(portrait, (100.0, 101.0), 4)
    with pytest.raises(OptionError, match="start < end"):
        ScreeningOptions(within_seconds=(2.0, 1.0))


def test_the_annotated_clip_plays_and_shows_the_box_where_the_face_is(verdict: Verdict, portrait: Path) -> None:
    track = verdict.tracks[0]
    drawn = DrawnTrack(
        track_id=track.track_id,
        pts_seconds=tuple(t for t, _ in track.scores),
        scores=tuple(score for _, score in track.scores),
        boxes=track.boxes,
    )
    with portrait.open("rb") as file:
        clip = annotated_clip(file, [drawn], within_seconds=(0.2, 1.8), threshold=0.9)

    with av.open(io.BytesIO(clip)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].codec_context.name == "h264"
        assert not container.streams.audio
    assert len(pictures) == 19
    assert pictures[0].shape == (360, 480, 3)
    plain = frames_of(portrait, (0.2, 1.8), len(pictures))
    changed = np.abs(pictures[9].astype(int) - plain[9].astype(int)).max(axis=2) > 60
    box, _score = drawn.at(1.0)  # type: ignore[misc]
    assert changed.sum() > 200, "the box must be visible"
    assert changed[round(box[1]) + 20 : round(box[3]) - 20, round(box[0]) + 20 : round(box[2]) - 20].mean() < 0.01, "the face stays visible"


def frames_of(path: Path, within: tuple[float, float], num_frames: int) -> list[np.ndarray]:
    with path.open("rb") as file, DecodeSession(file, options=ScreeningOptions(num_frames=num_frames, within_seconds=within)) as session:
        session.open()
        return [frame.image_hwc for frame in session.next_frames(num_frames)[0]]


def test_a_clip_has_bounds_and_a_track_needs_its_columns(portrait: Path) -> None:
    with portrait.open("rb") as file, pytest.raises(OptionError, match="lasts up to"):
        annotated_clip(file, [], within_seconds=(0.0, 60.0), threshold=None)
    with pytest.raises(OptionError, match="one time, score and box"):
        DrawnTrack(track_id=1, pts_seconds=(0.0,), scores=(), boxes=())
    assert DrawnTrack(track_id=1, pts_seconds=(1.0,), scores=(0.5,), boxes=((0, 0, 9, 9),)).at(2.0) is None


def test_a_clip_claims_nothing_where_nobody_looked() -> None:
    left, right = (0.0, 0.0, 100.0, 100.0), (800.0, 300.0, 900.0, 400.0)
    drawn = DrawnTrack(track_id=1, pts_seconds=(0.0, 1.0, 20.0), scores=(0.1, 0.2, 0.95), boxes=(left, left, right))
    assert [drawn.at(t) is None for t in (-0.31, 1.31, 10.0, 17.5, 19.69, 20.31)] == [True] * 6
    box, score = drawn.at(0.6)  # type: ignore[misc]
    assert (box.tolist(), score) == (list(left), 0.2), "the score of the nearer sample: nobody measured one in between"
    assert [drawn.at(t)[1] for t in (1.29, 19.71, 20.29)] == [0.2, 0.95, 0.95]  # type: ignore[index]
