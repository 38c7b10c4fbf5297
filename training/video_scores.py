"""Score videos crop by crop with the bundles of a set, real ones as they are and simulated fakes made from them.

The crops, tracks, weights and nets are those of screening; only what follows (fusion, thresholds) is left open, so
that it can be fitted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detect_core.aggregate import MIN_TRACK_CROPS, TrackWindow, best_window
from detect_core.bundle import CropSpec
from detect_core.calibration import Fusion
from detect_core.domain import appearance
from detect_core.faces.detect import FaceDetector
from detect_core.options import ScreeningOptions
from detect_core.structs import FaceBox, VideoInfo

from .errors import DataError
from .face_pack import PACK_MARGIN
from .reencode import reencode_h264
from .scorers import Scorers
from .simulators.base import Reals, Simulator
from .split_videos import VideoRow
from .video_faces import TrackCrops, cut_tracks

WIDE: Final = "wide"
WIDE_SPEC: Final = CropSpec(size_px=256, margin=PACK_MARGIN)
"""Fakes are made at this side and shrunk to the net's, as a swap made in the full picture would be."""
Role = Literal["real", "fake", "twin", "simulated", "still_real", "still_fake", "distorted"]
"""Untouched videos and re-encoded twins, labelled fakes and simulated ones, photographs shown as clips, distorted copies."""
DISTORTED: Final = "#distorted:"
"""Stands between a file and the name of its distortion."""
UNDISTORTED: Final = "none"
"""Name of the copy that nothing was done to: same looks, same crops."""
STILL: Final = "still:"
"""Stands before the file of a photograph that was scored as a clip."""
FIRST_LOOK: Final = ScreeningOptions().first_look or 8
NUM_SIMULATED: Final = 16
"""Crops of a track that are turned into a fake: enough for its best window, half the cost."""


@dataclass(frozen=True, slots=True)
class TrackLogits:
    """All logits of one track."""

    logits: dict[str, list[float]]
    """Detector name -> one per crop, in time order."""
    weights: list[float]
    appearance: list[float] = field(default_factory=list)
    """As `detect_core.domain.appearance` says of the crops of the first detector of single crops; empty where it was not measured."""
    first_look: dict[str, list[float]] = field(default_factory=dict)
    """Logits of a first look at the track, which sees about `FIRST_LOOK` of its crops."""

    def of(self, names: Collection[str]) -> TrackLogits:
        """The same track with the logits of some detectors only."""
        return replace(
            self,
            logits={name: values for name, values in self.logits.items() if name in names},
            first_look={name: values for name, values in self.first_look.items() if name in names},
        )


@dataclass(frozen=True, slots=True)
class VideoLogits:
    """All logits of one video, or of one simulated fake of it."""

    file: str
    label: int
    group: str
    source: str
    generator: str
    """Empty for real ones; simulated fakes are named `sim:<family>`, re-encoded twins of reals stay real."""
    split: str
    tracks: list[TrackLogits]
    quantiser: float | None = None
    """Of the file, or of the encoding that a distorted copy went through."""

    @property
    def role(self) -> Role:
        """What this row is evidence of."""
        if DISTORTED in self.file:
            return "distorted"
        if self.file.startswith(STILL):
            return "still_fake" if self.label else "still_real"
        if "#" in self.file:
            return "simulated" if self.label else "twin"
        return "fake" if self.label else "real"

    def track_scores(self, fusion: Fusion, *, only: str | None = None) -> list[float]:
        """Score of the best window of every track that is long enough; of one detector's logits when `only` names it."""
        return [window.z for window in self.track_windows(fusion, only=only)]

    def track_windows(self, fusion: Fusion, *, only: str | None = None) -> list[TrackWindow]:
        """Best window of every track that is long enough; of one detector's logits when `only` names it."""
        fusion = fusion.under(self.quantiser)
        windows = []
        for track in self.tracks:
            names = [name for name in track.logits if only in (None, name)]
            if not names:
                continue
            fused = [fusion.fuse({name: track.logits[name][i] for name in names}) for i in range(len(track.weights))]
            window = best_window(fused, track.weights)
            if window is not None:
                windows.append(window)
        return windows


def score_video(root: Path, row: VideoRow, *, scorers: Scorers, face_detector: FaceDetector) -> tuple[VideoLogits, TrackCrops | None]:
    """Score a video as it is; also its largest track with wide crops, for simulators, or None without a face."""
    facts: list[VideoInfo] = []
    tracks = cut_tracks(root / row.file, {**scorers.specs(), WIDE: WIDE_SPEC}, detector=face_detector, on_info=facts.append)
    scored = [score_track(scorers, t.images, t.boxes, t.weights, file=row.file) for t in tracks]
    largest = max(tracks, key=lambda t: sum(box.side_px for box in t.boxes)) if tracks else None
    video = VideoLogits(row.file, row.label, row.group, row.source, row.generator, row.split, scored, quantiser=facts[0].quantiser)
    return video, largest


def score_track(
    scorers: Scorers,
    images: Mapping[str, Sequence[NDArray[np.uint8]]],
    boxes: Sequence[FaceBox],
    weights: Sequence[float],
    *,
    file: str | None,
) -> TrackLogits:
    """Everything that is known about one track.

    Args:
        scorers: the detectors.
        images: its crops in time order, by detector.
        boxes: their boxes.
        weights: their quality weights.
        file: the video that they come from; None for pictures of no video.
    """
    step = max(1, round(len(boxes) / FIRST_LOOK))
    few = slice(step // 2, None, step)
    first = (
        scorers.logits({name: crops[few] for name, crops in images.items()}, boxes[few], file=file)
        if len(boxes[few]) >= MIN_TRACK_CROPS
        else {}
    )
    return TrackLogits(
        scorers.logits(images, boxes, file=file),
        list(weights),
        appearance=[float(value) for value in appearance(images[next(iter(scorers.specs()))])],
        first_look=first,
    )


def score_simulated(
    row: VideoRow,
    track: TrackCrops,
    donor: TrackCrops,
    simulator: Simulator | None,
    *,
    scorers: Scorers,
    seed: int,
    crf: int,
) -> VideoLogits:
    """Turn the track into a fake of one family with the same parameters in every frame, encode it and score it.

    Args:
        row: where the track comes from.
        track: wide crops of a real video.
        donor: wide crops of another person, for cross blends.
        simulator: the family, or None for the untouched twin that is encoded the same way.
        scorers: the detectors.
        seed: every frame draws from a generator with this seed, so that all frames get the same draws.
        crf: x264 quality of the re-encoding.
    """
    step = max(1, len(track.boxes) // NUM_SIMULATED)
    chosen = range(0, len(track.boxes), step)
    frames = [
        np.ascontiguousarray(track.images[WIDE][i]) if simulator is None else _fake_frame(i, track, donor, simulator, seed) for i in chosen
    ]
    frames, quantiser = reencode_h264(frames, crf=crf)
    images = {name: [shrink(frame, spec) for frame in frames] for name, spec in scorers.specs().items()}
    scored = score_track(scorers, images, [track.boxes[i] for i in chosen], [track.weights[i] for i in chosen], file=row.file)
    family = f"sim:{simulator.family}" if simulator is not None else ""
    label = int(simulator is not None)
    return VideoLogits(
        f"{row.file}#{family or 'reencoded'}",
        label,
        row.group,
        row.source,
        family,
        row.split,
        [scored],
        quantiser=quantiser,
    )


def save_scores(videos: Sequence[VideoLogits], path: Path, *, hashes: Mapping[str, str], material: str = "") -> None:
    """One JSON object per line; the first line names the bundles (name -> sha256) that scored, and the hash of the material."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"bundles": dict(hashes), "material": material}), *(json.dumps(asdict(video)) for video in videos)]
    path.write_text("\n".join(lines) + "\n")


def load_scores(path: Path, *, hashes: Mapping[str, str], material: str | None = None) -> list[VideoLogits]:
    """Read what `save_scores` wrote with the same bundles; what others said there is left out.

    Args:
        path: the file.
        hashes: bundle name -> sha256.
        material: hash of what should have been scored; None asks for nothing.

    Raises:
        DataError: the file is missing, malformed, was scored by other bundles or holds the scores of other material.
    """
    try:
        first, *rest = [json.loads(line) for line in path.read_text().splitlines()]
        scored_by, scored_of = first["bundles"], first.get("material", "")
        videos = [VideoLogits(**{**row, "tracks": [TrackLogits(**track) for track in row["tracks"]]}) for row in rest]
    except (OSError, TypeError, KeyError, ValueError) as err:
        raise DataError(f"{path}: not a list of video scores ({err}); score the videos again") from err
    if any(scored_by.get(name) != digest for name, digest in hashes.items()):
        raise DataError(f"{path}: scored by bundles {scored_by}, wanted {dict(hashes)}; score the videos again")
    if material not in (None, scored_of):
        raise DataError(
            f"{path}: holds the scores of other videos, faces or folds than those given, or of an earlier version; score the videos again"
        )
    return [replace(video, tracks=[track.of(hashes) for track in video.tracks]) for video in videos]


def _fake_frame(i: int, track: TrackCrops, donor: TrackCrops, simulator: Simulator, seed: int) -> NDArray[np.uint8]:
    other = i % len(donor.boxes)
    images = torch.stack([_tensor(track.images[WIDE][i]), _tensor(donor.images[WIDE][other])])
    points = np.stack([track.boxes[i].landmarks_in_crop(PACK_MARGIN), donor.boxes[other].landmarks_in_crop(PACK_MARGIN)])
    fakes = simulator(Reals(images, torch.from_numpy(points)), torch.Generator().manual_seed(seed))
    return np.asarray((fakes.images[0] * 255).round().clamp(0, 255).permute(1, 2, 0).numpy(), np.uint8)


def _tensor(image_hwc: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image_hwc)).permute(2, 0, 1).float() / 255


def shrink(image_hwc: NDArray[np.uint8], spec: CropSpec) -> NDArray[np.uint8]:
    """The crop of a bundle out of one of margin `PACK_MARGIN`."""
    side = image_hwc.shape[0]
    inner = round(side * spec.margin / PACK_MARGIN)
    start = (side - inner) // 2
    cut = image_hwc[start : start + inner, start : start + inner]
    interpolation = cv2.INTER_AREA if inner > spec.size_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (spec.size_px, spec.size_px), interpolation=interpolation), np.uint8)
